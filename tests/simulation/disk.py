"""An agent's journal on a disk that keeps what was synced and may lose, or tear, what was not.

Owns the bytes. The journal's own code (group commit, frames, replay) is the product's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from services.agent.journal import Journal
from services.agent.record import Drop, Put, frame, replay
from services.agent.record import Record as JournalRecord
from shared.errors import OrbweaverError

_ROOM_BYTES = 1 << 40


class Disk:
    """What a node's journal file holds. It outlives the agent."""

    def __init__(self) -> None:
        self.content = b""


class SimulatedJournal(Journal):
    """`crash` is called at a write with what is being done; it may kill the agent before or after the bytes are there."""

    def __init__(self, disk: Disk, random: Random, crash: Callable[[str], bool]) -> None:
        super().__init__(Path("/simulated"), -1)
        self._disk = disk
        self._random = random
        self._crash = crash
        self._unsynced: list[bytes] = []
        self.is_dead = False
        found = replay(disk.content)
        self._entries.update(found.entries)
        self.seen = found.seen
        self._rewrite(self._snapshot())

    async def _append(self, record: JournalRecord) -> None:
        if self.is_dead:
            raise OrbweaverError("not_available", "killed")
        if isinstance(record, Put | Drop):
            self._unsynced.append(frame(record))
        await super()._append(record)

    def _write(self, data: bytes) -> None:
        if self.is_dead:
            return
        if self._crash("before a journal write"):
            return
        self._disk.content += data
        self._offset += len(data)
        self._unsynced.clear()
        self._crash("after a journal write")

    def _write_ahead(self, size_bytes: int) -> None:
        self._written_ahead += size_bytes

    def _rewrite(self, content: bytes) -> None:
        if self.is_dead:
            return
        self._written_ahead = _ROOM_BYTES
        self._disk.content = content
        self._offset = self._live_bytes = len(content)
        self._unknown_tail = False

    def lose(self) -> None:
        """The agent was killed: of what was not synced a part is on the disk, perhaps torn."""
        self.is_dead = True
        waiting = b"".join(self._unsynced)
        self._disk.content += waiting[: int(self._random.random() * (len(waiting) + 1))]
