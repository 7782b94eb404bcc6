"""What each pool has free, found by pool or by address.

Owns the derived free space of all pools. Must not know leases' owners, facts' texts or time. A pool that holds an
address lies in a subnet that holds it, so that looking under each prefix length in use finds all of them, even if
an unadmitted pool overlaps another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from shared.net.occupancy import Occupancy
from shared.net.ranges import WIDTH_BITS, IntervalSet, Network


class PoolSpace(msgspec.Struct, frozen=True):
    """What of a pool may be given at all: its addresses without exclusions, reservations, gateway, network and broadcast."""

    subnet: Network
    allowed: IntervalSet


class PoolIndex:
    def __init__(self) -> None:
        self._occupancy: dict[str, Occupancy] = {}
        self._space: dict[str, PoolSpace] = {}
        self._by_network: dict[tuple[int, int], dict[int, list[str]]] = {}

    def __contains__(self, pool: str) -> bool:
        return pool in self._occupancy

    def __iter__(self) -> Iterator[str]:
        return iter(self._occupancy)

    def occupancy(self, pool: str) -> Occupancy | None:
        return self._occupancy.get(pool)

    def space(self, pool: str) -> PoolSpace | None:
        return self._space.get(pool)

    def put(self, pool: str, space: PoolSpace, busy: Iterable[int]) -> None:
        """Sets what a pool may give; `busy` are the addresses of its family that are held or resting."""
        self.drop(pool)
        allowed = space.allowed
        self._occupancy[pool] = Occupancy(allowed, [address for address in busy if address in allowed])
        self._space[pool] = space
        key = (space.subnet.family, space.subnet.prefix_len)
        self._by_network.setdefault(key, {}).setdefault(space.subnet.first, []).append(pool)

    def drop(self, pool: str) -> None:
        space = self._space.pop(pool, None)
        if space is None:
            return
        del self._occupancy[pool]
        key = (space.subnet.family, space.subnet.prefix_len)
        names = self._by_network[key][space.subnet.first]
        names.remove(pool)
        if not names:
            del self._by_network[key][space.subnet.first]
            if not self._by_network[key]:
                del self._by_network[key]

    def covering(self, family: int, address: int) -> list[str]:
        """The pools whose subnet holds the address."""
        found: list[str] = []
        for (subnet_family, prefix_len), networks in self._by_network.items():
            if subnet_family == family:
                host_bits = WIDTH_BITS[family] - prefix_len
                found += networks.get(address >> host_bits << host_bits, ())
        return found

    def take(self, family: int, address: int) -> None:
        for pool in self.covering(family, address):
            self._occupancy[pool].take(address)

    def give_back(self, family: int, address: int) -> None:
        for pool in self.covering(family, address):
            self._occupancy[pool].give_back(address)
