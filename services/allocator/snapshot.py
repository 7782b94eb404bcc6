"""Snapshots of the state on the stream SNAPSHOTS: chunks first, the manifest last, two kept.

Owns how a state is cut into messages and put together again. Must not know what the state means. A snapshot whose manifest
or digest does not fit is passed over: the older one, or the whole log, serves.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Generator

import msgspec
import structlog

from services.allocator.picture import Picture
from services.allocator.state import Snapshot, State
from shared import failpoint, limits, subjects
from shared.bus import Bus, StreamMessage
from shared.contracts.codec import Codec, MessageError, encode
from shared.contracts.lease import SNAPSHOT_MANIFEST, SnapshotManifest

log = structlog.get_logger()
SNAPSHOT: Codec[Snapshot] = Codec(Snapshot)
MANIFEST = "manifest"
KEPT = 2


def cutting(picture: Picture) -> Generator[bytes | None, None, SnapshotManifest]:
    """The chunks, each at most `limits.CHUNK_BYTES`, and at last the manifest. Steps that fill no chunk give None: after each step
    the state may change."""
    buffer, chunks, size_bytes, sha256 = bytearray(), 0, 0, hashlib.sha256()

    def chunk() -> bytes:
        nonlocal chunks, size_bytes
        taken = bytes(buffer[: limits.CHUNK_BYTES])
        del buffer[: limits.CHUNK_BYTES]
        sha256.update(taken)
        chunks, size_bytes = chunks + 1, size_bytes + len(taken)
        return taken

    for piece in picture.pieces():
        buffer += piece
        while len(buffer) >= limits.CHUNK_BYTES:
            yield chunk()
        yield None
    if buffer:
        yield chunk()
    return SnapshotManifest(
        incarnation=picture.incarnation,
        term=picture.term,
        sequence=picture.sequence,
        digest=picture.digest,
        at_ns=picture.at_ns,
        chunks=chunks,
        size_bytes=size_bytes,
        sha256=sha256.digest(),
    )


def join(manifest: SnapshotManifest, chunks: list[bytes]) -> Snapshot:
    """The inverse of `cutting`. Raises MessageError if anything is missing or altered."""
    whole = b"".join(chunks)
    if len(chunks) != manifest.chunks or hashlib.sha256(whole).digest() != manifest.sha256:
        raise MessageError(f"snapshot {manifest.sequence}: its chunks do not make what the manifest names")
    snapshot = SNAPSHOT.decode(whole)
    if (snapshot.sequence, snapshot.digest) != (manifest.sequence, manifest.digest):
        raise MessageError(f"snapshot {manifest.sequence} holds the state of {snapshot.sequence}")
    return snapshot


async def store(bus: Bus, picture: Picture) -> SnapshotManifest:
    """Stores the picture while the state goes on, and drops what is older than the last two snapshots, begun ones that never came to
    their manifest too. Raises what the bus raises."""
    cut, number = cutting(picture), 0
    while True:
        try:
            chunk = next(cut)
        except StopIteration as done:
            manifest: SnapshotManifest = done.value
            break
        if chunk is None:
            await asyncio.sleep(0)
            continue
        await bus.append(subjects.snapshot(picture.incarnation, picture.sequence, str(number)), chunk)
        number += 1
        failpoint.hit("allocator.snapshot.chunk")
    await bus.append(subjects.snapshot(manifest.incarnation, manifest.sequence, MANIFEST), encode(manifest))
    failpoint.hit("allocator.snapshot.manifest")
    await _drop_older(bus)
    return manifest


async def _drop_older(bus: Bus) -> None:
    begins: list[int] = []
    for kept in (await manifests(bus))[-KEPT:]:
        first = await bus.get_last("SNAPSHOTS", subjects.snapshot(kept.incarnation, kept.sequence, "0"))
        begins.append(first.sequence if first is not None else 0)
    if begins and min(begins):
        await bus.purge("SNAPSHOTS", up_to_sequence=min(begins))


async def drop_others(bus: Bus, incarnation: str) -> None:
    """Forgets the snapshots of other logs."""
    for old in await manifests(bus):
        if old.incarnation != incarnation:
            await bus.purge("SNAPSHOTS", subject=subjects.snapshot(old.incarnation, old.sequence, "*"))


async def manifests(bus: Bus) -> list[SnapshotManifest]:
    """Every complete snapshot, oldest first: by time, as after a loss sequences begin anew."""
    found: list[SnapshotManifest] = []
    async for message in bus.read("SNAPSHOTS", subject_filter="orb.snapshot.*.*.manifest"):
        try:
            found.append(SNAPSHOT_MANIFEST.decode(message.data))
        except MessageError as error:
            log.warning("manifest passed over", subject=message.subject, error=str(error))
    return sorted(found, key=lambda manifest: (manifest.at_ns, manifest.sequence))


async def load_newest(bus: Bus, incarnation: str = "") -> State:
    """The state of the newest snapshot that is whole, or an empty state. `incarnation`: only of that log."""
    for manifest in reversed(await manifests(bus)):
        if incarnation not in ("", manifest.incarnation):
            continue
        chunks: dict[int, bytes] = {}
        prefix = subjects.snapshot(manifest.incarnation, manifest.sequence, "*")
        async for message in bus.read("SNAPSHOTS", subject_filter=prefix):
            _take(chunks, message)
        try:
            return State.from_snapshot(join(manifest, [chunks[i] for i in range(manifest.chunks)]))
        except (MessageError, KeyError, msgspec.MsgspecError) as error:
            log.warning("snapshot passed over", sequence=manifest.sequence, error=str(error))
    return State()


def _take(chunks: dict[int, bytes], message: StreamMessage) -> None:
    part = message.subject.rpartition(".")[2]
    if part != MANIFEST:
        chunks[int(part)] = message.data
