"""How long nobody is answered after the leading allocator was killed: `kill -9` to the next answer, two replicas, nodes that report."""

from __future__ import annotations

import time
from pathlib import Path

from tests.bench.stage import POOLS, node, publish_facts, single

_NODES = tuple(f"n{number}" for number in range(1, 11))


async def measure(directory: Path, rounds: int) -> list[float]:
    """Seconds of each round, in the order of their size."""
    took_s: list[float] = []
    async with single(directory, _NODES) as stage:
        await publish_facts(stage.bus, [*POOLS, *map(node, _NODES)])
        replicas, cluster, fleet = stage.replicas, stage.cluster, stage.fleet
        replicas.start("a1", "a2")
        async with fleet.reporting():
            for number in range(rounds):
                for name in _NODES:
                    await fleet.attach(fleet.request(name))
                leader = await cluster.leader()
                await cluster.ready("a2" if leader == "a1" else "a1")
                start_s = time.monotonic()
                replicas.kill(leader)
                await fleet.attach(fleet.request(_NODES[number % len(_NODES)]), answer_s=0.3)
                took_s.append(time.monotonic() - start_s)
                replicas.start(leader)
                await cluster.ready(leader)
        await cluster.check()
    return sorted(took_s)
