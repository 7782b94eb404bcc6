"""A server that answers late or from what it has applied so far: no loss, and no lost leadership."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from services.allocator.mark import MarkFile
from services.allocator.replica import Replica
from shared.bus import Bus, StreamState
from shared.clock import SystemClock
from shared.settings import AllocatorSettings
from tests.integration.allocator.conftest import Cluster, Replicas
from tests.simulation.member import TELEMETRY

Run = Callable[[Callable[[Cluster], Awaitable[None]]], None]


class LateBus(Bus):
    """The stream's leader was elected a moment ago: until it is asked to settle, the last `lag` records are not applied."""

    lag = 0
    settled = 0

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


async def _safe() -> None:
    pass


@pytest.mark.parametrize("marked", [True, False])
def test_a_streams_leader_that_lags_behind_is_no_loss(run: Run, replicas: Replicas, marked: bool) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        first = [await cluster.attach(f"c{i}") for i in range(5)]
        await asyncio.to_thread(replicas["a1"].stop)
        bus = await LateBus.connect(cluster.server.settings("allocator"), "late")
        bus.lag = 3
        if not marked:
            replicas.mark.unlink()
        late = Replica(
            AllocatorSettings(
                replica="late",
                bus=bus.connection.settings,
                system=bus.connection.settings,
                mark_file=str(replicas.mark),
            ),
            bus,
            TELEMETRY,  # type: ignore[arg-type]
            clock=SystemClock(),
            marks=MarkFile(replicas.mark),
            assert_servers=_safe,
            new_incarnation=lambda: "another",
        )
        running = asyncio.create_task(late.run())
        try:
            again = await cluster.attach("c4", timeout_s=2.0)
            assert (again.mark.incarnation, again.grants) == (first[0].mark.incarnation, first[4].grants)
            assert (await cluster.attach("new", timeout_s=2.0)).mark.incarnation == first[0].mark.incarnation
            assert bus.settled
            await cluster.check()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await bus.close()

    run(body)


def test_a_server_that_stood_still_takes_no_leadership(run: Run, replicas: Replicas) -> None:
    """For longer than a leadership lasts; nobody else is there to take it."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await cluster.attach("one")
        process = cluster.server._process  # type: ignore[union-attr]
        assert process is not None
        for for_s in (0.6, 2.5):
            os.kill(process.pid, signal.SIGSTOP)
            await asyncio.sleep(for_s)
            os.kill(process.pid, signal.SIGCONT)
            await cluster.attach(f"after {for_s}")
            await asyncio.sleep(1.5)
        await cluster.attach("two")
        assert (await cluster.check()).term == 1

    run(body)
