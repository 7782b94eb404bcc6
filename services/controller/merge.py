"""All files of the folder as one wish: which object is to be in force from which place, and what stays for want of knowledge.

Owns the rules about files: the first file by path wins an object, a bad file keeps what it gave, an unreadable folder takes
nothing away. Must not know versions, admission or how a file is read. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.controller.objects import Stored
from shared.contracts.facts import SourceProblem
from shared.manifests.document import Document, ManifestFile, ObjectKey
from shared.manifests.problem import FieldError


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """`wanted` may come into force as it is written; `held` are objects whose text is wrong (`broken`) or out of sight: what is in
    force of them stays. An object in force that is in neither is to be deleted."""

    wanted: dict[ObjectKey, Document]
    held: frozenset[ObjectKey]
    broken: dict[ObjectKey, Document]
    problems: tuple[SourceProblem, ...]
    warnings: tuple[SourceProblem, ...]


def merge(
    files: Mapping[str, ManifestFile], unreadable: Mapping[str, str], in_force: Mapping[ObjectKey, Stored]
) -> Wish:
    """`files` are the last parse of each file; `unreadable` maps files, and directories with their `/` (the folder itself is ""),
    to the reason why their present text is not known."""
    wanted: dict[ObjectKey, Document] = {}
    owners: dict[ObjectKey, Document] = {}
    broken: dict[ObjectKey, Document] = {}
    blind: set[str] = set()
    problems = [
        SourceProblem(file=path or ".", line=0, object="", field="", message=f"cannot be read: {reason}")
        for path, reason in sorted(unreadable.items())
    ]
    for path in sorted(files):
        file = files[path]
        problems += [
            SourceProblem(file=path, line=one.line, object=one.object, field=one.field, message=one.message)
            for one in file.problems
        ]
        if any(not one.object for one in file.problems):
            blind.add(path)
        for document in file.documents:
            if not document.key.name or not document.key.kind:
                blind.add(path)
                continue
            owner = owners.setdefault(document.key, document)
            if owner is not document:
                if owner.file != document.file:
                    problems.append(_twice(document, owner))
                continue
            if document.errors or document.tree.errors:
                broken[document.key] = document
            else:
                wanted[document.key] = document
    held = broken.keys() | {
        key
        for key, stored in in_force.items()
        if key not in owners and (stored.file in blind or is_below(stored.file, unreadable))
    }
    warnings = [problem(document, one) for document in wanted.values() for one in document.warnings]
    return Wish(
        wanted=wanted, held=frozenset(held), broken=broken, problems=tuple(problems), warnings=tuple(warnings)
    )


def is_below(path: str, places: Mapping[str, str]) -> bool:
    """Whether `path`, or a directory above it, is among `places`."""
    if not places:
        return False
    return any(
        path == place or ((not place or place.endswith("/")) and path.startswith(place)) for place in places
    )


def problem(document: Document, error: FieldError) -> SourceProblem:
    """A mistake at its place in the file."""
    return SourceProblem(
        file=document.file,
        line=document.line_of(error.field),
        object=document.label,
        field=error.field,
        message=error.message,
    )


def _twice(document: Document, owner: Document) -> SourceProblem:
    return SourceProblem(
        file=document.file,
        line=document.line,
        object=document.label,
        field="metadata.name",
        message=f"the same object stands in {owner.file}:{owner.line}, which is in force",
    )
