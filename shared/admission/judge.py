"""Judging the objects of manifests against what is stored: what `orbweaver validate` shows and a folder puts into force.

Owns the order in which objects of one set see each other, and the form of a judgement. Must not read files or ask anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.admission.draft import existing
from shared.admission.pod import ANNOTATION_FIELDS
from shared.admission.rules import admit, mutate, validate
from shared.admission.verdict import Operation, Verdict, verdict
from shared.admission.view import Objects
from shared.manifests import shape
from shared.manifests.document import Document, ManifestFile, ObjectKey
from shared.manifests.meta import Json
from shared.manifests.problem import FieldError, Problem

_FIRST = ("ConfigMap", "Namespace", "SpiderSubnet", "SpiderIPPool", "SpiderReservedIP", "SpiderCoordinator")


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """One object judged. `admitted` is it with its defaults, None where it is refused. `status` is the HTTP status."""

    object: str
    operation: Operation
    status: int
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    admitted: Json | None = None

    @property
    def valid(self) -> bool:
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """`{"valid", "object", "errors": [{"field", "code", "message"}]}`, with file and line, and the warnings."""
        return {
            "valid": self.valid,
            "object": self.object,
            "errors": [_shown(error) for error in self.errors],
            "warnings": [_shown(warning) for warning in self.warnings],
        }


def _shown(problem: Problem) -> dict[str, Any]:
    out: dict[str, Any] = {"field": problem.field, "code": problem.code, "message": problem.message}
    if problem.file:
        out["file"] = problem.file
    if problem.line:
        out["line"] = problem.line
    return out


def report(judgements: Sequence[Judgement]) -> dict[str, Any] | list[dict[str, Any]]:
    """What the command prints: one JSON object for one judged object, a list for any other number."""
    shown = [judgement.to_json() for judgement in judgements]
    return shown[0] if len(shown) == 1 else shown


def judge_files(files: Sequence[ManifestFile], stored: Objects) -> list[Judgement]:
    """Every object of the files, and every mistake that belongs to no object, in the order of the text."""
    unreadable = [
        Judgement(object="", operation="CREATE", status=422, errors=(problem,))
        for file in files
        for problem in file.unreadable
    ]
    return unreadable + judge([document for file in files for document in file.documents], stored)


def judge(documents: Sequence[Document], stored: Objects) -> list[Judgement]:
    """Each object as UPDATE where it is stored, as CREATE where not, in the order given.

    Objects of the set see each other: what is unchanged is looked at first, then updates, then what is new, and each kind after
    those it depends on. So a range may move from one pool to another in one set; of two new pools that overlap, the
    later is refused. A refused object leaves its stored form in force for the rest. `stored` is not changed.
    """
    view = stored.copy()
    held = [view.get(document.key) for document in documents]
    ranks = [_rank(document, old, stored) for document, old in zip(documents, held, strict=True)]
    for document in documents:
        view.remove(document.key)
    out: dict[int, Judgement] = {}
    seen: dict[ObjectKey, Document] = {}
    for i in sorted(range(len(documents)), key=ranks.__getitem__):
        document, old = documents[i], held[i]
        first = seen.setdefault(document.key, document)
        judgement = (
            _refuse_twin(document, first) if first is not document else _judge_one(document, old, view)
        )
        keep = judgement.admitted if judgement.admitted is not None else old
        if keep is not None and first is document:
            view.put(keep)
        out[i] = judgement
    return [out[i] for i in range(len(documents))]


def _refuse_twin(document: Document, first: Document) -> Judgement:
    """Two manifests of one object: which is meant?"""
    sentence = f"the same object also stands at {first.file}:{first.line}"
    errors = document.errors or (FieldError(field="metadata.name", code="Duplicate", message=sentence),)
    problems = tuple(document.problem(error) for error in errors)
    return Judgement(object=document.label, operation="CREATE", status=422, errors=problems)


def judge_deletion(key: ObjectKey, stored: Objects) -> Judgement:
    """May this object be deleted? One that is not stored may not."""
    old = stored.get(key)
    if old is None:
        missing = FieldError(field="metadata.name", code="Invalid", message=f"{key} is not stored")
        found = verdict([missing])
    else:
        found = validate("DELETE", None, old, stored)
    return Judgement(
        object=str(key),
        operation="DELETE",
        status=404 if old is None else found.status,
        errors=tuple(_placeless(key, error) for error in found.errors),
        warnings=tuple(_placeless(key, warning) for warning in found.warnings),
    )


def _placeless(key: ObjectKey, error: FieldError) -> Problem:
    return Problem(
        file="", line=0, object=str(key), field=error.field, code=error.code, message=error.message
    )


def _rank(document: Document, old: Json | None, stored: Objects) -> tuple[int, int]:
    """Kinds that others depend on first; within a kind what changes least."""
    kind = _FIRST.index(document.key.kind) if document.key.kind in _FIRST else len(_FIRST)
    if old is None:
        return kind, 2
    same = mutate(_continued(document.raw, old), stored).get("spec") == old.get("spec")
    return kind, 0 if same else 1


def _judge_one(document: Document, old: Json | None, view: Objects) -> Judgement:
    operation: Operation = "CREATE" if old is None else "UPDATE"
    admitted, found = admit(_continued(document.raw, old), old, view)
    if old is not None and document.key.kind in ("Pod", "Namespace"):
        # Admission looks at what an update changes; but a folder holds what it would not have let in.
        anew = validate("CREATE", admitted, None, view).errors
        marks = [error for error in anew if error.field in ANNOTATION_FIELDS]
        found = verdict([*found.errors, *marks], found.warnings)
    if document.errors:
        said = document.errors
        found = Verdict(errors=(*said, *shape.besides(found.errors, said)), warnings=found.warnings)
    return Judgement(
        object=document.label,
        operation=operation,
        status=found.status,
        errors=tuple(document.problem(error) for error in found.errors),
        warnings=tuple(document.problem(one) for one in (*document.warnings, *found.warnings)),
        admitted=admitted if found.valid else None,
    )


def _continued(raw: Json, old: Json | None) -> Json:
    """A manifest applied over what is stored: what only the system writes goes on."""
    if old is None:
        return raw
    meta = existing(raw, "metadata") or {}
    before: Json = old.get("metadata") or {}
    kept = {key: before[key] for key in ("uid", "ownerReferences") if key in before and key not in meta}
    status = {} if "status" in raw or "status" not in old else {"status": old["status"]}
    return {**raw, **status, "metadata": {**kept, **meta}}
