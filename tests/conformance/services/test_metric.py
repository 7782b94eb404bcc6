"""The series that dashboards and alerts of Spiderpool ask for: there before anything happens, and moving when it does."""

from __future__ import annotations

import itertools
import urllib.request

import pytest

from services.standalone.system import ServiceEntry
from tests.conformance.case import case
from tests.conformance.objects import NODES, SHOP, Json, pod, pool
from tests.conformance.series import AGENT, COLLECTOR, CONTROLLER, FAILURES, scraped
from tests.conformance.services.process import replicas, service
from tests.conformance.services.test_ippool import FOUR, subnet
from tests.conformance.world import World, until

IPPOOL = {"ipv4": ["ours"]}


def series(world: World, name: str, node: str = "") -> dict[str, float]:
    """The sum of each series over its labels, as a scrape finds it."""
    return _scraped([service(world, name, node)])


def collected(world: World) -> float:
    """Addresses that were collected, by whichever replica."""
    return _scraped(replicas(world, "allocator"))["spiderpool_ip_gc_counts_total"]


def _scraped(services: list[ServiceEntry]) -> dict[str, float]:
    return scraped(_text(f"http://{one.http}/metrics") for one in services)


def _text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def moved(before: dict[str, float], after: dict[str, float]) -> set[str]:
    """The counters of attaches and releases that are others than before."""
    return {name for name in AGENT if name.endswith("_counts_total") and after[name] != before.get(name, 0.0)}


@case("K00001")
def test_attaches_and_releases_are_counted(world: World) -> None:
    world.apply(pool("ours", "172.20.1.0/24", ["172.20.1.10-172.20.1.19"]))
    world.end(world.start(pod("first", SHOP, ippool=IPPOOL)))
    world.end(world.start(pod("first", SHOP, node=NODES[1], ippool=IPPOOL)))
    for node in NODES:
        assert not set(AGENT) - set(series(world, "agent", node)), node
    before, other = (series(world, "agent", node) for node in NODES)
    for running in [world.start(pod(f"web-{n}", SHOP, ippool=IPPOOL)) for n in range(3)]:
        world.end(running)
    after = series(world, "agent", NODES[0])
    for verb in FAILURES:
        prefix = f"spiderpool_ipam_{verb}"
        for name in ("counts_total", "duration_seconds_count", "limit_duration_seconds_count"):
            assert after[f"{prefix}_{name}"] == before[f"{prefix}_{name}"] + 3
        assert after[f"{prefix}_duration_seconds_sum"] > before[f"{prefix}_duration_seconds_sum"]
        assert 0 < after[f"{prefix}_latest_duration_seconds"] <= after[f"{prefix}_max_duration_seconds"]
        assert after[f"{prefix}_min_duration_seconds"] <= after[f"{prefix}_average_duration_seconds"]
    assert (
        series(world, "agent", NODES[1])["spiderpool_ipam_allocation_counts_total"]
        == other["spiderpool_ipam_allocation_counts_total"]
    )


@case("K00001")
@pytest.mark.parametrize(
    ("annotation", "counted"),
    [
        ({"ipv4": ["tiny"]}, "ip_used_out"),
        ({"ipv4": ["off"]}, "no_available_pool"),
        ({"ipv4": ["no-such-pool"]}, "no_available_pool"),
        ({"ipv6": ["ours"]}, "no_available_pool"),
        ("{", "retries_exhausted"),
    ],
    ids=str,
)
def test_failures_are_counted_by_their_class(world: World, annotation: Json | str, counted: str) -> None:
    world.apply(
        pool("ours", "172.20.1.0/24", ["172.20.1.10-172.20.1.19"]),
        pool("tiny", "172.20.2.0/24", []),
        pool("off", "172.20.3.0/24", ["172.20.3.10"], disable=True),
    )
    world.apply(pod("web", SHOP))
    before = series(world, "agent", NODES[0])
    world.never_starts(pod("web", SHOP, ippool=annotation))
    until(lambda: series(world, "agent", NODES[0])["spiderpool_ipam_allocation_failure_counts_total"]
          > before.get("spiderpool_ipam_allocation_failure_counts_total", 0.0), "a failure is counted")  # fmt: skip
    found = moved(before, series(world, "agent", NODES[0]))
    prefix = "spiderpool_ipam_allocation"
    assert {name for name in found if "allocation" in name} == {
        f"{prefix}_counts_total",
        f"{prefix}_failure_counts_total",
        f"{prefix}_err_{counted}_counts_total",
    }


@case("K00001")
def test_pools_and_subnets_are_counted(world: World) -> None:
    found = series(world, "controller")
    assert not set(CONTROLLER) - set(found)
    assert not set(COLLECTOR) - set(series(world, "allocator"))
    for pools, subnets in itertools.product((0, 3), (0, 1)):
        extra = [pool(f"ours-{n}", FOUR.format(0) + "/24", [FOUR.format(n + 10)]) for n in range(pools)]
        objects = [*extra, *([subnet(FOUR)] if subnets else [])]
        world.apply(*objects)

        def counted(pools: int = pools, subnets: int = subnets) -> bool:
            now = series(world, "controller")
            return [now[name] - found[name] for name in CONTROLLER] == [pools, subnets]

        until(counted, f"{pools} pools and {subnets} subnets more are counted")
        world.remove(*objects)
