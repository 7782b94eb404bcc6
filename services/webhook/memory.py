"""The webhook's memory of the other objects, fed from the stream of facts.

Owns which fact counts: a newer version of an object, and a tombstone of the object that it names. Must not know the bus.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.admission.view import Objects
from shared.contracts.facts import Fact, FactsSynced, ObjectFact, ObjectGone
from shared.manifests.document import ObjectKey


class FactMemory:
    """`objects` is the view that admission reads; `synced` says that a full list was seen."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.synced = False
        self.sequence = 0
        self._versions: dict[ObjectKey, tuple[str, int]] = {}

    def apply(self, fact: Fact, sequence: int) -> None:
        """Takes one fact in. Idempotent; an older fact of the same object changes nothing."""
        self.sequence = max(self.sequence, sequence)
        match fact:
            case FactsSynced():
                self.synced = True
            case ObjectFact():
                self._put(fact)
            case ObjectGone():
                self._remove(fact)

    def _put(self, fact: ObjectFact) -> None:
        key = ObjectKey(fact.kind, fact.namespace, fact.name)
        if self._is_old(key, fact.uid, fact.version):
            return
        raw: Any = msgspec.json.decode(fact.object)
        if isinstance(raw, dict):
            self._versions[key] = (fact.uid, fact.version)
            self.objects.put(raw)  # pyright: ignore[reportUnknownArgumentType]

    def _remove(self, fact: ObjectGone) -> None:
        key = ObjectKey(fact.kind, fact.namespace, fact.name)
        if self._is_old(key, fact.uid, fact.version):
            return
        self._versions[key] = (fact.uid, fact.version)
        self.objects.remove(key)

    def _is_old(self, key: ObjectKey, uid: str, version: int) -> bool:
        known_uid, known_version = self._versions.get(key, ("", 0))
        return uid == known_uid and version < known_version
