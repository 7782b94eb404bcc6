"""A hub of three servers: what a node asks reaches a service at another server, whenever node and server came."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from services.bus.settings import CLIENT_PORT
from shared.bus import Bus, BusError, Message
from shared.settings import AllocatorSettings, BusSettings
from shared.subjects import LEASES, allocate, lease
from tests.cluster.bus.conftest import NODES, Site, await_true
from tests.cluster.bus.test_identity import connected, tell_nodes
from tests.support.service import Service

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


def test_an_allocator_that_starts_with_the_hub_waits_for_it(site: Site, tmp_path: Path) -> None:
    """As in a new cluster: pods begin as soon as the hub tells its authority, when its servers still elect."""
    for number in range(3):
        site.start_hub(number, servers=3)
    await_true("the authority is told", lambda: (site.peers() / "ca.crt").is_file(), 90)
    servers = tuple(f"tls://{address}:{CLIENT_PORT}" for address in site.addresses)
    settings = AllocatorSettings(
        replica="a1",
        bus=msgspec.structs.replace(site.of_hub("allocator"), servers=servers),
        system=msgspec.structs.replace(site.of_hub("sys"), servers=servers),
        stream_replicas=3,
        mark_file=str(tmp_path / "mark"),
    )
    directory = tmp_path / "allocator"
    directory.mkdir()
    allocator = Service("services.allocator", settings, directory)
    allocator.start()
    try:

        async def made() -> bool:
            async with connected(site.of_hub("tools")) as (tools,):
                with contextlib.suppress(BusError):
                    await tools.stream_state(LEASES.name)
                    return True
            return False

        deadline = time.monotonic() + 90.0
        while not asyncio.run(made()):
            assert time.monotonic() < deadline, allocator.log.read_text()
            time.sleep(0.5)
        with pytest.raises(subprocess.TimeoutExpired):
            allocator.wait(1.0)
    finally:
        allocator.kill()
