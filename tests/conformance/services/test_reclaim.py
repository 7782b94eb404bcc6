"""Addresses come back: by DEL, by collection, and while parts of the system restart."""

from __future__ import annotations

import os
import signal
import urllib.request

import pytest

from services.standalone.demo_netns import LabError
from services.standalone.state import read_system
from services.standalone.system import ServiceEntry
from tests.conformance.case import case
from tests.conformance.objects import NODES, Json, again, namespace, pod, pool, stateful_set
from tests.conformance.services.conftest import LOST, SHOP
from tests.conformance.world import Running, World, until

IPPOOL = {"ipv4": ["ours"]}
_COLLECTED_S = 90.0
_LOST_S = 240.0


def ours(count: int = 10) -> Json:
    return pool("ours", "172.20.1.0/24", [f"172.20.1.10-172.20.1.{9 + count}"])


def service(world: World, name: str, node: str = "") -> ServiceEntry:
    known = read_system(world.system.state)
    assert known is not None
    return next(one for one in known.services if (one.service, one.node) == (name, node))


def restart(world: World, name: str, node: str = "") -> None:
    """Kills one service and waits until the supervisor has another in its place, ready."""
    mark = service(world, name, node).mark
    assert mark is not None
    os.kill(mark.pid, signal.SIGKILL)
    until(lambda: service(world, name, node).mark not in (mark, None), f"{name} runs again")
    until(lambda: ready(world), "all is ready")


def ready(world: World) -> bool:
    try:
        world.system.cli("status")
    except LabError:
        return False
    return True


@case("G00001")
def test_a_namespace_deleted(world: World) -> None:
    world.apply(namespace("gone"), ours())
    running = [world.start(pod(f"web-{n}", "gone", ippool=IPPOOL)) for n in range(3)]
    world.remove(*(one.manifest for one in running), namespace("gone"))
    for one in running:
        world.end(one, with_object=False)
    world.sane("ours")


@case("G00002")
def test_one_name_in_two_namespaces(world: World) -> None:
    world.apply(namespace("market"), ours())
    first = world.start(pod("web", SHOP, ippool=IPPOOL))
    second = world.start(pod("web", "market", ippool=IPPOOL))
    world.end(first)
    until(lambda: len(world.records("ours")) == 1, "one record is left")
    assert list(world.records("ours")) == second.all_addresses()
    world.sane("ours")


@case("G00006")
@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_job_that_ended(world: World, phase: str) -> None:
    world.apply(ours())
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "sum", "namespace": SHOP, "uid": "sum-uid"},
    }
    running = world.start(pod("sum-x", SHOP, owner=job, ippool=IPPOOL))
    world.apply(running.manifest | {"status": {"phase": phase}})
    world.end(running, with_object=False)
    until(lambda: world.records("ours") == {}, "given back", _COLLECTED_S)


@case("G00008")
@case("R00001")
@case("R00004")
def test_parts_restart_while_pods_come_and_go(world: World) -> None:
    world.apply(ours())
    for name, node in (("agent", NODES[0]), ("controller", ""), ("allocator", "")):
        before = world.start(pod(f"before-{name}", SHOP, ippool=IPPOOL))
        restart(world, name, node)
        world.start(pod(f"after-{name}", SHOP, ippool=IPPOOL))
        world.end(before)
    world.sane("ours")


@case("G00011")
def test_two_stateful_sets_on_one_pool(world: World) -> None:
    world.apply(ours(6))
    for round_number in range(2):
        running: list[Running] = []
        for name in ("db", "queue"):
            owner = stateful_set(name, SHOP, replicas=3)
            world.apply(owner)
            running += [world.start(pod(f"{name}-{n}", SHOP, owner=owner, ippool=IPPOOL)) for n in range(3)]
        world.sane("ours")
        kept = {one.name: one.all_addresses() for one in running}
        for one in tuple(running):
            world.end(one)
            other = world.start(again(one.manifest))
            assert other.all_addresses() == kept[one.name], round_number
            world.end(other)
        for name in ("db", "queue"):
            world.remove(stateful_set(name, SHOP, replicas=3))
        until(lambda: world.records("ours") == {}, "both sets are gone", _COLLECTED_S)


@case("K00001")
def test_metrics(world: World) -> None:
    def series(name: str, node: str = "") -> dict[str, float]:
        with urllib.request.urlopen(
            f"http://{service(world, name, node).http}/metrics", timeout=10
        ) as answer:
            lines = answer.read().decode().splitlines()
        values: dict[str, float] = {}
        for line in lines:
            if not line.startswith("#"):
                labelled, _, value = line.rpartition(" ")
                series_name = labelled.partition("{")[0]
                values[series_name] = values.get(series_name, 0.0) + float(value)
        return values

    pools = series("controller")["spiderpool_total_ippool_counts"]
    world.apply(ours())
    before = series("agent", NODES[0])
    world.end(world.start(pod("web", SHOP, ippool=IPPOOL)))
    after = series("agent", NODES[0])
    for name in ("spiderpool_ipam_allocation_counts_total", "spiderpool_ipam_release_counts_total"):
        assert after[name] == before.get(name, 0.0) + 1
    assert after["spiderpool_ipam_allocation_duration_seconds_count"] > before.get(
        "spiderpool_ipam_allocation_duration_seconds_count", 0.0
    )
    until(
        lambda: series("controller")["spiderpool_total_ippool_counts"] == pools + 1,
        "the controller counts the pool",
    )


@case("G00003")
@case("G00004")
def test_no_del_ever_came(world: World) -> None:
    """Pods whose objects and sandboxes went when the session began: as with a plugin taken away, or no grace at all."""
    until(lambda: world.records(LOST) == {}, "collected", _LOST_S)
