"""Addresses, networks and sets of addresses as intervals of integers.

Owns parsing, canonical text and set arithmetic; a /8 or an IPv6 /48 costs as much as one address.
Must not know pools, leases or where a text came from. An address is an `int` beside its `family` (4 or 6).
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal

import msgspec

Family = Literal[4, 6]
WIDTH_BITS: dict[int, int] = {4: 32, 6: 128}
INT64_MAX = (1 << 63) - 1
_REMEMBERED = 8192
"""The same few addresses are read and written again and again, and ipaddress takes 2 to 6 µs for each. What is no address is not
remembered."""


class Network(msgspec.Struct, frozen=True):
    """A CIDR: `first` is the network address, host bits are zero."""

    family: Family
    first: int
    prefix_len: int

    @property
    def last(self) -> int:
        return self.first | ((1 << (WIDTH_BITS[self.family] - self.prefix_len)) - 1)

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last

    def overlaps(self, other: Network) -> bool:
        return self.family == other.family and self.first <= other.last and other.first <= self.last

    def __str__(self) -> str:
        return f"{format_address(self.first, self.family)}/{self.prefix_len}"


def _shown(text: str) -> str:
    """Enough of what was written to know it again: it goes into every sentence about it."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def parse_address(text: str) -> tuple[Family, int]:
    """The family and value of one address without prefix. Raises ValueError with a sentence."""
    if "%" in text:
        raise ValueError(f"invalid IP address: {_shown(text)} has a zone")
    try:
        return _value(text)
    except ValueError:
        raise ValueError(f"invalid IP address: {_shown(text)}") from None


@lru_cache(_REMEMBERED)
def _value(text: str) -> tuple[Family, int]:
    # told apart by the colon: trying IPv4 first costs an exception for each IPv6 address
    if ":" in text:
        return 6, int(ipaddress.IPv6Address(text))
    return 4, int(ipaddress.IPv4Address(text))


def format_address(value: int, family: int) -> str:
    """Canonical text (RFC 5952 for IPv6)."""
    if family == 4:
        return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
    return _text_of_6(value)


@lru_cache(_REMEMBERED)
def _text_of_6(value: int) -> str:
    return str(ipaddress.IPv6Address(value))


def parse_cidr(text: str) -> Network:
    """A CIDR whose host bits may be set (they are cleared). Raises ValueError with a sentence."""
    address_text, slash, length_text = text.partition("/")
    if not slash or not length_text.isascii() or not length_text.isdigit():
        raise ValueError(f"invalid CIDR: {_shown(text)} is not ADDRESS/PREFIX")
    try:
        family, value = parse_address(address_text)
    except ValueError:
        raise ValueError(f"invalid CIDR: {_shown(text)} has no valid address") from None
    prefix_len = int(length_text)
    width = WIDTH_BITS[family]
    if prefix_len > width:
        raise ValueError(f"invalid CIDR: the prefix of {_shown(text)} is longer than {width}")
    host_bits = width - prefix_len
    return Network(family, value >> host_bits << host_bits, prefix_len)


def parse_range(text: str, family: int) -> tuple[int, int]:
    """`first-last` or one address, both ends of `family`, first ≤ last. Raises ValueError with a sentence."""
    first_text, dash, last_text = text.partition("-")
    if text != text.strip() or " " in text or "-" in last_text:
        raise ValueError(f"invalid IP range format in IPv{family} {_shown(text)}")
    try:
        first_family, first = parse_address(first_text)
        last_family, last = parse_address(last_text) if dash else (first_family, first)
    except ValueError as error:
        raise ValueError(f"invalid IP range format in IPv{family} {_shown(text)}: {error}") from None
    if first_family != family or last_family != family:
        raise ValueError(f"invalid IP range format in IPv{family} {_shown(text)}: an end is not IPv{family}")
    if first > last:
        raise ValueError(f"invalid IP range format in IPv{family} {_shown(text)}: its ends are reversed")
    return first, last


class IntervalSet:
    """An immutable set of addresses of one family: sorted, disjoint, not adjacent, inclusive intervals."""

    __slots__ = ("firsts", "lasts")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        """Merges any intervals; each must have first ≤ last."""
        self.firsts: list[int] = []
        self.lasts: list[int] = []
        for first, last in sorted(intervals):
            if self.lasts and first <= self.lasts[-1] + 1:
                self.lasts[-1] = max(self.lasts[-1], last)
            else:
                self.firsts.append(first)
                self.lasts.append(last)

    @classmethod
    def parse(cls, texts: Iterable[str], family: int) -> IntervalSet:
        """The union of range texts. Raises ValueError on the first that is not a range."""
        return cls(parse_range(text, family) for text in texts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.firsts, self.lasts, strict=True)

    def __bool__(self) -> bool:
        return bool(self.firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IntervalSet) and self.firsts == other.firsts and self.lasts == other.lasts

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"IntervalSet({list(self)!r})"

    def __contains__(self, address: int) -> bool:
        i = bisect_right(self.firsts, address) - 1
        return i >= 0 and address <= self.lasts[i]

    def size(self) -> int:
        return sum(last - first + 1 for first, last in self)

    def union(self, other: Iterable[tuple[int, int]]) -> IntervalSet:
        return IntervalSet([*self, *other])

    def subtract(self, other: IntervalSet) -> IntervalSet:
        """Those of self that are not in other, in one pass over both."""
        out: list[tuple[int, int]] = []
        holes = list(other)
        i = 0
        for first, last in self:
            while i < len(holes) and holes[i][1] < first:
                i += 1
            j = i
            while j < len(holes) and holes[j][0] <= last:
                if holes[j][0] > first:
                    out.append((first, holes[j][0] - 1))
                first = max(first, holes[j][1] + 1)
                j += 1
            if first <= last:
                out.append((first, last))
        return IntervalSet(out)

    def intersect(self, other: IntervalSet) -> IntervalSet:
        out: list[tuple[int, int]] = []
        mine, theirs = list(self), list(other)
        i = j = 0
        while i < len(mine) and j < len(theirs):
            first, last = max(mine[i][0], theirs[j][0]), min(mine[i][1], theirs[j][1])
            if first <= last:
                out.append((first, last))
            if mine[i][1] < theirs[j][1]:
                i += 1
            else:
                j += 1
        return IntervalSet(out)

    def texts(self, family: int) -> list[str]:
        """Canonical merged form: ascending, `first-last`, single addresses alone."""
        return [
            format_address(first, family)
            if first == last
            else f"{format_address(first, family)}-{format_address(last, family)}"
            for first, last in self
        ]
