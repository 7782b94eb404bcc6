"""Free addresses of one pool: which is the lowest, take it, give it back.

Owns the set of free intervals between what a pool may give and what is taken from it; it is derived, never stored.
Must not know leases, pods or time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from shared.net.ranges import IntervalSet


class Occupancy:
    """Free intervals of one pool, mutable. Taking the lowest or any address is O(log n) plus a memmove of the
    fragments behind it; the number of addresses does not matter."""

    __slots__ = ("_firsts", "_lasts", "allowed", "free_count")

    def __init__(self, allowed: IntervalSet, taken: Iterable[int] = ()) -> None:
        self.allowed = allowed
        free = allowed.subtract(IntervalSet((address, address) for address in taken))
        self._firsts = list(free.firsts)
        self._lasts = list(free.lasts)
        self.free_count = free.size()

    def __contains__(self, address: int) -> bool:
        i = bisect_right(self._firsts, address) - 1
        return i >= 0 and address <= self._lasts[i]

    def lowest(self) -> int | None:
        """The lowest free address, or None when all are taken."""
        return self._firsts[0] if self._firsts else None

    def ascending(self) -> Iterator[int]:
        """Free addresses from the lowest up. The occupancy must not change meanwhile."""
        for first, last in zip(self._firsts, self._lasts, strict=True):
            yield from range(first, last + 1)

    def take(self, address: int) -> bool:
        """Removes one free address; False if it was not free."""
        i = bisect_right(self._firsts, address) - 1
        if i < 0 or address > self._lasts[i]:
            return False
        first, last = self._firsts[i], self._lasts[i]
        if first == last:
            del self._firsts[i], self._lasts[i]
        elif address == first:
            self._firsts[i] = address + 1
        elif address == last:
            self._lasts[i] = address - 1
        else:
            self._lasts[i] = address - 1
            self._firsts.insert(i + 1, address + 1)
            self._lasts.insert(i + 1, last)
        self.free_count -= 1
        return True

    def give_back(self, address: int) -> bool:
        """Makes one address free again; False if it is not the pool's to give, or was free."""
        if address not in self.allowed or address in self:
            return False
        i = bisect_right(self._firsts, address)
        joins_left = i > 0 and self._lasts[i - 1] == address - 1
        joins_right = i < len(self._firsts) and self._firsts[i] == address + 1
        if joins_left and joins_right:
            self._lasts[i - 1] = self._lasts[i]
            del self._firsts[i], self._lasts[i]
        elif joins_left:
            self._lasts[i - 1] = address
        elif joins_right:
            self._firsts[i] = address
        else:
            self._firsts.insert(i, address)
            self._lasts.insert(i, address)
        self.free_count += 1
        return True
