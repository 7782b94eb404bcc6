"""A snapshot cut at once, for tests that have no state which goes on meanwhile."""

from __future__ import annotations

from services.allocator.picture import Picture
from services.allocator.snapshot import cutting
from services.allocator.state import Snapshot
from shared.contracts.lease import SnapshotManifest


def cut(snapshot: Snapshot) -> tuple[SnapshotManifest, list[bytes]]:
    chunks: list[bytes] = []
    steps = cutting(Picture(snapshot))
    while True:
        try:
            chunk = next(steps)
        except StopIteration as done:
            return done.value, chunks
        if chunk is not None:
            chunks.append(chunk)
