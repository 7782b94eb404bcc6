"""Whether the objects are all known is asked of the controller, and its answer is waited for: on a real bus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.allocator.facts import Facts
from services.allocator.whole import whole
from shared.contracts.facts import FACT
from tests.integration.allocator.conftest import POOLS, Cluster

Run = Callable[..., None]
WAITS_S = 0.5


async def fold(cluster: Cluster, facts: Facts, up_to: int) -> None:
    """Facts as a replica knows them that has read so far."""
    async for message in cluster.bus.read("FACTS"):
        if message.sequence <= up_to:
            facts.apply(FACT.decode(message.data), message.sequence)


def test_it_waits_until_all_that_the_controller_has_told_is_known(run: Run) -> None:
    async def body(cluster: Cluster) -> None:
        last = (await cluster.bus.stream_state("FACTS")).last_sequence
        facts = Facts()
        async with cluster.objects_known():
            waiting = asyncio.create_task(whole(cluster.bus, facts, "the test"))
            for known in (0, last - 1):
                await fold(cluster, facts, known)
                _, pending = await asyncio.wait({waiting}, timeout=WAITS_S)
                assert pending, f"record {known} of {last} is known"
            await fold(cluster, facts, last)
            await asyncio.wait_for(waiting, 30.0)
        assert len(facts.pools) == len(POOLS)

    run(body)


def test_a_controller_that_is_away_is_asked_again(run: Run) -> None:
    async def body(cluster: Cluster) -> None:
        facts = Facts()
        await fold(cluster, facts, (await cluster.bus.stream_state("FACTS")).last_sequence)
        assert facts.synced
        waiting = asyncio.create_task(whole(cluster.bus, facts, "the test"))
        _, pending = await asyncio.wait({waiting}, timeout=WAITS_S)
        assert pending, "a stream says that it is complete; the controller has not said so"
        async with cluster.objects_known():
            await asyncio.wait_for(waiting, 30.0)

    run(body)
