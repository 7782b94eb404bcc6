"""Addresses that nobody gets: reserved, or excluded from their pool."""

from __future__ import annotations

import pytest

from tests.conformance.case import case
from tests.conformance.objects import GROUP, SHOP, Json, pod, pool
from tests.conformance.services.numbered import net, net6
from tests.conformance.world import NotStarted, Refused, World

USED_OUT = "all IP addresses used out"
BOTH = {"ipv4": ["p1"], "ipv6": ["q1"]}


def reserved(name: str, *ips: str, **spec: object) -> Json:
    return {
        "apiVersion": GROUP,
        "kind": "SpiderReservedIP",
        "metadata": {"name": name},
        "spec": {"ips": list(ips)} | spec,
    }


@case("S00001")
@pytest.mark.parametrize(
    ("pools", "ippool", "all_of_it"),
    [
        ([net(1, ips=["172.20.1.10"])], {"ipv4": ["p1"]}, [("172.20.1.10",)]),
        ([net(1)], {"ipv4": ["p1"]}, [("172.20.1.0-172.20.1.14", "172.20.1.15-172.20.3.255")]),
        ([net(1)], {"ipv4": ["p1"]}, [("172.20.1.10-172.20.1.14",), ("172.20.1.15-172.20.1.19", "172.20.9.9")]),
        ([net6(1)], {"ipv6": ["q1"]}, [("FD00:20:1:0::10-fd00:20:1::19",)]),
        ([net(1), net6(1)], BOTH, [("fd00:20:1::10-fd00:20:1::19",)]),
        ([net(1), net6(1)], BOTH, [("172.20.1.10-172.20.1.19",)]),
        ([net(1), net(2)], {"ipv4": ["p1", "p2"]}, [("172.20.1.10-172.20.2.19",)]),
    ],
)  # fmt: skip
def test_a_reserved_address(
    world: World, pools: list[Json], ippool: Json, all_of_it: list[tuple[str, ...]]
) -> None:
    """Once the reservation is gone the pod runs."""
    objects = [reserved(f"printers-{n}", *ips) for n, ips in enumerate(all_of_it)]
    world.apply(*pools, *objects)
    wanted = pod("web", SHOP, ippool=ippool)
    for attempt in (world.start, world.sandbox):
        with pytest.raises(NotStarted, match=USED_OUT):
            attempt(wanted)
    world.remove(objects[0])
    assert len(world.sandbox(wanted).all_addresses()) == len(ippool)
    world.sane(*(one["metadata"]["name"] for one in pools))


@case("S00001")
def test_a_reservation_of_an_address_in_use(world: World) -> None:
    """Who has it keeps it, also in another sandbox; then nobody has it. Those beside it are given."""
    world.apply(net(1))
    first = world.start(pod("web-0", SHOP, ippool={"ipv4": ["p1"]}))
    assert first.all_addresses() == ["172.20.1.10"]
    world.apply(reserved("printer", "172.20.1.10", "172.20.1.12"))
    others = [world.start(pod(f"web-{n}", SHOP, ippool={"ipv4": ["p1"]})) for n in (1, 2)]
    assert [one.all_addresses() for one in others] == [["172.20.1.11"], ["172.20.1.13"]]
    world.end(first, with_object=False)
    again = world.sandbox(first.manifest)
    assert again.all_addresses() == ["172.20.1.10"]
    world.sane("p1")
    world.end(again)
    assert world.start(pod("web-3", SHOP, ippool={"ipv4": ["p1"]})).all_addresses() == ["172.20.1.14"]
    world.apply(reserved("printer", "172.20.1.12"))
    assert world.start(pod("web-4", SHOP, ippool={"ipv4": ["p1"]})).all_addresses() == ["172.20.1.10"]
    world.sane("p1")


@case("S00002")
@pytest.mark.parametrize(
    ("excluded", "given"),
    [
        (["172.20.1.10"], ["172.20.1.11", "172.20.1.12", "172.20.1.13"]),
        (["172.20.1.11", "172.20.1.13"], ["172.20.1.10", "172.20.1.12"]),
        (["172.20.1.12-172.20.1.200"], ["172.20.1.10", "172.20.1.11"]),
        (["172.20.1.13", "172.20.1.10-172.20.1.11", "172.20.1.11-172.20.1.12"], []),
        (["172.20.1.0-172.20.1.255"], []),
        (["172.20.1.99"], [f"172.20.1.{n}" for n in range(10, 14)]),
    ],
)
def test_an_excluded_address(world: World, excluded: list[str], given: list[str]) -> None:
    world.apply(pool("p1", "172.20.1.0/24", ["172.20.1.10-172.20.1.13"], excludeIPs=excluded))
    assert world.pool("p1")["status"]["totalIPCount"] == len(given)
    for number, address in enumerate(given):
        assert world.start(pod(f"web-{number}", SHOP, ippool={"ipv4": ["p1"]})).all_addresses() == [address]
    with pytest.raises(NotStarted, match=USED_OUT):
        world.start(pod("late", SHOP, ippool={"ipv4": ["p1"]}))
    world.sane("p1")


@case("S00003")
@pytest.mark.parametrize("family", [4, 6])
def test_excluding_an_address_in_use(world: World, family: int) -> None:
    """However it is put, and by leaving it out of `ips` too. Once it is free, it may go."""
    first, rest, whole, one = (
        ("172.20.1.10", "172.20.1.11-172.20.1.19", "172.20.1.1-172.20.1.254", "172.20.1.19")
        if family == 4
        else ("fd00:20:1::10", "fd00:20:1::11-fd00:20:1::19", "fd00:20:1::-fd00:20:1::ffff", "fd00:20:1::19")
    )
    make, name = (net, "p1") if family == 4 else (net6, "q1")
    world.apply(make(1))
    running = world.start(pod("web", SHOP, ippool={f"ipv{family}": [name]}))
    assert running.all_addresses() == [first]
    changes: list[Json] = [
        {"excludeIPs": [first]},
        {"excludeIPs": [whole]},
        {"excludeIPs": [one, first]},
        {"ips": [rest]},
        {"ips": []},
    ]
    for change in changes:
        said = f"remove an IP address {first} that is being used by Pod {SHOP}/web"
        with pytest.raises(Refused, match=said):
            world.review(make(1, **change))
    world.review(make(1, excludeIPs=[rest]))
    world.review(make(1, ips=[first]))
    world.end(running)
    world.sane(name)
    world.review(make(1, excludeIPs=[first]))
