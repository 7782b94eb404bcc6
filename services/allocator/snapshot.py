"""Snapshots of the state on the stream SNAPSHOTS: chunks first, the manifest last, two kept.

Owns how a state is cut into messages and put together again. Must not know what the state means. A snapshot whose manifest
or digest does not fit is passed over: the older one, or the whole log, serves.
"""

from __future__ import annotations

import hashlib

import msgspec
import structlog

from services.allocator.state import Snapshot, State
from shared import failpoint, limits, subjects
from shared.bus import Bus, StreamMessage
from shared.contracts.codec import Codec, MessageError, encode
from shared.contracts.lease import SNAPSHOT_MANIFEST, SnapshotManifest

log = structlog.get_logger()
SNAPSHOT: Codec[Snapshot] = Codec(Snapshot)
MANIFEST = "manifest"
KEPT = 2


def cut(snapshot: Snapshot) -> tuple[SnapshotManifest, list[bytes]]:
    """The manifest and the chunks, each at most `limits.CHUNK_BYTES`. What comes to the state later is not in them."""
    whole = encode(snapshot)
    chunks = [whole[i : i + limits.CHUNK_BYTES] for i in range(0, len(whole), limits.CHUNK_BYTES)]
    manifest = SnapshotManifest(
        incarnation=snapshot.incarnation,
        term=snapshot.term,
        sequence=snapshot.sequence,
        digest=snapshot.digest,
        at_ns=snapshot.at_ns,
        chunks=len(chunks),
        size_bytes=len(whole),
        sha256=hashlib.sha256(whole).digest(),
    )
    return manifest, chunks


def join(manifest: SnapshotManifest, chunks: list[bytes]) -> Snapshot:
    """The inverse of `cut`. Raises MessageError if anything is missing or altered."""
    whole = b"".join(chunks)
    if len(chunks) != manifest.chunks or hashlib.sha256(whole).digest() != manifest.sha256:
        raise MessageError(f"snapshot {manifest.sequence}: its chunks do not make what the manifest names")
    snapshot = SNAPSHOT.decode(whole)
    if (snapshot.sequence, snapshot.digest) != (manifest.sequence, manifest.digest):
        raise MessageError(f"snapshot {manifest.sequence} holds the state of {snapshot.sequence}")
    return snapshot


async def write(bus: Bus, manifest: SnapshotManifest, chunks: list[bytes]) -> None:
    """Stores what `cut` made and drops snapshots older than the last two. Raises what the bus raises."""
    for i, chunk in enumerate(chunks):
        await bus.append(subjects.snapshot(manifest.incarnation, manifest.sequence, str(i)), chunk)
        failpoint.hit("allocator.snapshot.chunk")
    await bus.append(subjects.snapshot(manifest.incarnation, manifest.sequence, MANIFEST), encode(manifest))
    failpoint.hit("allocator.snapshot.manifest")
    for old in (await manifests(bus))[:-KEPT]:
        await bus.purge("SNAPSHOTS", subject=subjects.snapshot(old.incarnation, old.sequence, "*"))


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
