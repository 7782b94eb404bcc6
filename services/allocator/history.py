"""How far back the log is kept: when a snapshot is taken, and what of the log it makes superfluous.

Owns the picture in the making. Must not know what a snapshot holds. Taking one never halts the leader for longer than a step.
"""

from __future__ import annotations

import asyncio

import structlog

from services.allocator import snapshot
from services.allocator.picture import Picture
from services.allocator.state import State
from shared.bus import Bus, BusError
from shared.clock import Clock
from shared.contracts.lease import LeaseEvent

log = structlog.get_logger()


class History:
    """Of one replica: it takes snapshots of the state that it leads with."""

    def __init__(self, bus: Bus, clock: Clock, snapshot_records: int, log_history_s: float) -> None:
        self._bus = bus
        self._clock = clock
        self._snapshot_records = snapshot_records
        self._history_ns = int(log_history_s * 1e9)
        self._records = 0
        self._picture: Picture | None = None
        self._taking: asyncio.Task[None] | None = None

    def before(self, event: LeaseEvent) -> None:
        """The state is about to take this event."""
        if self._picture is not None:
            self._picture.before(event)

    def appended(self, state: State, records: int) -> None:
        """All that the state has taken is in the log, with `records` more: a picture may begin here, and nowhere else."""
        self._records += records
        if self._records >= self._snapshot_records and self._picture is None:
            self._records = 0
            self._picture = Picture(state.snapshot(), dict(state.holdings))
            self._taking = asyncio.create_task(self._take(self._picture))

    async def end_term(self) -> None:
        """The state is led no more: what another folds into it, no picture would see."""
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.gather(self._taking, return_exceptions=True)

    async def _take(self, picture: Picture) -> None:
        try:
            manifest = await snapshot.store(self._bus, picture)
            log.info("snapshot", sequence=manifest.sequence, size_bytes=manifest.size_bytes)
            await self._trim()
        except BusError as error:
            log.warning("no snapshot", error=str(error))
        finally:
            self._picture = self._taking = None

    async def _trim(self) -> None:
        """Drops what is below the older of two snapshots and past the history that the user keeps."""
        kept = await snapshot.manifests(self._bus)
        if len(kept) >= snapshot.KEPT and kept[0].at_ns <= self._clock.unix_ns() - self._history_ns:
            await self._bus.purge("LEASES", up_to_sequence=kept[0].sequence)
