"""Addresses come back: by DEL, by collection, and while parts of the system restart."""

from __future__ import annotations

import pytest

from tests.conformance.case import case
from tests.conformance.objects import (
    NODES,
    SHOP,
    Json,
    again,
    namespace,
    node,
    owned,
    pod,
    settings,
    stateful_set,
)
from tests.conformance.services.conftest import LOST
from tests.conformance.services.numbered import net, net6
from tests.conformance.services.process import restart
from tests.conformance.services.test_metric import collected
from tests.conformance.world import Running, World, until

BOTH = {"ipv4": ["p1"], "ipv6": ["q1"]}
POOLS = ("p1", "q1")
_COLLECTED_S = 90.0
_LOST_S = 240.0


def ours(count: int = 10) -> tuple[Json, Json]:
    """Pools of both families."""
    last = 9 + count
    return (
        net(1, ips=[f"172.20.1.10-172.20.1.{last}"]),
        net6(1, ips=[f"fd00:20:1::10-fd00:20:1::{last}"]),
    )


@case("G00001")
def test_a_namespace_deleted(world: World) -> None:
    """With pods of every kind of owner on both nodes; those of another namespace stay."""
    world.apply(namespace("gone"), *ours())
    kinds = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")
    owners = [owned(kind, kind.lower(), "gone", replicas=1) for kind in kinds]
    world.apply(*owners)
    pods = [
        pod(f"{owner['metadata']['name']}-0", "gone", node=NODES[n % 2], owner=owner, ippool=BOTH)
        for n, owner in enumerate(owners)
    ]
    running = [world.start(one) for one in (*pods, pod("alone", "gone", ippool=BOTH))]
    stays = world.start(pod("stays", SHOP, ippool=BOTH))
    world.remove(*(one.manifest for one in running), *owners, namespace("gone"))
    for one in running:
        world.end(one, with_object=False)
    world.sane(*POOLS)
    assert list(world.records("p1")) == [one for one in stays.all_addresses() if "." in one]
    until(lambda: world.endpoints("gone") == {}, "no endpoint is left")


@case("G00002")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("kind", ["", "StatefulSet"])
def test_one_name_in_three_namespaces(world: World, kind: str, order: tuple[int, ...]) -> None:
    names = (SHOP, "market", "shop-2")
    world.apply(*map(namespace, names[1:]), *ours())
    running: list[Running] = []
    owners: list[Json] = []
    for name in names:
        owner = stateful_set("web", name, replicas=1) if kind else None
        owners += [owner] if owner else []
        world.apply(*([owner] if owner else []))
        running.append(world.start(pod("web-0", name, owner=owner, ippool=BOTH)))
    for left, number in enumerate(order, start=1):
        if kind:
            world.remove(owners[number])
        world.end(running[number])
        until(lambda left=left: len(world.records("p1")) == 3 - left, "one record less")
        world.sane(*POOLS)


@case("G00006")
@pytest.mark.parametrize("families", [BOTH, {"ipv4": ["p1"]}], ids=str)
@pytest.mark.parametrize(
    ("phase", "policy"), [("Succeeded", "Never"), ("Succeeded", "OnFailure"), ("Failed", "Never")]
)
@pytest.mark.parametrize("kind", ["Job", "CronJob"])
def test_a_job_that_ended(world: World, kind: str, phase: str, policy: str, families: Json) -> None:
    ended(world, kind, phase, policy, families)


@case("G00006")
@case("K00001")
def test_a_job_that_may_be_tried_again_is_collected(world: World) -> None:
    """As it seems to live when its DEL comes; and that is counted."""
    counted = collected(world)
    ended(world, "Job", "Failed", "OnFailure", BOTH)
    assert collected(world) == counted + len(BOTH)


def ended(world: World, kind: str, phase: str, policy: str, families: Json) -> None:
    """A pod ends and its object stays; another of its owner runs on."""
    world.apply(*ours())
    owner = owned(kind, "sum", SHOP)
    running, stays = (world.start(pod(f"sum-{x}", SHOP, owner=owner, ippool=families)) for x in "xy")
    manifest = running.manifest | {"status": {"phase": phase}}
    manifest["spec"] = manifest["spec"] | {"restartPolicy": policy}
    world.apply(manifest)
    world.end(running, with_object=False)
    kept = {one for one in stays.all_addresses() if "." in one}
    until(lambda: set(world.records("p1")) == kept, "given back", _COLLECTED_S)
    world.sane(*POOLS)


@case("G00009")
@pytest.mark.parametrize(
    ("switches", "is_released"),
    [
        ({}, True),
        ({"statelessPod": {"zombieOnReadyNode": False}}, True),
        ({"statelessPod": {"zombieOnNotReadyNode": False}}, False),
        ({"enabled": False}, False),
    ],
    ids=str,
)
def test_pods_of_a_node_that_is_not_ready(world: World, switches: Json, is_released: bool) -> None:
    """They are being deleted, past their grace, and no DEL came; those of a StatefulSet are never released for that."""
    owner = stateful_set("db", SHOP, replicas=1)
    world.apply(*ours(), owner, node(NODES[1], "zone-2", ready=False), settings({"gc": switches}))
    pods = [
        pod("web", SHOP, node=NODES[1], ippool=BOTH),
        pod("db-0", SHOP, node=NODES[1], owner=owner, ippool=BOTH),
    ]
    web, db = [world.start(one) for one in pods]
    for one in (web, db):
        one.manifest["metadata"] |= {
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 0,
            "finalizers": ["example.com/kept"],
        }
        one.manifest["status"] = {"phase": "Running", "podIPs": [{"ip": "172.20.1.10"}]}
    world.apply(web.manifest, db.manifest)
    kept = {(f"{SHOP}/db-0", one) for one in db.all_addresses()}
    kept |= set() if is_released else {(f"{SHOP}/web", one) for one in web.all_addresses()}

    def recorded() -> set[tuple[str, str]]:
        return {(one["pod"], address) for name in POOLS for address, one in world.records(name).items()}

    world.collect()
    if is_released:
        until(lambda: recorded() == kept, "released", _COLLECTED_S)
        world.forget(web)
    world.collect()
    assert recorded() == kept


@case("G00008")
@case("R00001")
@case("R00004")
@pytest.mark.parametrize(
    ("name", "node"), [("agent", NODES[0]), ("controller", ""), ("allocator", ""), ("webhook", "")]
)
def test_parts_restart_while_pods_come_and_go(world: World, name: str, node: str) -> None:
    """Twice; who runs keeps what it has, who went meanwhile is gone."""
    world.apply(*ours())
    stays = world.start(pod("stays", SHOP, ippool=BOTH))
    kept = stays.addresses
    for number in range(2):
        before = [world.start(pod(f"before-{number}-{n}", SHOP, ippool=BOTH)) for n in range(2)]
        world.end(before[0])
        restart(world, name, node)
        world.start(pod(f"after-{number}", SHOP, node=NODES[number], ippool=BOTH))
        world.end(before[1])
        world.sane(*POOLS)
    world.end(stays, with_object=False)
    assert world.sandbox(stays.manifest).addresses == kept
    world.sane(*POOLS)


@case("G00011")
@pytest.mark.parametrize("sizes", [((3, 3), (3, 3)), ((1, 5), (4, 2), (2, 4), (0, 6), (6, 0))])
def test_two_stateful_sets_on_one_pool(world: World, sizes: tuple[tuple[int, int], ...]) -> None:
    """The pool has as many addresses as they have pods at most: none may wait for one that nobody has."""
    world.apply(*ours(6))
    owners = [stateful_set(name, SHOP, replicas=0) for name in ("db", "queue")]
    running: dict[str, Running] = {}
    for wanted in sizes:
        for owner, count in zip(owners, wanted, strict=True):
            owner["spec"]["replicas"] = count
            world.apply(owner)
            name = owner["metadata"]["name"]
            for one in [one for one in running.values() if one.name.startswith(name)][count:][::-1]:
                world.end(running.pop(one.name))
        until(
            lambda: len(world.records("p1")) == len(running),
            "what was scaled down is given back",
            _COLLECTED_S,
        )
        for owner, count in zip(owners, wanted, strict=True):
            for name in [f"{owner['metadata']['name']}-{n}" for n in range(count)]:
                if name not in running:
                    running[name] = world.start(pod(name, SHOP, owner=owner, ippool=BOTH))
        world.sane(*POOLS)
        for name, one in tuple(running.items()):
            kept = one.addresses
            world.end(one)
            running[name] = world.start(again(one.manifest))
            assert running[name].addresses == kept, (wanted, name)
        world.sane(*POOLS)
        told = {name: one["status"]["current"]["uid"] for name, one in world.endpoints(SHOP).items()}
        assert told == {name: one.manifest["metadata"]["uid"] for name, one in running.items()}
    for owner in owners:
        world.remove(owner)
    for one in tuple(running.values()):
        world.end(one)
    until(lambda: world.records("p1") == {}, "both sets are gone", _COLLECTED_S)


@case("G00003")
@case("G00004")
def test_no_del_ever_came(world: World) -> None:
    """Pods whose objects and sandboxes went when the session began: as with a plugin taken away, or no grace at all."""
    until(lambda: world.records(LOST) == {}, "collected", _LOST_S)
    assert world.endpoints(LOST) == {}
