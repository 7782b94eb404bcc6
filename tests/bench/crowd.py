"""Thousands of nodes: what one attach waits for the allocator while all of them report and attaches come at a steady rate.

Owns the rate. A wait is counted from when the attach was due, so that one late answer does not hide those behind it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import msgspec

from tests.bench.fleet import NAMESPACE, Fleet
from tests.bench.stage import POOLS, Object, node, pod, publish_facts, single

NODES = 5000
ATTACHES_PER_S = 100
_SETTLE_S = 1.0


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    p50_ms: float
    p99_ms: float
    longest_ms: float


async def measure(directory: Path, seconds: float) -> Waits:
    """Raises RuntimeError when an attach is not answered."""
    nodes = tuple(f"node-{number}" for number in range(NODES))
    attaches = int(ATTACHES_PER_S * seconds)
    # 1,009 is a prime: neighbours in time are no neighbours by name
    pods = [(f"pod-{number}", nodes[number * 1009 % NODES]) for number in range(attaches)]
    namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    async with single(directory, nodes) as stage:
        objects = [*POOLS, namespace, *map(node, nodes), *(pod(*one) for one in pods)]
        await publish_facts(stage.bus, objects)
        stage.replicas.start("a1")
        await stage.fleet.attach(stage.fleet.request(nodes[0]))
        async with stage.fleet.reporting():
            await asyncio.sleep(_SETTLE_S)
            waits_ms = await _waits_ms(stage.fleet, pods)
        await stage.cluster.check()
    return Waits(
        p50_ms=statistics.median(waits_ms),
        p99_ms=statistics.quantiles(waits_ms, n=100)[98],
        longest_ms=max(waits_ms),
    )


async def _waits_ms(fleet: Fleet, pods: list[tuple[str, str]]) -> list[float]:
    began_s = time.monotonic()

    async def attach(pod_name: str, node_name: str, due_s: float) -> float:
        await fleet.attach(fleet.request(node_name, pod_name))
        return (time.monotonic() - due_s) * 1e3

    async with asyncio.TaskGroup() as group:
        attaching: list[asyncio.Task[float]] = []
        for number, (pod_name, node_name) in enumerate(pods):
            due_s = began_s + number / ATTACHES_PER_S
            if (early_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            attaching.append(group.create_task(attach(pod_name, node_name, due_s)))
    return [task.result() for task in attaching]
