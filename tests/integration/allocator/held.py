"""A replica in the test's own process, over a bus that the test can slow down or make lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self

from services.allocator.mark import MarkFile
from services.allocator.replica import Replica
from shared.bus import Bus, StreamState
from shared.clock import SystemClock
from shared.settings import AllocatorSettings, BusSettings
from tests.integration.allocator.conftest import Cluster, Replicas
from tests.simulation.member import TELEMETRY


class HeldBus(Bus):
    """`lag`: the stream's leader was elected a moment ago, and until it is asked to settle the last records are not applied. While
    `appends` is clear, records wait."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.lag = 0
        self.settled = 0
        self.appends = asyncio.Event()
        self.appends.set()

    @classmethod
    async def connect(cls, settings: BusSettings, name: str, attempts: int = -1) -> Self:
        bus = await super().connect(settings, name, attempts)
        assert isinstance(bus, cls)
        return bus

    async def stream_state(self, name: str) -> StreamState:
        found = await super().stream_state(name)
        return StreamState(
            messages=found.messages,
            first_sequence=found.first_sequence,
            last_sequence=found.last_sequence - (self.lag if name == "LEASES" else 0),
        )

    async def settle(self, name: str) -> str:
        self.lag, self.settled = 0, self.settled + 1
        return await super().settle(name)

    async def append(self, subject: str, payload: bytes, **words: Any) -> int:
        if subject.startswith("orb.lease."):
            await self.appends.wait()
        return await super().append(subject, payload, **words)


async def _safe() -> None:
    pass


@asynccontextmanager
async def held(cluster: Cluster, replicas: Replicas, bus: HeldBus) -> AsyncGenerator[Replica]:
    """Closes the bus too."""
    settings = AllocatorSettings(
        replica="held",
        bus=bus.connection.settings,
        system=bus.connection.settings,
        mark_file=str(replicas.mark),
    )
    replica = Replica(
        settings,
        bus,
        TELEMETRY,  # type: ignore[arg-type]
        clock=SystemClock(),
        marks=MarkFile(replicas.mark),
        assert_servers=_safe,
        new_incarnation=lambda: "another",
    )
    running = asyncio.create_task(replica.run())
    try:
        yield replica
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await bus.close()
