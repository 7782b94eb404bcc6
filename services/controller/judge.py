"""From the wish to what is in force: every object created, updated or deleted as an API server with our webhooks would do it.

Owns the order, and what becomes of a refused object: its last good version stays in force and the refusal is a problem. Must not
know files' bytes, the rules themselves or who holds which lease: it is told. Pure.

Order: what others refer to comes first, and what was refused is tried again as long as anything else came through, so that
no folder is refused for the order of its files (a pool may grow into what another gives up in the same pass).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import msgspec

from services.controller.merge import Wish, problem
from services.controller.objects import Objects, Stored, metadata, replaces
from shared.admission.verdict import Verdict
from shared.contracts.facts import Fact, SourceProblem
from shared.contracts.query import LeaseView
from shared.limits import OBJECT_MAX_BYTES, SUBJECT_MAX_BYTES
from shared.manifests import shape
from shared.manifests.document import Document, ObjectKey
from shared.manifests.meta import Json
from shared.manifests.problem import FieldError, invalid
from shared.subjects import facts as facts_subject

POOL = "SpiderIPPool"
SECRET = "Secret"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
WARNINGS_MAX = 200
"""What a person may still read, and far below what one answer of the bus can hold."""
_FIRST = (
    "ConfigMap",
    "Namespace",
    "Node",
    "SpiderSubnet",
    "SpiderReservedIP",
    POOL,
    "SpiderCoordinator",
    "SpiderMultusConfig",
)
_RANK = {kind: rank for rank, kind in enumerate(_FIRST)}

Held = Mapping[str, tuple[LeaseView, ...] | None]
"""The leases of each pool that was asked about; None where the allocator did not tell."""
WAITING = "the allocator does not tell which addresses are in use, so the change waits"


class Rules(Protocol):
    """Admission, over the objects in force, of which it is told by `put` and `remove`.

    `admit` has the leases of a pool whenever `asks_leases` said that it needs them."""

    def put(self, raw: Json) -> None: ...

    def remove(self, key: ObjectKey) -> None: ...

    def asks_leases(self, raw: Json, old: Json) -> bool: ...

    def remarks(self, raw: Json) -> Verdict:
        """What is wrong with an object in force although it does not keep it out, and what of it has no effect."""
        ...

    def admit(
        self, raw: Json, old: Json | None, leases: tuple[LeaseView, ...]
    ) -> Json | tuple[FieldError, ...]:
        """The object as it is stored, defaults filled in, or all that is wrong with it."""
        ...

    def deletion_asks_leases(self, old: Json) -> bool:
        """Whether `deny_deletion` of this object needs the leases."""
        ...

    def deny_deletion(self, old: Json, leases: tuple[LeaseView, ...]) -> tuple[FieldError, ...]: ...


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """`facts` in the order of publishing. `open` says that a later pass may decide otherwise although no file changes."""

    facts: tuple[Fact, ...]
    problems: tuple[SourceProblem, ...]
    warnings: tuple[SourceProblem, ...]
    open: bool


def leaving(stored: Stored | None, document: Document | None) -> bool:
    """Whether a pool is terminating because its manifest went: it then goes, whatever the file says meanwhile."""
    if stored is None or stored.key.kind != POOL or not stored.terminating:
        return False
    return document is None or not metadata(document.raw).get("deletionTimestamp")


def questions(
    objects: Objects, wish: Wish, admitted: Mapping[ObjectKey, Json], rules: Rules
) -> frozenset[str]:
    """The pools whose leases `judge` needs to know."""
    asked = {
        key.name
        for key, document in _changed(objects, wish, admitted)
        if key.kind == POOL
        and (old := objects.in_force.get(key))
        and rules.asks_leases(document.raw, old.raw)
    }
    return frozenset(
        asked
        | {
            key.name
            for key in _unwanted(objects, wish)
            if rules.deletion_asks_leases(objects.in_force[key].raw)
        }
    )


def judge(
    objects: Objects,
    wish: Wish,
    admitted: dict[ObjectKey, Json],
    noted: dict[ObjectKey, Verdict],
    rules: Rules,
    held: Held,
    now_s: float,
) -> Judgement:
    """Changes `objects`, `admitted` (the manifest from which each object in force was admitted) and `noted` (those of them
    about which there is something to say)."""
    turn = _Turn(objects, wish, admitted, noted, rules, held, now_s)
    while True:
        told = len(turn.facts)
        problems = turn.delete()
        refused = turn.bring_into_force()
        if len(turn.facts) == told:
            break  # what came or went may have opened the way for the rest
    for key, errors in refused.items():
        problems += [problem(wish.wanted[key], error) for error in errors]
    for key, document in wish.broken.items():
        # it cannot come into force, but whoever mends its form wants to know what else is wrong
        old = objects.in_force.get(key)
        outcome = rules.admit(document.raw, old.raw if old is not None else None, ())
        if isinstance(outcome, tuple):
            problems += [problem(document, error) for error in shape.besides(outcome, document.errors)]
    for key, document in wish.wanted.items():
        if leaving(objects.in_force.get(key), document):
            sentence = "it was deleted and has leases; when the last is released it is created anew"
            problems.append(problem(document, invalid("metadata.name", sentence, "Forbidden")))
    warnings = list(wish.warnings)
    for key in turn.remarked():
        document, found = wish.wanted[key], noted[key]
        problems += [problem(document, error) for error in found.errors]
        warnings += [problem(document, one) for one in found.warnings]
    return Judgement(
        facts=tuple(turn.facts),
        problems=tuple(problems),
        warnings=tuple(warnings[:WARNINGS_MAX]),
        open=bool(problems),
    )


class _Turn:
    """What one judgement works on; `facts` are those told so far."""

    def __init__(
        self,
        objects: Objects,
        wish: Wish,
        admitted: dict[ObjectKey, Json],
        noted: dict[ObjectKey, Verdict],
        rules: Rules,
        held: Held,
        now_s: float,
    ) -> None:
        self.objects = objects
        self.wish = wish
        self.admitted = admitted
        self.noted = noted
        self.rules = rules
        self.held = held
        self.now_s = now_s
        self.facts: list[Fact] = []

    def delete(self) -> list[SourceProblem]:
        """Removes what is in no file; what may not go is a problem each."""
        problems: list[SourceProblem] = []
        for key in _unwanted(self.objects, self.wish):
            denied = _deny_deletion(self.objects.in_force[key], self.rules, self.held)
            if denied is not None:
                problems.append(denied)
                continue
            self.admitted.pop(key, None)
            self.noted.pop(key, None)
            if key.kind == POOL:
                self.facts += self.objects.terminate(key, self.now_s)
                self.rules.put(self.objects.in_force[key].raw)
            else:
                self.facts += self.objects.remove(key)
                self.rules.remove(key)
        return problems

    def bring_into_force(self) -> dict[ObjectKey, tuple[FieldError, ...]]:
        """Admits what changed, over and over while anything comes through; what is refused at the end."""
        pending = _changed(self.objects, self.wish, self.admitted)
        refused: dict[ObjectKey, tuple[FieldError, ...]] = {}
        progress = True
        while pending and progress:
            again: list[tuple[ObjectKey, Document]] = []
            progress = False
            for key, document in pending:
                outcome = _admit(self.objects, key, document, self.rules, self.held)
                if isinstance(outcome, tuple):
                    refused[key] = outcome
                    again.append((key, document))
                    continue
                progress = True
                refused.pop(key, None)
                self.admitted[key] = document.raw
                self.rules.put(outcome)
                self._note(key)
                place = (document.file, document.line)
                self.facts += self.objects.put(key, document.api_version, outcome, place, self.now_s)
            pending = again
        return refused

    def remarked(self) -> list[ObjectKey]:
        """Looks again at what is noted, since other objects may have cured it: few, however many are in force."""
        for key in list(self.noted):
            if key in self.wish.wanted and key in self.objects.in_force:
                self._note(key)
            else:
                del self.noted[key]
        return list(self.noted)

    def _note(self, key: ObjectKey) -> None:
        found = self.rules.remarks(self.admitted[key])
        if found.errors or found.warnings:
            self.noted[key] = found
        else:
            self.noted.pop(key, None)


def _changed(
    objects: Objects, wish: Wish, admitted: Mapping[ObjectKey, Json]
) -> list[tuple[ObjectKey, Document]]:
    """Documents that are not what is in force, in the order in which they are tried."""
    out: list[tuple[ObjectKey, Document]] = []
    for key, document in wish.wanted.items():
        stored = objects.in_force.get(key)
        if leaving(stored, document) or (stored and key.kind == POOL and replaces(stored, document.raw)):
            continue
        if stored is not None and stored.file == document.file and admitted.get(key) == document.raw:
            continue
        out.append((key, document))
    out.sort(key=lambda one: (_RANK.get(one[0].kind, len(_RANK)), one[0]))
    return out


def _unwanted(objects: Objects, wish: Wish) -> list[ObjectKey]:
    """In force, and in no file any more; those that others refer to go last. A pool that another one is to replace must go first."""
    gone: list[ObjectKey] = []
    for key, stored in objects.in_force.items():
        document = wish.wanted.get(key)
        if document is None:
            unwanted = key not in wish.held
        else:
            unwanted = key.kind == POOL and replaces(stored, document.raw)
        if unwanted and not leaving(stored, document):
            gone.append(key)
    return sorted(gone, key=lambda key: (-_RANK.get(key.kind, len(_RANK)), key))


def _deny_deletion(stored: Stored, rules: Rules, held: Held) -> SourceProblem | None:
    leases = held.get(stored.key.name) if rules.deletion_asks_leases(stored.raw) else ()
    if leases is None:
        errors = (invalid("metadata", WAITING, "Forbidden"),)
    else:
        errors = rules.deny_deletion(stored.raw, leases)
    if not errors:
        return None
    message = f"its manifest is gone, but it stays in force: {'; '.join(error.message for error in errors)}"
    return SourceProblem(
        file=stored.file, line=0, object=str(stored.key), field=errors[0].field, message=message
    )


def _without_secrets(raw: Json) -> Json:
    """A Secret is known by name and type only. Nothing here needs what it says, and what is published is kept in a stream that
    every node's services may be allowed to read, is shown by `get`, and outlives the Secret."""
    meta = metadata(raw)
    notes: object = meta.get("annotations")
    if isinstance(notes, dict):
        # kubectl keeps the whole object here
        kept = {key: text for key, text in cast("Json", notes).items() if key != LAST_APPLIED}
        meta = {**meta, "annotations": kept}
    members = {key: raw[key] for key in ("apiVersion", "kind", "type") if key in raw}
    return {**members, "metadata": meta}


def _admit(
    objects: Objects, key: ObjectKey, document: Document, rules: Rules, held: Held
) -> Json | tuple[FieldError, ...]:
    old = objects.in_force.get(key)
    if old is not None and replaces(old, document.raw):
        old = None
    # a member that is null is absent, as the API server stores it; of a kind that we do not know we change nothing
    written = shape.without_nulls(document.raw) if document.kind is not None else document.raw
    if key.kind == SECRET:
        written = _without_secrets(written)
    raw = objects.candidate(key, written)
    if len(facts_subject(key.kind, key.namespace, key.name)) > SUBJECT_MAX_BYTES:
        return (invalid("metadata.name", "kind, namespace and name together are too long"),)
    asks = old is not None and key.kind == POOL and rules.asks_leases(raw, old.raw)
    leases = held.get(key.name) if asks else ()
    outcome = rules.admit(raw, old.raw if old is not None else None, leases or ())
    if isinstance(outcome, tuple):
        return outcome
    if leases is None:
        return (invalid("spec.ips", WAITING, "Forbidden"),)
    if (size := len(msgspec.json.encode(outcome))) > OBJECT_MAX_BYTES:
        return (invalid("", f"the object has {size} bytes as JSON, more than {OBJECT_MAX_BYTES}"),)
    return outcome
