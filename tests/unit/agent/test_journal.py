"""The journal on a real disk: durable, one owner, compacted, healed after a write that failed."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.agent import journal as module
from services.agent.entry import Entry
from services.agent.journal import Journal, JournalError
from services.agent.record import replay
from shared.contracts.ipam import Mark
from shared.errors import OrbweaverError
from shared.ids import AttachmentId
from tests.unit.agent.test_record import entry


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_what_was_put_is_there_after_a_kill(tmp_path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(tmp_path)
        journal.witness(Mark(incarnation="i", sequence=5, digest="d"))
        await asyncio.gather(*(journal.put(entry(f"c{number}")) for number in range(20)))
        await journal.drop(AttachmentId("c3", "eth0"))
        await journal.drop(AttachmentId("unknown", "eth0"))
        # a kill: nothing is closed, the bytes are what is on disk
        content = (tmp_path / "journal").read_bytes()
        found = replay(content)
        assert set(found.entries) == {AttachmentId(f"c{n}", "eth0") for n in range(20) if n != 3}
        assert found.entries == dict(journal.entries)
        assert found.seen.sequence == 5
        await journal.close()
        again = Journal.open(tmp_path)
        assert dict(again.entries) == found.entries
        assert again.seen.sequence == 5
        await again.close()

    run(work())


def test_one_owner(tmp_path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(tmp_path)
        with pytest.raises(JournalError, match="in use"):
            Journal.open(tmp_path)
        await journal.close()
        await Journal.open(tmp_path).close()

    run(work())


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="file"):
        Journal.open(tmp_path / "file" / "state")


def test_files_are_private(tmp_path: Path) -> None:
    async def work() -> None:
        await Journal.open(tmp_path / "state").close()
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        for path in (tmp_path / "state").iterdir():
            assert path.stat().st_mode & 0o777 == 0o600

    run(work())


def test_those_that_wait_share_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fdatasync

    def counted(fd: int) -> None:
        synced.append(fd)
        real(fd)

    monkeypatch.setattr(module.os, "fdatasync", counted)

    async def work() -> None:
        journal = Journal.open(tmp_path)
        await asyncio.gather(*(journal.put(entry(f"c{number}")) for number in range(50)))
        assert len(synced) <= 2
        await journal.close()

    run(work())


def test_it_grows_beyond_what_was_written_ahead(tmp_path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(tmp_path)
        for start in range(0, 9000, 3000):
            await asyncio.gather(*(journal.put(entry(f"c{n}")) for n in range(start, start + 3000)))
        assert replay((tmp_path / "journal").read_bytes()).entries == dict(journal.entries)
        assert len(journal.entries) == 9000
        await journal.close()

    run(work())


def test_compaction_keeps_what_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMPACT_MIN_BYTES", 16 * 1024)

    async def work() -> None:
        journal = Journal.open(tmp_path)
        journal.witness(Mark(incarnation="i", sequence=9, digest="d"))
        await journal.put(entry("kept", "completed"))
        first = (tmp_path / "journal").stat().st_ino
        sizes: list[int] = []
        for number in range(400):
            await journal.put(entry(f"c{number}"))
            await journal.drop(AttachmentId(f"c{number}", "eth0"))
            sizes.append(len((tmp_path / "journal").read_bytes().rstrip(b"\0")))
        assert max(sizes) < 24 * 1024
        assert (tmp_path / "journal").stat().st_ino != first or sizes[-1] < 24 * 1024
        await journal.close()
        again = Journal.open(tmp_path)
        assert set(again.entries) == {AttachmentId("kept", "eth0")}
        assert again.seen.sequence == 9
        assert not (tmp_path / "journal.new").exists()
        await again.close()

    run(work())


def test_a_write_that_fails_changes_nothing_and_the_next_one_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fdatasync

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def work() -> None:
        journal = Journal.open(tmp_path)
        await journal.put(entry("before"))
        monkeypatch.setattr(module.os, "fdatasync", full)
        with pytest.raises(OrbweaverError, match="No space left") as caught:
            await journal.put(entry("lost"))
        assert caught.value.kind.code == 50
        assert journal.problem
        assert AttachmentId("lost", "eth0") not in journal.entries
        monkeypatch.setattr(module.os, "fdatasync", real)
        await journal.put(entry("after"))
        assert journal.problem == ""
        await journal.close()
        again = Journal.open(tmp_path)
        assert {key.container_id for key in again.entries} == {"before", "after"}
        await again.close()

    run(work())


def test_a_cancelled_put_is_written_all_the_same(tmp_path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(tmp_path)
        task = asyncio.create_task(journal.put(entry("c1")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await journal.put(entry("c2"))
        assert {key.container_id for key in journal.entries} == {"c1", "c2"}
        await journal.close()

    run(work())


def test_entries_of_an_older_version_have_defaults() -> None:
    fields = {
        "container_id",
        "ifname",
        "state",
        "mode",
        "attempt",
        "boot_id",
        "netns",
        "device",
        "inode",
        "network",
    }
    required = {field.name for field in msgspec.structs.fields(Entry) if field.required}
    assert required == fields
