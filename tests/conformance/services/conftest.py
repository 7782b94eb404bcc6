"""One system for all cases; after each case nothing of it is left, neither object nor lease."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.standalone.demo_place import Place
from tests.conformance.objects import NODES, SHOP, namespace, owned, pod, pool
from tests.conformance.world import World

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
LOST = "lost"


@pytest.fixture(scope="session")
def whole() -> Iterator[World]:
    place = Place(Path(f"/var/lib/orbweaver-conformance-{_WORKER}"), f"orbcf-{_WORKER}-")
    with World.up(place) as world:
        _lose(world)
        yield world


def _lose(world: World) -> None:
    """Pods of every kind of owner end, in namespace `lost` and from pool `lost`, and nobody calls us. Here, because it takes minutes until
    that is no DEL which is late: one case at the end looks."""
    world.apply(
        namespace(LOST), pool(LOST, "172.20.9.0/24", ["172.20.9.10-172.20.9.29"], namespaceName=[LOST])
    )
    world.keep(LOST)
    kinds = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")
    owners = [owned(kind, kind.lower(), LOST, replicas=1) for kind in kinds]
    world.apply(*owners)
    pods = [pod("alone", LOST, node=NODES[1], ippool={"ipv4": [LOST]})]
    pods += [pod(f"{one['metadata']['name']}-0", LOST, owner=one, ippool={"ipv4": [LOST]}) for one in owners]
    for one in pods:
        world.start(one)
    assert len(world.records(LOST)) == len(pods)
    for running in tuple(world.running):
        world.remove(running.manifest)
        world.forget(running)
    world.remove(*owners)


@pytest.fixture
def world(whole: World) -> Iterator[World]:
    """With namespace `shop`."""
    whole.apply(namespace(SHOP))
    yield whole
    whole.clear()
