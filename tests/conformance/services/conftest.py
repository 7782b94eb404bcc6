"""One system for all cases; after each case nothing of it is left, neither object nor lease."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.standalone.demo_place import Place
from tests.conformance.objects import Json, namespace, pod, pool, stateful_set
from tests.conformance.world import World

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
SHOP = "shop"
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
    owners: list[Json] = [
        {"apiVersion": group, "kind": kind, "metadata": {"name": kind.lower(), "uid": f"{kind}-lost"}}
        for group, kind in (
            ("apps/v1", "ReplicaSet"),
            ("apps/v1", "DaemonSet"),
            ("batch/v1", "Job"),
        )
    ]
    database = stateful_set("db", LOST, replicas=1)
    world.apply(database)
    names = [("alone", None), ("db-0", database), *((f"{one['metadata']['name']}-x", one) for one in owners)]
    for name, owner in names:
        world.start(pod(name, LOST, owner=owner, ippool={"ipv4": [LOST]}))
    assert len(world.records(LOST)) == len(names)
    for running in tuple(world.running):
        world.remove(running.manifest)
        world.forget(running)
    world.remove(database)


@pytest.fixture
def world(whole: World) -> Iterator[World]:
    """With namespace `shop`."""
    whole.apply(namespace(SHOP))
    yield whole
    whole.clear()
