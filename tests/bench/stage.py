"""Allocators as real processes on real nats-servers, with a fleet of agents and a controller's facts: the system without kernels.

Owns their life and the objects they know. Must not know what is measured.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shared import subjects
from shared.bus import Bus
from shared.contracts.codec import encode
from shared.contracts.facts import FactsSynced, ObjectFact
from tests.bench.fleet import NAMESPACE, Fleet
from tests.integration.allocator.conftest import Cluster, Replicas
from tests.support.nats import NatsServer
from tests.support.nats_cluster import NatsCluster
from tests.support.pure_allocator import GROUP

Object = Mapping[str, Any]
_ACKED_EVERY = 1000
"""What is published without an acknowledgement may be dropped when the server has some 10,000 messages to store."""


def pool(name: str, subnet: str, *ips: str, default: bool = False) -> Object:
    return {
        "apiVersion": GROUP,
        "kind": "SpiderIPPool",
        "metadata": {"name": name},
        "spec": {"subnet": subnet, "ips": list(ips), "default": default},
    }


def node(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def pod(name: str, node_name: str) -> Object:
    """Of NAMESPACE."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"{name}-uid"},
        "spec": {"nodeName": node_name, "containers": [{"name": "main", "image": "example.com/main:1"}]},
        "status": {"phase": "Running"},
    }


POOLS = (
    pool("bench-v4", "10.0.0.0/8", "10.0.0.10-10.255.255.250", default=True),
    pool("bench-v6", "fd00:be::/48", "fd00:be::10-fd00:be:0:ffff:ffff:ffff:ffff:fff0", default=True),
)


async def publish_facts(bus: Bus, objects: Iterable[Object], stream_replicas: int = 1) -> None:
    """A full list, as the controller publishes it at its start."""
    await bus.ensure_stream(subjects.FACTS, stream_replicas)
    version = 0
    for version, one in enumerate(objects, 1):
        meta = one["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        fact = ObjectFact(
            kind=one["kind"],
            api_version=one["apiVersion"],
            namespace=namespace,
            name=name,
            uid=meta.get("uid", ""),
            version=version,
            object=json.dumps(one).encode(),
        )
        subject = subjects.facts(one["kind"], namespace, name)
        if version % _ACKED_EVERY:
            await bus.publish(subject, encode(fact))
        else:
            await bus.append(subject, encode(fact))
    synced = FactsSynced(incarnation="bench", version=version + 1, objects=version)
    await bus.append(subjects.FACTS_SYNCED, encode(synced))


class Stage:
    """`cluster` is what a tool sees, `fleet` the nodes."""

    def __init__(self, server: NatsServer | NatsCluster, replicas: Replicas, bus: Bus, fleet: Fleet) -> None:
        self.server = server
        self.replicas = replicas
        self.bus = bus
        self.cluster = Cluster(bus, server)
        self.fleet = fleet


@asynccontextmanager
async def stage(
    server: NatsServer | NatsCluster, directory: Path, nodes: Iterable[str]
) -> AsyncGenerator[Stage]:
    """With a server that runs; allocators are started by whoever measures."""
    replicas = Replicas(server, directory)
    bus = await Bus.connect(server.settings(), "bench")
    try:
        fleet = Fleet(bus, tuple(nodes))
        await fleet.listen()
        yield Stage(server, replicas, bus, fleet)
    finally:
        replicas.kill()
        await bus.close()


@asynccontextmanager
async def single(directory: Path, nodes: Iterable[str]) -> AsyncGenerator[Stage]:
    """On one server of its own, below `directory`."""
    server = NatsServer(directory)
    server.start()
    try:
        async with stage(server, directory, nodes) as made:
            yield made
    finally:
        server.stop(kill=True)


def rss_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (line,) = [line for line in rollup.splitlines() if line.startswith("Rss:")]
    return int(line.split()[1]) * 1024
