"""The webhook's memory of the other objects, fed from the stream of facts.

Owns which fact counts, that only what admission reads is kept (a cluster's pods never are), and what was let in and is no fact yet: the next
review must see it. Must not know the bus.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from shared.admission.view import READ_KINDS, Objects, key_of
from shared.contracts.facts import Fact, FactsSynced, ObjectFact, ObjectGone
from shared.manifests.document import ObjectKey
from shared.manifests.meta import Json
from shared.manifests.settings import CONFIG_MAP

EXPECTED_S = 5.0
"""How long what was let in counts without a fact of it: something else may have refused it after us."""
_EXPECTED_KINDS = ("SpiderIPPool", "SpiderSubnet", "SpiderMultusConfig")
"""Kinds of which two objects can exclude each other."""


class FactMemory:
    """`objects` is the view that admission reads; `synced` says that a full list was seen."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.synced = False
        self.sequence = 0
        self._versions: dict[ObjectKey, int] = {}
        self._expected: dict[ObjectKey, tuple[float, Json | None]] = {}

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
        self._expected.pop(key, None)
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

    def expect(self, raw: Json, now_s: float) -> None:
        """An object was let in: it counts from now on, for a while, as if its fact had come."""
        if raw.get("kind") not in _EXPECTED_KINDS:
            return
        key = key_of(raw)
        before = self._expected[key][1] if key in self._expected else self.objects.get(key)
        self._expected[key] = (now_s + EXPECTED_S, before)
        self.objects.put(raw)

    def forget_expected(self, raw: Json | None, now_s: float) -> None:
        """Before a review of `raw`: what was only expected under its own name is no reason to refuse it, nor is what did not come."""
        if not self._expected:
            return
        own = key_of(raw) if raw is not None else None
        for key, (until_s, before) in list(self._expected.items()):
            if key == own or now_s >= until_s:
                del self._expected[key]
                self.objects.remove(key)
                if before is not None:
                    self.objects.put(before)
