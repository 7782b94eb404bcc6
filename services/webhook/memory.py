"""The webhook's memory of the other objects, fed from the stream of facts.

Owns which fact counts, and that only what admission reads is kept: a cluster's pods never are. Must not know the bus.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from shared.admission.view import READ_KINDS, Objects
from shared.contracts.facts import Fact, FactsSynced, ObjectFact, ObjectGone
from shared.manifests.document import ObjectKey
from shared.manifests.meta import Json
from shared.manifests.settings import CONFIG_MAP


class FactMemory:
    """`objects` is the view that admission reads; `synced` says that a full list was seen."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.synced = False
        self.sequence = 0
        self._versions: dict[ObjectKey, int] = {}

    def apply(self, fact: Fact, sequence: int) -> None:
        """Takes one fact in. Idempotent; one that is older than what is known of its object changes nothing.

        Raises ValueError for a fact whose object is not JSON.
        """
        self.sequence = max(self.sequence, sequence)
        if isinstance(fact, FactsSynced):
            self.synced = True
            return
        if fact.kind not in READ_KINDS or (fact.kind == "ConfigMap" and fact.name != CONFIG_MAP):
            return
        key = ObjectKey(fact.kind, fact.namespace, fact.name)
        if fact.version < self._versions.get(key, 0):
            return
        match fact:
            case ObjectFact():
                raw: Any = msgspec.json.decode(fact.object)
                if isinstance(raw, dict):
                    self._versions[key] = fact.version
                    self.objects.put(cast("Json", raw))
            case ObjectGone():
                # The stream is in order: nothing older can follow, so the name need not be remembered.
                self._versions.pop(key, None)
                self.objects.remove(key)
