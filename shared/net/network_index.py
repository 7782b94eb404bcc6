"""Names by network: which share an address with this one?

Owns the look-up, so that a new object is compared with few others. Must not know what is named.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from shared.net.ranges import WIDTH_BITS, Network


class NetworkIndex:
    """Names by network. A look-up costs one step a prefix length above, and one a network below."""

    __slots__ = ("_members", "_sorted")

    def __init__(self) -> None:
        self._members: dict[tuple[int, int, int], dict[str, None]] = {}
        self._sorted: list[tuple[int, int, int]] = []

    def copy(self) -> NetworkIndex:
        out = NetworkIndex()
        out._members = {key: dict(names) for key, names in self._members.items()}
        out._sorted = list(self._sorted)
        return out

    def add(self, name: str, network: Network) -> None:
        key = (network.family, network.first, network.prefix_len)
        if key not in self._members:
            insort(self._sorted, key)
        self._members.setdefault(key, {})[name] = None

    def discard(self, name: str, network: Network) -> None:
        key = (network.family, network.first, network.prefix_len)
        names = self._members.get(key)
        if names is not None:
            names.pop(name, None)
            if not names:
                del self._members[key]
                del self._sorted[bisect_left(self._sorted, key)]

    def overlapping(self, network: Network) -> list[str]:
        """Networks overlap only where one contains the other: those around it, itself, those inside it."""
        out: list[str] = []
        width = WIDTH_BITS[network.family]
        for prefix_len in range(network.prefix_len):
            host_bits = width - prefix_len
            out += self._members.get(
                (network.family, network.first >> host_bits << host_bits, prefix_len), ()
            )
        i = bisect_left(self._sorted, (network.family, network.first, network.prefix_len))
        while (
            i < len(self._sorted)
            and self._sorted[i][0] == network.family
            and self._sorted[i][1] <= network.last
        ):
            out += self._members[self._sorted[i]]
            i += 1
        return out
