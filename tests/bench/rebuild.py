"""The store of the lease log is lost and no allocator remembers: how long until the first new address is given.

All that is left are the nodes, the user's objects, and the mark outside the store. The time is that of everything: servers and
allocator are killed and started again, the controller publishes all objects anew, the nodes tell what they hold.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from tests.bench.fleet import NAMESPACE
from tests.bench.stage import POOLS, Object, Stage, node, pod, publish_facts, single
from tests.support.nats import NatsServer

LEASES = 100_000
NODES = 100
_PODS = LEASES // 2
_IN_FLIGHT = 256
_NEW = "new"


async def measure(directory: Path) -> float:
    """Seconds. Raises RuntimeError when what comes back is not what was there."""
    nodes = tuple(f"node-{number}" for number in range(NODES))
    pods = [(f"pod-{number}", nodes[number % NODES]) for number in range(_PODS)]
    namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    objects = [*POOLS, namespace, *map(node, nodes), *(pod(*one) for one in pods), pod(_NEW, nodes[0])]
    async with single(directory, nodes) as stage:
        await publish_facts(stage.bus, objects)
        stage.replicas.start("a1")
        await _attach_all(stage, pods)
        before = {
            address for claims in stage.fleet.claims.values() for one in claims for address in one.addresses
        }
        async with stage.fleet.reporting():
            start_s = time.monotonic()
            await asyncio.to_thread(_lose, stage)
            await stage.cluster.connected()
            attaching = asyncio.create_task(stage.fleet.attach(stage.fleet.request(nodes[0], _NEW)))
            await publish_facts(stage.bus, objects)
            async with stage.cluster.objects_known():
                reply = await attaching
            took_s = time.monotonic() - start_s
            view = await stage.cluster.until(stage.cluster.view)
    if before & {grant.address for grant in reply.grants}:
        raise RuntimeError(f"an address in use was given anew: {reply}")
    if len(before) != LEASES or view.leases != LEASES + 2 or view.quarantined or view.disagreements:
        raise RuntimeError(f"{len(before)} leases before, after the loss: {view}")
    return took_s


def _lose(stage: Stage) -> None:
    server = stage.server
    assert isinstance(server, NatsServer)
    stage.replicas.kill("a1")
    server.stop(kill=True)
    shutil.rmtree(server.directory / "js")
    server.start()
    stage.replicas.start("a1")


async def _attach_all(stage: Stage, pods: list[tuple[str, str]]) -> None:
    left = iter(pods)

    async def attach_some() -> None:
        for pod_name, node_name in left:
            await stage.fleet.attach(stage.fleet.request(node_name, pod_name))

    async with asyncio.TaskGroup() as group:
        for _ in range(_IN_FLIGHT):
            group.create_task(attach_some())
