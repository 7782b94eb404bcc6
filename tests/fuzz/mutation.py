"""Inputs made from good ones: cut, doubled, flipped, spliced, and given what parsers of this world stumble over.

Owns how input `number` of a seed comes about: the same three give the same bytes for ever, so a failure is replayed by naming them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

NUMBERS = tuple(
    number.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for order in ("big", "little")
    for number in (0, 1, (1 << 8 * size - 1) - 1, 1 << 8 * size - 1, (1 << 8 * size) - 1)
)
WORDS = (
    b"",
    b"\x00",
    b"\r\n",
    b"\n",
    b" ",
    b"%",
    b"%00",
    b"%FF",
    b"=",
    b";",
    b"/",
    b"../",
    b"\\",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"1e999",
    b"-1",
    b"99999999999999999999",
    b"NaN",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "\u202e\U0001f578é".encode(),
    b"[" * 2000,
    b'{"a":' * 2000,
    b"9" * 5000,
    b"x" * 5000,
    b"\x91" * 5000,
    b"\x81\xa1a" * 2000,
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc4",
    b"\xc1",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
)
LONGEST = 64 * 1024


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> bytes:
    """One input. Every tenth is noise, every tenth a good one as it is."""
    kind = chance.random()
    if kind < 0.05:
        return chance.randbytes(chance.randrange(200))
    data = bytearray(seeds[int(chance.random() * len(seeds))])
    if kind < 0.1:
        return bytes(data)
    for _ in range(1 + int(chance.expovariate(0.7))):
        _once(data, seeds, words, chance)
    return bytes(data[:LONGEST])


def _once(data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> None:
    at = int(chance.random() * (len(data) + 1))
    length = min(int(chance.expovariate(0.2)), len(data) - at)
    match int(chance.random() * 9):
        case 0 if at < len(data):
            data[at] ^= 1 << int(chance.random() * 8)
        case 1 if at < len(data):
            data[at] = int(chance.random() * 256)
        case 2:
            del data[at : at + length]
        case 3:
            del data[at:]
        case 4:
            data[at:at] = data[at : at + length] * (1 + int(chance.random() * 8))
        case 5:
            other = seeds[int(chance.random() * len(seeds))]
            cut = int(chance.random() * (len(other) + 1))
            data[at:] = other[cut:]
        case 6:
            data[at : at + length] = NUMBERS[int(chance.random() * len(NUMBERS))]
        case 7 if words:
            data[at : at + length] = words[int(chance.random() * len(words))]
        case _:
            data[at : at + length] = WORDS[int(chance.random() * len(WORDS))]


def smaller(data: bytes) -> list[bytes]:
    """Simpler inputs to try instead of a failing one, the boldest first."""
    out: list[bytes] = []
    size = len(data) // 2
    while size:
        out += [data[:at] + data[at + size :] for at in range(0, len(data), size)][:64]
        size //= 2
    return out
