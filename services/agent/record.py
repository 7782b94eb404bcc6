"""The journal's bytes: records framed so that a torn or altered one is seen. Pure.

Owns the frame: magic (4), length (4), CRC-32 of length and payload (4), payload (one MessagePack record). After the last
frame come zeros, written ahead. Must not know files. Little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import msgspec

from services.agent.entry import Entry
from shared.contracts.codec import Codec, MessageError, encode
from shared.contracts.ipam import Mark
from shared.ids import AttachmentId

_MAGIC = b"ORBJ"
_HEAD = struct.Struct("<4sII")
_PAYLOAD_MAX_BYTES = 1 << 20


class Put(msgspec.Struct, frozen=True, kw_only=True, tag="put.1", omit_defaults=True):
    """The entry as it is from now on. `seen` is the furthest place in the lease log that a reply named."""

    entry: Entry
    seen: Mark = Mark()


class Drop(msgspec.Struct, frozen=True, kw_only=True, tag="drop.1"):
    container_id: str
    ifname: str


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened.1", omit_defaults=True):
    """The first record of a file."""

    seen: Mark = Mark()


Record = Put | Drop | Opened
_CODEC: Codec[Record] = Codec(Record)


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """`problems` are sentences: what was skipped, and where."""

    entries: dict[AttachmentId, Entry]
    seen: Mark
    problems: tuple[str, ...]


def frame(record: Record) -> bytes:
    payload = encode(record)
    length = struct.pack("<I", len(payload))
    return _HEAD.pack(_MAGIC, len(payload), zlib.crc32(payload, zlib.crc32(length))) + payload


def later(known: Mark, named: Mark) -> Mark:
    """The mark to keep: the higher one of one incarnation, else the one just named."""
    if known.incarnation == named.incarnation and known.sequence >= named.sequence:
        return known
    return named


def fold(records: Iterable[Record]) -> tuple[dict[AttachmentId, Entry], Mark]:
    entries: dict[AttachmentId, Entry] = {}
    seen = Mark()
    for record in records:
        match record:
            case Put():
                entries[record.entry.attachment] = record.entry
                seen = later(seen, record.seen) if record.seen.incarnation else seen
            case Drop():
                entries.pop(AttachmentId(record.container_id, record.ifname), None)
            case Opened():
                seen = later(seen, record.seen) if record.seen.incarnation else seen
    return entries, seen


def replay(content: bytes) -> Replay:
    """Folds all records that are whole. One that is not is skipped: at the end it is what a crash tore, and no problem;
    before others it is a problem."""
    records: list[Record] = []
    problems: list[str] = []
    bad_at = -1
    at = 0
    while at < len(content):
        end, record = _read(content, at)
        if record is not None:
            if bad_at >= 0:
                problems.append(f"bytes {bad_at} to {at} of the journal are no record; skipped")
                bad_at = -1
            records.append(record)
            at = end
            continue
        if bad_at < 0:
            if not content[at:].strip(b"\0"):
                break
            bad_at = at
        found = content.find(_MAGIC, at + 1)
        if found < 0:
            break
        at = found
    entries, seen = fold(records)
    return Replay(entries=entries, seen=seen, problems=tuple(problems))


def _read(content: bytes, at: int) -> tuple[int, Record | None]:
    if len(content) - at < _HEAD.size:
        return at, None
    magic, length, checksum = _HEAD.unpack_from(content, at)
    end = at + _HEAD.size + length
    if magic != _MAGIC or length > _PAYLOAD_MAX_BYTES or end > len(content):
        return at, None
    payload = content[at + _HEAD.size : end]
    if zlib.crc32(payload, zlib.crc32(content[at + 4 : at + 8])) != checksum:
        return at, None
    try:
        return end, _CODEC.decode(payload)
    except MessageError:
        return at, None
