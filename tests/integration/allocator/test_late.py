"""A server that answers late or from what it has applied so far: no loss, and no lost leadership."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from tests.integration.allocator.conftest import Cluster, Replicas
from tests.integration.allocator.held import HeldBus, held

Run = Callable[[Callable[[Cluster], Awaitable[None]]], None]


@pytest.mark.parametrize("marked", [True, False])
def test_a_streams_leader_that_lags_behind_is_no_loss(run: Run, replicas: Replicas, marked: bool) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        first = [await cluster.attach(f"c{i}") for i in range(5)]
        await asyncio.to_thread(replicas["a1"].stop)
        if not marked:
            replicas.mark.unlink()
        bus = await HeldBus.connect(cluster.server.settings("allocator"), "held")
        bus.lag = 3
        async with held(cluster, replicas, bus):
            again = await cluster.attach("c4", timeout_s=2.0)
            assert (again.mark.incarnation, again.grants) == (first[0].mark.incarnation, first[4].grants)
            assert (await cluster.attach("new", timeout_s=2.0)).mark.incarnation == first[0].mark.incarnation
            assert bus.settled
            await cluster.check()

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
