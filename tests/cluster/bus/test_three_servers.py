"""A hub of three servers: what a node asks reaches a service at another server, whenever node and server came."""

from __future__ import annotations

import asyncio
import contextlib
import time

from shared.bus import Bus, BusError, Message
from shared.settings import BusSettings
from shared.subjects import LEASES, allocate, lease
from tests.cluster.bus.conftest import NODES, Site, await_true
from tests.cluster.bus.test_identity import connected, tell_nodes

OWN, OTHER = NODES


async def answer(message: Message) -> bytes:
    return b"answer"


async def answered(asking: BusSettings, subject: str, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    async with connected(asking) as (agent,):
        while True:
            with contextlib.suppress(BusError):
                await agent.request(subject, b"", 1.0)
                return
            assert time.monotonic() < deadline, f"no answer on {subject} within {limit_s:.0f} s"
            await asyncio.sleep(0.1)


def test_a_hub_of_three(site: Site) -> None:
    for number in range(3):
        site.start_hub(number, servers=3)
    await_true("all three listen", lambda: all(site.listens(number) for number in range(3)), 90)
    assert (site.peers() / "ca.crt").is_file(), "told when all servers are known"

    async def scenario() -> None:
        await tell_nodes(site, OWN, replicas=3)
        # The leaf knows one server of the hub, the allocator sits at each of the others in turn.
        site.start_leaf(OWN, only=0)
        for number in (1, 2):
            async with connected(site.of_hub("allocator", number)) as (allocator,):
                await allocator.serve("orb.ipam.>", answer)
                await answered(site.of_node("agent", OWN), allocate(OWN))
        async with connected(site.of_hub("allocator", 1)) as (allocator,):
            await eventually_made(allocator)
            await allocator.append(lease("incarnation", 1), b"record", timeout_s=10.0)
            # A node comes while a server is away, and links to that server when it is back.
            site.stop("orbweaver-nats-0")
            await tell_nodes(site, OTHER, by=1, replicas=3)
            await allocator.serve("orb.ipam.>", answer)
            await asyncio.sleep(4.0)
            site.start_again("orbweaver-nats-0")
            site.start_leaf(OTHER, only=0)
            await answered(site.of_node("agent", OTHER), allocate(OTHER), 90.0)
            await allocator.append(lease("incarnation", 1), b"record", timeout_s=10.0)

    async def eventually_made(allocator: Bus) -> None:
        deadline = time.monotonic() + 60.0
        while True:
            try:
                await allocator.ensure_stream(LEASES, 3)
                return
            except BusError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.5)

    asyncio.run(scenario())
