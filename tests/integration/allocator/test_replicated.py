"""The lease log on three servers: a member killed under load, members wiped, two of three away. Nothing lost, nothing twice.

With FAILPOINTS=all (`make test-failpoints`) leaders are killed one after the other, and a follower is wiped too.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from shared.bus import Bus, BusError
from shared.contracts.ipam import Allocated
from tests.integration.allocator.conftest import POOLS, Cluster, Replicas
from tests.support.nats_cluster import NAMES, NatsCluster, Placement, placement

Body = Callable[[Cluster, Replicas], Awaitable[None]]
ALL = os.environ.get("FAILPOINTS") == "all"
LOG = "LEASES"
IN_FLIGHT = 16
RECOVERY_S = 60.0
"""An election after a member was killed takes 5 to 9 s, on a busy machine more."""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[NatsCluster]:
    directory = tmp_path / "nats"
    directory.mkdir()
    with NatsCluster(directory) as cluster:
        yield cluster


@pytest.fixture
def run(servers: NatsCluster, tmp_path: Path) -> Iterator[Callable[[Body], None]]:
    """Runs a test's coroutine beside two allocators that lead on the replicated log."""
    replicas = Replicas(servers, tmp_path)

    def runner(body: Body) -> None:
        async def main() -> None:
            bus = await Bus.connect(servers.settings(), "test")
            try:
                cluster = Cluster(bus, servers)
                await cluster.until(lambda: _with_facts(cluster), RECOVERY_S)
                replicas.start("a1", "a2")
                await body(cluster, replicas)
            finally:
                await bus.close()

        asyncio.run(main())

    yield runner
    replicas.kill()


async def _with_facts(cluster: Cluster) -> bool:
    await cluster.facts(*POOLS)
    return True


async def placed(cluster: Cluster, fits: Callable[[Placement], bool]) -> Placement:
    async def found() -> Placement | None:
        seen = await placement(cluster.bus, LOG)
        return seen if fits(seen) else None

    return await cluster.until(found, RECOVERY_S)


async def whole(cluster: Cluster) -> Placement:
    """Waits until all three members have the whole log."""
    return await placed(cluster, lambda seen: len(seen.current) == len(NAMES) - 1)


@asynccontextmanager
async def load(cluster: Cluster) -> AsyncGenerator[Callable[[], float]]:
    """Attaches by many at once, each again until it is answered, every third then given back. Yields what tells the longest time
    without any answer (s)."""
    answered_at, longest_s, stop = [time.monotonic()], [0.0], False

    async def one(worker: int) -> None:
        number = 0
        while not stop:
            number += 1
            name = f"w{worker}-{number}"
            allocated = await cluster.attach(name, timeout_s=2.0)
            now = time.monotonic()
            longest_s[0] = max(longest_s[0], now - answered_at[0])
            answered_at[0] = now
            if number % 3 == 0:
                del cluster.acknowledged[name]
                with suppress(BusError):
                    await cluster.release(name, allocated.grants[0].generation)

    workers = [asyncio.create_task(one(worker)) for worker in range(IN_FLIGHT)]
    try:
        yield lambda: longest_s[0]
        stop = True
        await asyncio.wait_for(asyncio.gather(*workers), RECOVERY_S)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def kill(cluster: Cluster, name: str) -> None:
    assert isinstance(cluster.server, NatsCluster)
    await asyncio.to_thread(cluster.server.members[name].stop, True)


async def start(cluster: Cluster, name: str) -> None:
    assert isinstance(cluster.server, NatsCluster)
    await asyncio.to_thread(cluster.server.members[name].start)


async def kept(cluster: Cluster, told: int) -> None:
    """The log has all that was acknowledged, and each asks again and gets the same."""
    await cluster.until(lambda: _is_whole_log(cluster), RECOVERY_S)
    assert len(cluster.acknowledged) > told
    for name, addresses in list(cluster.acknowledged.items())[::25]:
        again = await cluster.attach(name, timeout_s=2.0)
        assert tuple(grant.address for grant in again.grants) == addresses


async def _is_answered(cluster: Cluster, name: str) -> bool:
    return isinstance(await cluster.ask(name, timeout_s=2.0), Allocated)


async def _is_whole_log(cluster: Cluster) -> bool:
    await cluster.check()
    return True


def test_the_streams_leader_is_killed_under_load(run: Callable[[Body], None]) -> None:
    async def body(cluster: Cluster, replicas: Replicas) -> None:
        await cluster.attach("first", timeout_s=2.0)
        await whole(cluster)
        async with load(cluster) as longest_s:
            await asyncio.sleep(0.5)
            for _ in range(4 if ALL else 1):
                leader = (await placed(cluster, lambda seen: bool(seen.leader))).leader
                told = len(cluster.acknowledged)
                await kill(cluster, leader)
                await placed(cluster, lambda seen, killed=leader: seen.leader not in ("", killed))
                await cluster.until(lambda told=told: _more_than(cluster, told), RECOVERY_S)
                await start(cluster, leader)
                await whole(cluster)
            print(f"longest time without an answer: {longest_s():.1f} s")
        await kept(cluster, 100)

    run(body)


async def _more_than(cluster: Cluster, told: int) -> bool:
    return len(cluster.acknowledged) > told + IN_FLIGHT


@pytest.mark.parametrize("leading", (True, False) if ALL else (True,))
def test_a_wiped_member_gets_the_log_from_the_others(run: Callable[[Body], None], leading: bool) -> None:
    """Then it is one of the two that are left: what it has must be all."""

    async def body(cluster: Cluster, replicas: Replicas) -> None:
        await cluster.attach("first", timeout_s=2.0)
        before = await whole(cluster)
        wiped = before.leader if leading else min(before.current)
        async with load(cluster):
            await asyncio.sleep(0.5)
            await kill(cluster, wiped)
            assert isinstance(cluster.server, NatsCluster)
            cluster.server.wipe(wiped)
            await start(cluster, wiped)
            await whole(cluster)
            other = next(name for name in NAMES if name != wiped)
            await kill(cluster, other)
            told = len(cluster.acknowledged)
            await cluster.until(lambda: _more_than(cluster, told), RECOVERY_S)
        await start(cluster, other)
        await kept(cluster, 100)

    run(body)


def test_two_of_three_away_and_nothing_is_answered_until_one_is_back(run: Callable[[Body], None]) -> None:
    async def body(cluster: Cluster, replicas: Replicas) -> None:
        await cluster.attach("first", timeout_s=2.0)
        before = await whole(cluster)
        for name in sorted(before.current):
            await kill(cluster, name)
        with pytest.raises(BusError):
            await cluster.ask("nobody", timeout_s=3.0)
        assert "nobody" not in cluster.acknowledged
        await start(cluster, min(before.current))
        await cluster.until(lambda: _is_answered(cluster, "second"), RECOVERY_S)
        await start(cluster, max(before.current))
        await kept(cluster, 1)

    run(body)
