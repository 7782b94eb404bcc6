"""The journal of a node's attachments: what the agent must still know after it was killed.

Owns the file, its lock, and when a record is durable. Must not know what entries mean.
A `put` returns when the record is on disk; those that wait meanwhile share one fdatasync. Zeros are written ahead of the
records, so that this sync carries no metadata. When the file has grown far beyond what is alive, or a write failed and its
tail is unknown, it is written anew beside the old one and renamed over it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import structlog

from services.agent.entry import Entry
from services.agent.record import Drop, Opened, Put, Record, frame, later, replay
from shared import failpoint
from shared.contracts.ipam import Mark
from shared.errors import OrbweaverError
from shared.ids import AttachmentId

log = structlog.get_logger()

_AHEAD_BYTES = 1 << 20
_AHEAD_LOW_BYTES = 256 * 1024
_COMPACT_MIN_BYTES = 4 << 20
_COMPACT_FACTOR = 4
_NAME = "journal"


class JournalError(Exception):
    """The journal cannot be opened: another agent has it, or the directory cannot be used."""


class Journal:
    """One owner at a time. Use from the event loop that `open` was called in."""

    def __init__(self, directory: Path, lock_fd: int) -> None:
        self._directory = directory
        self._path = directory / _NAME
        self._lock_fd = lock_fd
        self._fd = -1
        self._offset = 0
        self._written_ahead = 0
        self._entries: dict[AttachmentId, Entry] = {}
        self._live_bytes = 0
        self._waiting: list[tuple[Record, bytes, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._unknown_tail = False
        self.entries: Mapping[AttachmentId, Entry] = MappingProxyType(self._entries)
        self.seen = Mark()
        self.changes = 0
        """Counts what was put and dropped since the journal was opened."""
        self.problem = ""
        """Why the journal cannot be written now; empty where it can."""

    @classmethod
    def open(cls, directory: Path) -> Journal:
        """Reads what is there and writes it anew. Raises JournalError."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock_fd = os.open(directory / f"{_NAME}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"{directory}: {error.strerror}") from error
        journal = cls(directory, lock_fd)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = journal._path.read_bytes() if journal._path.exists() else b""
            found = replay(content)
            for problem in found.problems:
                log.error("journal damaged", problem=problem, journal=str(journal._path))
            journal._entries.update(found.entries)
            journal.seen = found.seen
            journal._rewrite(journal._snapshot())
        except BlockingIOError:
            os.close(lock_fd)
            raise JournalError(f"{directory}: the journal is in use by another agent") from None
        except OSError as error:
            os.close(lock_fd)
            raise JournalError(f"{journal._path}: {error.strerror}") from error
        return journal

    async def put(self, entry: Entry) -> None:
        """Durable on return. Raises OrbweaverError `not_available` where it cannot be written; then nothing changed."""
        await self._append(Put(entry=entry, seen=self.seen))

    async def drop(self, attachment: AttachmentId) -> None:
        """Forgets an entry. A drop that is lost in a crash shows the entry again; its end is then repeated."""
        if attachment in self._entries:
            await self._append(Drop(container_id=attachment.container_id, ifname=attachment.ifname))

    def witness(self, mark: Mark) -> None:
        """Keeps the furthest place in the lease log; durable with the next put. Another incarnation is adopted, not witnessed."""
        if mark.incarnation and self.seen.incarnation in ("", mark.incarnation):
            self.seen = later(self.seen, mark)

    async def adopt(self, mark: Mark) -> None:
        """From now on the log is another incarnation. Durable on return; raises as `put`."""
        await self._append(Opened(seen=mark))

    async def close(self) -> None:
        if self._flusher is not None:
            await self._flusher
        self._thread.shutdown()
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1

    async def _append(self, record: Record) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, frame(record), future))
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        # Shielded: a caller that is cancelled leaves a record that is written all the same.
        await asyncio.shield(future)

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    if self._unknown_tail:
                        await loop.run_in_executor(self._thread, self._rewrite, self._snapshot())
                    await loop.run_in_executor(
                        self._thread, self._write, b"".join(data for _, data, _ in batch)
                    )
                except OSError as error:
                    self._failed(batch, error)
                else:
                    self.problem = ""
                    for record, _, future in batch:
                        self._apply(record)
                        if not future.done():
                            future.set_result(None)
                    await self._tend()
        finally:
            self._flusher = None

    async def _tend(self) -> None:
        """What makes the next writes cheap, after these were answered."""
        loop = asyncio.get_running_loop()
        try:
            if self._is_sparse():
                await loop.run_in_executor(self._thread, self._rewrite, self._snapshot())
            elif self._written_ahead - self._offset < _AHEAD_LOW_BYTES:
                await loop.run_in_executor(self._thread, self._write_ahead, _AHEAD_BYTES)
        except OSError as error:
            # The file as it is still serves.
            log.warning("journal not tended", problem=f"{self._path}: {error.strerror}")

    def _failed(self, batch: list[tuple[Record, bytes, asyncio.Future[None]]], error: OSError) -> None:
        self._unknown_tail = True
        self.problem = f"{self._path}: {error.strerror}"
        log.error("journal cannot be written", problem=self.problem)
        for _, _, future in batch:
            if not future.done():
                future.set_exception(
                    OrbweaverError("not_available", f"the agent's journal cannot be written: {self.problem}")
                )
                future.exception()  # a caller that was cancelled does not look

    def _apply(self, record: Record) -> None:
        match record:
            case Put():
                self._entries[record.entry.attachment] = record.entry
            case Drop():
                self._entries.pop(AttachmentId(record.container_id, record.ifname), None)
            case Opened():
                self.seen = record.seen
        self.changes += 1

    def _is_sparse(self) -> bool:
        return self._offset > max(_COMPACT_MIN_BYTES, _COMPACT_FACTOR * self._live_bytes)

    def _snapshot(self) -> bytes:
        records: list[Record] = [
            Opened(seen=self.seen),
            *(Put(entry=entry) for entry in self._entries.values()),
        ]
        return b"".join(map(frame, records))

    # Below: in the journal's thread, or before it runs.

    def _write(self, data: bytes) -> None:
        if self._offset + len(data) > self._written_ahead:
            self._write_ahead(len(data) + _AHEAD_BYTES)
        failpoint.hit("agent.journal.write")
        _write_all(self._fd, data, self._offset)
        os.fdatasync(self._fd)
        failpoint.hit("agent.journal.synced")
        self._offset += len(data)

    def _write_ahead(self, size_bytes: int) -> None:
        _write_all(self._fd, bytes(size_bytes), self._written_ahead)
        os.fdatasync(self._fd)
        self._written_ahead += size_bytes

    def _rewrite(self, content: bytes) -> None:
        new = self._path.with_suffix(".new")
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, content + bytes(_AHEAD_BYTES), 0)
            os.fsync(fd)
            failpoint.hit("agent.journal.rewrite")
            new.rename(self._path)
            failpoint.hit("agent.journal.renamed")
            directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory_fd)
            finally:
                os.close(directory_fd)
        except BaseException:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._offset = self._live_bytes = len(content)
        self._written_ahead = len(content) + _AHEAD_BYTES
        self._unknown_tail = False


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
