"""The log on three servers, all of which lose their disks at once: the leader's memory and the nodes know."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shared.bus import Bus
from shared.contracts.ipam import Allocated
from tests.integration.allocator.conftest import POOLS, Cluster, Replicas
from tests.integration.loss.test_claims import FakeNode, claim
from tests.support.nats_cluster import NatsCluster


async def _facts(cluster: Cluster) -> bool:
    await cluster.facts(*POOLS)
    return True


async def _allocated(cluster: Cluster, replicas: Replicas) -> Allocated | None:
    replicas.start_again()
    reply = await cluster.ask("fresh", timeout_s=2.0)
    return reply if isinstance(reply, Allocated) else None


async def _all_wiped(servers: NatsCluster, replicas: Replicas, allocators: str) -> None:
    bus = await Bus.connect(servers.settings(), "test")
    try:
        cluster = Cluster(bus, servers)
        await cluster.until(lambda: _facts(cluster))
        replicas.start("a1", "a2")
        node = FakeNode(bus, "n1")
        await node.listen()
        for i in range(20):
            reply = await cluster.attach(f"c{i}", timeout_s=2.0)
            addresses = tuple(grant.address for grant in reply.grants)
            node.claims.append(claim(f"c{i}", addresses, reply.grants[0].generation))
            node.seen = reply.mark
        for name, member in servers.members.items():
            member.stop(kill=True)
            servers.wipe(name)
        if allocators == "forget":
            replicas.kill()
        for member in servers.members.values():
            member.start()
        if allocators == "forget":
            replicas.start("a1", "a2")
        # a cluster without disks elects everything anew
        await cluster.until(lambda: _facts(cluster), within_s=120.0)
        fresh = await cluster.until(lambda: _allocated(cluster, replicas), within_s=120.0)
        assert fresh.mark.incarnation != reply.mark.incarnation
        taken = {address for one in node.claims for address in one.addresses}
        assert not taken & {grant.address for grant in fresh.grants}
        again = await cluster.attach("c3", timeout_s=2.0)
        assert tuple(grant.address for grant in again.grants) == node.claims[3].addresses
        assert node.adopted
    finally:
        await bus.close()


@pytest.mark.parametrize("allocators", ["remember", "forget"])
def test_all_three_are_wiped(tmp_path: Path, allocators: str) -> None:
    with NatsCluster(tmp_path) as servers:
        replicas = Replicas(servers, tmp_path)
        try:
            asyncio.run(_all_wiped(servers, replicas, allocators))
        finally:
            replicas.kill()
