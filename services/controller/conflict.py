"""Objects that exclude each other and are both there, as Events of both: which of them counts, and when it is over.

Admission refuses the second of two; they come in at the same moment, or while nobody was asked. Owns which pairs were told, and the
words. Must not know how an Event is written, nor decide who counts (shared.selection.precedence). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from services.controller.event import About, Notable
from services.controller.nad import definition_name
from services.controller.typed import NETWORK, POOL, SUBNET, Typed
from shared.manifests.kinds import API_VERSION
from shared.net.ranges import Network, parse_cidr
from shared.selection.precedence import rank_of
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

    def look(self, kind: str, namespace: str, name: str) -> None:
        """An object came, changed or went: notes what it now excludes, and what it excludes no more."""
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
            self._tell(before, ENDED, *(f"{before.kind} {{}} and it exclude each other no more",) * 2)
        if now is not None:
            self._tell(now, REASON, now.sentence, f"{now.kind} {{}} {now.sentence}")

    def _tell(self, pair: Pair, reason: str, of_younger: str, of_older: str) -> None:
        sides = (
            (pair.younger, pair.younger_uid, of_younger.format(pair.older)),
            (pair.older, pair.older_uid, of_older.format(pair.younger)),
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
                return self._overlapping(name)

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
        first = self._typed.namesakes(namespace, target)[0]
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

    def _overlapping(self, name: str) -> list[str]:
        """The subnets that are there and overlap with this one, those that count before it first."""
        try:
            mine = self._typed.subnet(name)
            network = parse_cidr(mine[0].spec.subnet) if mine is not None else None
        except ValueError:
            network = None
        if network is None:
            return []
        found = [
            one
            for one in self._typed.subnets()
            if one.metadata.name != name
            and not one.metadata.terminating
            and _overlaps(one.spec.subnet, network)
        ]
        return [one.metadata.name for one in sorted(found, key=lambda one: rank_of(one.metadata))]

    def _subnets(self, name: str) -> Pair | None:
        mine = self._typed.subnet(name)
        first = next(iter(self._overlapping(name)), "")
        older = self._typed.subnet(first) if first else None
        if mine is None or older is None or mine[0].metadata.terminating:
            return None
        if rank_of(mine[0].metadata) < rank_of(older[0].metadata):
            return None
        sentence = (
            f"overlaps with the older SpiderSubnet {first}, subnet {older[0].spec.subnet}: which of them a pool belongs to is "
            "the older's to say, until one of the two is deleted"
        )
        return Pair(
            kind=SUBNET,
            namespace="",
            older=first,
            older_uid=older[0].metadata.uid,
            younger=name,
            younger_uid=mine[0].metadata.uid,
            sentence=sentence,
        )


def _overlaps(cidr: str, network: Network) -> bool:
    try:
        return parse_cidr(cidr).overlaps(network)
    except ValueError:
        return False
