"""Objects that exclude each other and are both there, as Events of both: which of them counts, and when it is over.

Admission refuses the second of two; they come in at the same moment, or while nobody was asked. Owns which pairs were told, and the
words. Must not know how an Event is written, nor decide who counts (shared.selection.precedence). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from services.controller.event import About, Notable
from services.controller.nad import definition_name
from services.controller.typed import NETWORK, POOL, SUBNET, SubnetClaim, Typed
from shared.manifests.kinds import API_VERSION
from shared.selection.cluster import PoolFact
from shared.selection.rule import stands_back

REASON, ENDED = "Conflict", "ConflictEnded"


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """`younger` stands back; `sentence` says it of itself, and of what it gives up."""

    kind: str
    namespace: str
    older: str
    older_uid: str
    younger: str
    younger_uid: str
    sentence: str


class Conflicts:
    def __init__(self, typed: Typed, note: Callable[[Notable], None]) -> None:
        self._typed = typed
        self._note = note
        self._told: dict[tuple[str, str, str], Pair] = {}
        """By the one that stands back: it does so for one other."""
        self._seen: dict[str, PoolFact] = {}

    def look(self, kind: str, namespace: str, name: str) -> None:
        """An object came, changed or went: notes what it now excludes, and what it excludes no more."""
        if kind == POOL:
            pool = self._typed.rivals.pool(name)
            if self._seen.get(name) is pool:
                return  # only its status changed
            if pool is None:
                del self._seen[name]
            else:
                self._seen[name] = pool
        with_it = {
            pair.younger
            for key, pair in self._told.items()
            if key[:2] == (kind, namespace) and name in (pair.older, pair.younger)
        }
        for one in sorted({name, *with_it, *self._rivals(kind, namespace, name)}):
            self._compare((kind, namespace, one), self._pair(kind, namespace, one))

    def _compare(self, key: tuple[str, str, str], now: Pair | None) -> None:
        before = self._told.pop(key, None)
        if now is not None:
            self._told[key] = now
        if now == before:
            return
        if before is not None and (now is None or now.older != before.older):
            self._tell(
                before,
                ENDED,
                f"{before.kind} {before.older} and it exclude each other no more",
                f"{before.kind} {before.younger} and it exclude each other no more",
            )
        if now is not None:
            self._tell_of(now)

    def tell_again(self) -> None:
        """Events are kept for an hour, and what excludes each other stays until somebody reads of it."""
        for pair in self._told.values():
            self._tell_of(pair)

    def _tell_of(self, pair: Pair) -> None:
        self._tell(pair, REASON, pair.sentence, f"{pair.kind} {pair.younger} {pair.sentence}")

    def _tell(self, pair: Pair, reason: str, of_younger: str, of_older: str) -> None:
        sides = (
            (pair.younger, pair.younger_uid, of_younger),
            (pair.older, pair.older_uid, of_older),
        )
        for name, uid, message in sides:
            about = About(
                api_version=API_VERSION, kind=pair.kind, namespace=pair.namespace, name=name, uid=uid
            )
            self._note(Notable(about=about, reason=reason, message=message, warning=reason == REASON))

    def _rivals(self, kind: str, namespace: str, name: str) -> Iterable[str]:
        match kind:
            case "SpiderIPPool":
                return self._typed.rivals.of(name)
            case "SpiderMultusConfig":
                config = self._typed.network(namespace, name)
                return self._typed.namesakes(namespace, definition_name(config)) if config is not None else ()
            case _:
                return [one.name for one in self._overlapping(name)]

    def _pair(self, kind: str, namespace: str, name: str) -> Pair | None:
        match kind:
            case "SpiderIPPool":
                return self._pools(name)
            case "SpiderMultusConfig":
                return self._networks(namespace, name)
            case _:
                return self._subnets(name)

    def _pools(self, name: str) -> Pair | None:
        rivals = self._typed.rivals
        pool, before = rivals.pool(name), rivals.pool(rivals.before(name))
        if pool is None or before is None or pool.terminating:
            return None
        return Pair(
            kind=POOL,
            namespace="",
            older=before.name,
            older_uid=before.uid,
            younger=name,
            younger_uid=pool.uid,
            sentence=stands_back(pool, before),
        )

    def _networks(self, namespace: str, name: str) -> Pair | None:
        config = self._typed.network(namespace, name)
        if config is None or config.metadata.terminating:
            return None
        target = definition_name(config)
        first = self._typed.first_namesake(namespace, target)
        older = self._typed.network(namespace, first)
        if first == name or older is None:
            return None
        sentence = (
            f"has no effect: the net-attach-def {namespace}/{target} is rendered from the older SpiderMultusConfig "
            f"{namespace}/{first}, until one of the two is deleted"
        )
        return Pair(
            kind=NETWORK,
            namespace=namespace,
            older=first,
            older_uid=older.metadata.uid,
            younger=name,
            younger_uid=config.metadata.uid,
            sentence=sentence,
        )

    def _overlapping(self, name: str) -> list[SubnetClaim]:
        """The subnets that are there and overlap with this one, those that count before others first."""
        mine = self._typed.subnet_claim(name)
        found = self._typed.overlapping_subnets(mine.network) if mine is not None else []
        return [one for one in found if one.name != name and not one.terminating]

    def _subnets(self, name: str) -> Pair | None:
        mine, first = self._typed.subnet_claim(name), next(iter(self._overlapping(name)), None)
        if mine is None or first is None or mine.terminating or mine.rank < first.rank:
            return None
        sentence = (
            f"overlaps with the older SpiderSubnet {first.name}, subnet {first.network}: which of them a pool belongs to is "
            "the older's to say, until one of the two is deleted"
        )
        return Pair(
            kind=SUBNET,
            namespace="",
            older=first.name,
            older_uid=first.uid,
            younger=name,
            younger_uid=mine.uid,
            sentence=sentence,
        )
