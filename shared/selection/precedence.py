"""Of objects that exclude each other and are both there, which one counts.

Admission refuses the second of two such objects; where two came in at the same moment, or while nobody was asked, all who read them
must come to the same: the older counts, and of two of one second the one with the lower UID. Owns that order, and who excludes whom
among pools and among networks of one name. Must not know what follows from it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Generic, TypeVar

from shared.manifests.meta import ObjectMeta
from shared.net.network_index import NetworkIndex
from shared.net.ranges import Network
from shared.selection.cluster import PoolFact

Rank = tuple[str, str, str]
"""creationTimestamp (RFC 3339 in UTC, so texts sort as times do), UID, name: who is less goes before."""
T = TypeVar("T")


def rank_of(meta: ObjectMeta) -> Rank:
    return meta.creation_timestamp, meta.uid, meta.name


class _Spans:
    """The ranges of the pools of one subnet by their first address; `longest` bounds how far before an address one may begin that
    holds it. In pools that exclude nobody, ranges are disjoint, so that a look-up meets next to none."""

    __slots__ = ("longest", "sorted")

    def __init__(self) -> None:
        self.sorted: list[tuple[int, int, str]] = []
        self.longest = 0

    def copy(self) -> _Spans:
        out = _Spans()
        out.sorted, out.longest = list(self.sorted), self.longest
        return out

    def add(self, pool: PoolFact) -> None:
        for first, last in pool.total:
            insort(self.sorted, (first, last, pool.name))
            self.longest = max(self.longest, last - first)

    def discard(self, pool: PoolFact) -> None:
        for first, last in pool.total:
            i = bisect_left(self.sorted, (first, last, pool.name))
            if i < len(self.sorted) and self.sorted[i] == (first, last, pool.name):
                del self.sorted[i]

    def sharing(self, pool: PoolFact) -> set[str]:
        """Names of the pools that have an address of this one."""
        found: set[str] = set()
        for first, last in pool.total:
            begin = bisect_left(self.sorted, (first - self.longest, 0, ""))
            end = bisect_right(self.sorted, last, key=lambda span: span[0])
            found.update(name for _, other_last, name in self.sorted[begin:end] if other_last >= first)
        return found


class PoolRivals:
    """Pools exclude each other that have an address in common, or subnets that overlap and are not the same."""

    def __init__(self) -> None:
        self._pools: dict[str, PoolFact] = {}
        self._subnets = NetworkIndex()
        self._of_subnet: dict[Network, dict[str, None]] = {}
        self._spans: dict[Network, _Spans] = {}
        self._rivals: dict[str, set[str]] = {}
        self._before: dict[str, str] = {}
        """What `before` answered; each candidate of each attach is asked about."""

    def put(self, pool: PoolFact) -> set[str]:
        """Names of the pools that it excludes, or did until now."""
        touched = self.drop(pool.name)
        spans = self._spans.setdefault(pool.subnet, _Spans())
        found = spans.sharing(pool)
        for one in self._subnets.overlapping(pool.subnet):
            other = self._pools[one].subnet
            if other != pool.subnet:
                found.update(self._of_subnet[other])
        self._pools[pool.name] = pool
        if pool.subnet not in self._of_subnet:
            # one name for each subnet is enough to find the subnet by
            self._subnets.add(pool.name, pool.subnet)
        self._of_subnet.setdefault(pool.subnet, {})[pool.name] = None
        spans.add(pool)
        for name in found:
            self._rivals.setdefault(name, set()).add(pool.name)
            self._pass_by(name, pool)
        if found:
            self._rivals[pool.name] = found
        return touched | found

    def drop(self, name: str) -> set[str]:
        """Names of the pools that it excluded."""
        pool = self._pools.pop(name, None)
        if pool is None:
            return set()
        self._spans[pool.subnet].discard(pool)
        members = self._of_subnet[pool.subnet]
        if next(iter(members)) == name:
            self._subnets.discard(name, pool.subnet)
            del members[name]
            if members:
                self._subnets.add(next(iter(members)), pool.subnet)
            else:
                del self._of_subnet[pool.subnet], self._spans[pool.subnet]
        else:
            del members[name]
        rivals = self._rivals.pop(name, set[str]())
        self._before.pop(name, None)
        for other in rivals:
            if self._before.get(other) == name:
                del self._before[other]
            self._rivals[other].discard(name)
            if not self._rivals[other]:
                del self._rivals[other]
        return rivals

    def copy(self) -> PoolRivals:
        out = PoolRivals()
        out._pools = dict(self._pools)
        out._subnets = self._subnets.copy()
        out._of_subnet = {subnet: dict(names) for subnet, names in self._of_subnet.items()}
        out._spans = {subnet: spans.copy() for subnet, spans in self._spans.items()}
        out._rivals = {name: set(rivals) for name, rivals in self._rivals.items()}
        out._before = dict(self._before)
        return out

    def of(self, name: str) -> frozenset[str]:
        """The pools that this one excludes, and that exclude it."""
        return frozenset(self._rivals.get(name, ()))

    def pool(self, name: str) -> PoolFact | None:
        return self._pools.get(name)

    def before(self, name: str) -> str:
        """The pool for which this one stands back; empty if it counts. One that is being deleted stands in nobody's way: what it still
        holds is given to nobody, whichever pool has it."""
        rivals = self._rivals.get(name)
        if not rivals:
            return ""
        if (known := self._before.get(name)) is not None:
            return known
        self._before[name] = found = self._look(name, rivals)
        return found

    def _pass_by(self, name: str, pool: PoolFact) -> None:
        """A rival of `name` came: what is known of who goes before is kept true."""
        known = self._before.get(name)
        if known is None or pool.terminating:
            return
        first = self._pools[known or name]
        if _pool_rank(pool) < _pool_rank(first):
            self._before[name] = pool.name

    def _look(self, name: str, rivals: set[str]) -> str:
        mine = _pool_rank(self._pools[name])
        ahead = [
            rank
            for other in rivals
            if not (pool := self._pools[other]).terminating and (rank := _pool_rank(pool)) < mine
        ]
        return min(ahead)[2] if ahead else ""


def _pool_rank(pool: PoolFact) -> Rank:
    return pool.created, pool.uid, pool.name


class Claims(Generic[T]):
    """Who claims a name, and `chosen`: of each name the value of the claimant that goes before all others."""

    def __init__(self) -> None:
        self.chosen: dict[str, T] = {}
        self._claims: dict[str, dict[str, tuple[Rank, T]]] = {}
        self._name_of: dict[str, str] = {}

    def put(self, claimant: str, name: str, rank: Rank, value: T) -> None:
        """`claimant` claims `name`, and no other any more."""
        self.drop(claimant)
        self._name_of[claimant] = name
        self._claims.setdefault(name, {})[claimant] = (rank, value)
        self._choose(name)

    def drop(self, claimant: str) -> None:
        name = self._name_of.pop(claimant, None)
        if name is not None:
            del self._claims[name][claimant]
            self._choose(name)

    def claimants(self, name: str) -> list[str]:
        """Who claims the name, who goes before first."""
        claims = self._claims.get(name, {})
        return sorted(claims, key=lambda claimant: (claims[claimant][0], claimant))

    def copy(self) -> Claims[T]:
        out = Claims[T]()
        out.chosen = dict(self.chosen)
        out._claims = {name: dict(of) for name, of in self._claims.items()}
        out._name_of = dict(self._name_of)
        return out

    def _choose(self, name: str) -> None:
        claims = self._claims[name]
        if claims:
            self.chosen[name] = min(claims.items(), key=lambda claim: (claim[1][0], claim[0]))[1][1]
        else:
            del self._claims[name], self.chosen[name]
