"""The leases that ended last: what the log knew of an address before it was free.

Owns how many are remembered and in which order they are forgotten. Must not know why a lease ends, nor the bus or time. A claim of
a node that fits is no claim out of nowhere: its lease was given once, and nobody was given the address since.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

KEPT_MAX = 16_384
"""Leases remembered after their end, of all nodes together; the oldest go first."""


class Former(msgspec.Struct, frozen=True, gc=False):
    """A lease that ended. The address is in halves, as in every snapshot."""

    family: int
    high: int
    low: int
    owner: str
    ifname: str
    node: str
    container_id: str
    generation: int


class Past:
    """Address → the lease that ended last, as long as nobody was given the address again."""

    def __init__(self, kept: Iterable[Former] = ()) -> None:
        self._kept: dict[tuple[int, int], Former] = {}
        for one in kept:
            self.remember(one)

    def remember(self, former: Former) -> None:
        key = (former.family, former.high << 64 | former.low)
        self._kept.pop(key, None)
        self._kept[key] = former
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]

    def forget(self, family: int, address: int) -> None:
        """Somebody has the address now."""
        self._kept.pop((family, address), None)

    def of(self, family: int, address: int) -> Former | None:
        return self._kept.get((family, address))

    def all(self) -> list[Former]:
        """In the order in which they ended."""
        return list(self._kept.values())
