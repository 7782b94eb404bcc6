"""The figures of the allocators, on nats-servers of their own: no kernel, no shim. Each in a directory below one.

Owns their order. Must not know what the figures must be.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop

from shared.bus import Bus
from shared.settings import AgentSettings
from tests.bench import allocate, crowd, failover, index, pool_size, rebuild
from tests.bench.stage import POOLS, publish_facts, stage
from tests.support.nats_cluster import NatsCluster

T = TypeVar("T")
Say = Callable[[str], None]
_ELECTED_S = 30.0


def measure(
    say: Say, root: Path, *, failovers: int, allocate_s: float, crowd_s: float, large: bool
) -> dict[str, float]:
    """`large`: also what takes minutes to set up. Raises RuntimeError."""

    def run(name: str, measuring: Callable[[Path], Coroutine[Any, Any, T]]) -> T:
        directory = root / name
        directory.mkdir()
        try:
            return uvloop.run(measuring(directory))
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    values: dict[str, float] = {}
    decided, asked = run("pool-size", pool_size.measure)
    values["big_pool_ratio"] = max(decided, asked)
    say(f"/8 and /48 against /24: the decision {decided:.2f}, over the bus {asked:.2f}")

    took_s = run("failover", lambda directory: failover.measure(directory, failovers))
    values["failover_s"] = statistics.median(took_s)
    say(f"leader killed {failovers} times: next answer after {', '.join(f'{one:.2f}' for one in took_s)} s")

    found = run("three", lambda directory: _on_three(directory, allocate_s))
    values["allocs_per_s_r3"] = found.allocs_per_s
    say(
        f"three servers: {found.allocate_p50_ms:.2f} ms one by one, {found.allocs_per_s:,.0f} a second with 64 in flight"
    )

    waits = run("crowd", lambda directory: crowd.measure(directory, crowd_s))
    values["agents_5000_p99_ms"] = waits.p99_ms
    say(
        f"{crowd.NODES:,} agents, {crowd.ATTACHES_PER_S} attaches a second for {crowd_s:.0f} s: p50 {waits.p50_ms:.1f} ms, "
        f"p99 {waits.p99_ms:.1f} ms, longest {waits.longest_ms:.1f} ms"
    )
    if not large:
        return values

    replay = run("index", index.measure)
    values["leases_1m_gib"], values["replay_s"] = replay.rss_gib, replay.replay_s
    say(
        f"1,000,000 leases: {replay.rss_gib:.2f} GiB, first answer {replay.replay_s:.1f} s after the start, "
        f"snapshot of {replay.snapshot_mib:.0f} MiB and {index.RECORDS:,} records"
    )

    values["rebuild_s"] = run("rebuild", rebuild.measure)
    say(
        f"store lost, {rebuild.LEASES:,} leases on {rebuild.NODES} nodes: a new address after {values['rebuild_s']:.1f} s"
    )
    return values


async def _on_three(directory: Path, seconds: float) -> allocate.Allocations:
    with NatsCluster(directory) as servers:
        async with stage(servers, directory, ("n1",)) as made:
            await made.cluster.until(lambda: _published(made.bus), _ELECTED_S)
            made.replicas.start("a1")
            await made.fleet.attach(made.fleet.request("n1"))
            settings = AgentSettings(
                node="n1", bus=servers.settings("agent", "n1"), state=str(directory / "agent")
            )
            file = directory / "agent.json"
            file.write_bytes(msgspec.json.encode(settings))
            return await asyncio.to_thread(allocate.in_process, file, seconds)


async def _published(bus: Bus) -> bool:
    await publish_facts(bus, POOLS, NatsCluster.stream_replicas)
    return True
