"""What tools are told: pages of leases, and what an attach would be given."""

from __future__ import annotations

import pytest

from services.allocator.adopt import decide_adopt
from services.allocator.view import explain, leases_page
from shared.contracts.adopt import AdoptedAddress
from shared.contracts.codec import encode
from shared.contracts.lease import LeaseItem, LeasesAllocated
from shared.contracts.query import Explain, Explained, LeasesPage, QueryLeases
from tests.support.pure_allocator import SECOND_NS, World, network, pod, pool

POOL = pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.30", gateway="10.1.0.1", default=True)
SIX = pool("v6", "fd00::/64", "fd00::10-fd00::30", default=True)


@pytest.fixture
def world() -> World:
    world = World(POOL, SIX, *(pod(f"shop/w{i}", node=f"n{i % 2}") for i in range(5)))
    for i in range(5):
        world.add(f"shop/w{i}", node=f"n{i % 2}")
    world.add(container="plain", ipv4=["v4"])
    return world


def page(world: World, **query: object) -> LeasesPage:
    return leases_page(world.state, world.facts, QueryLeases(**query))  # type: ignore[arg-type]


def test_leases_come_in_the_order_of_family_and_address(world: World) -> None:
    found = [lease.address for lease in page(world).leases]
    assert found == [f"10.1.0.{10 + i}" for i in range(6)] + [f"fd00::{10 + i}" for i in range(5)]
    assert page(world).mark == world.state.mark


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"pool": "v6"}, ["fd00::10", "fd00::11", "fd00::12", "fd00::13", "fd00::14"]),
        ({"node": "n1", "pool": "v4"}, ["10.1.0.11", "10.1.0.13", "10.1.0.15"]),
        ({"pod_namespace": "shop", "pod_name": "w3"}, ["10.1.0.13", "fd00::13"]),
        ({"pod_name": "w3", "pool": "v4"}, ["10.1.0.13"]),
        ({"pod_namespace": "other"}, []),
        ({"container_id": "plain"}, ["10.1.0.15"]),
        ({"address": "10.1.0.12"}, ["10.1.0.12"]),
        ({"address": "fd00:0::12"}, ["fd00::12"]),
        ({"address": "10.1.0.12", "pool": "v6"}, []),
        ({"address": "10.1.0.99"}, []),
        ({"address": "10.1.0.12", "node": "n1"}, []),
    ],
)
def test_every_field_of_a_query_narrows(world: World, query: dict[str, str], expected: list[str]) -> None:
    assert [lease.address for lease in page(world, **query).leases] == expected


def test_pages_follow_each_other_without_gap_or_repeat(world: World) -> None:
    whole = [lease.address for lease in page(world).leases]
    for limit in (1, 3, 10, 11, 12):
        found: list[str] = []
        after = ""
        while True:
            part = page(world, limit=limit, after=after)
            found += [lease.address for lease in part.leases]
            after = part.next_after
            if not after:
                break
        assert found == whole, limit


def test_a_page_stays_below_what_the_bus_takes() -> None:
    long = "n" * 250
    world = World(pool(long, "10.0.0.0/8", "10.0.0.0-10.255.255.255"))
    for i in range(1500):
        world.state.evolve(_allocated(i, long))
    first = page(world, limit=10**9)
    assert len(encode(first)) < 1024 * 1024 and first.next_after
    total, after = 0, ""
    while True:
        part = page(world, limit=10**9, after=after)
        total, after = total + len(part.leases), part.next_after
        if not after:
            break
    assert total == 1500


def _allocated(i: int, long: str) -> LeasesAllocated:
    item = LeaseItem(ifname="eth0", address=f"10.0.{i // 250}.{i % 250}", pool=long, prefix_len=8)
    return LeasesAllocated(
        owner=f"{long}{i}",
        node=long,
        container_id=f"{long}{i}",
        attempt="a",
        generation=i + 1,
        items=(item,),
        attached=("eth0",),
        pod_namespace="n" * 63,
        pod_name=long,
    )


def test_a_row_tells_who_holds_and_how(world: World) -> None:
    (row,) = page(world, address="10.1.0.10").leases
    assert (row.pool, row.interface, row.pod_namespace, row.pod_name, row.pod_uid) == (
        "v4",
        "eth0",
        "shop",
        "w0",
        "uid-w0",
    )
    assert (row.node, row.container_id, row.state, row.prefix_len, row.gateway) == (
        "n0",
        "sandbox-w0",
        "held",
        24,
        "10.1.0.1",
    )
    (row,) = page(world, container_id="plain").leases
    assert (row.pod_name, row.pod_uid) == ("", "")


def test_detached_ahead_and_resting_are_told_apart() -> None:
    marks = {"ipam.spidernet.io/ippools": [{"interface": f"net{i}", "ipv4": ["v4"]} for i in range(2)]}
    world = World(POOL, SIX, pod("shop/a", annotations=marks))
    world.add("shop/a", "net0")
    assert [lease.state for lease in page(world).leases] == ["held", "ahead"]
    world.release("sandbox-a", "net0")
    assert [lease.state for lease in page(world).leases] == ["detached", "ahead"]
    world.add(container="c", ipv6=["v6"])
    world.release("c", cooldown_s=60.0)
    (row,) = page(world, address="fd00:0:0::10").leases
    assert (row.address, row.state, row.pool) == ("fd00::10", "resting", "v6")
    assert page(world, address="fd00::10", pool="v4").leases == ()
    assert len(page(world).leases) == 2, "resting addresses are told only where they are asked for"
    world.now_ns += 60 * SECOND_NS
    world.state.wake(world.now_ns)
    assert page(world, address="fd00::10").leases == ()


def test_what_another_ipam_gave_is_told_as_such_until_we_attach_it() -> None:
    world = World(POOL, pod("shop/a", uid="u1"))
    record = AdoptedAddress(
        address="10.1.0.12/24", pod_namespace="shop", pod_name="a", pod_uid="u1", ifname="eth0", node="n1"
    )
    world.commit(decide_adopt(world.state, world.facts, (record,)).events)
    assert [lease.state for lease in page(world).leases] == ["adopted"]
    world.add("shop/a", uid="u1")
    assert [lease.state for lease in page(world).leases] == ["held"]


def explained(world: World, name: str = "shop/a", **query: object) -> Explained:
    ns, _, short = name.partition("/")
    return explain(
        world.state,
        world.facts,
        Explain(pod_namespace=ns, pod_name=short, **query),  # type: ignore[arg-type]
    )


def test_explain_names_the_rule_the_pools_and_the_reason_of_each() -> None:
    world = World(
        pool("full", "10.3.0.0/24", "10.3.0.10"),
        pool("off", "10.4.0.0/24", "10.4.0.10", disable=True),
        POOL,
        pod("shop/a"),
        pod("shop/b"),
    )
    world.add("shop/b", ipv4=["full"])
    answer = explained(world, ipv4=("off", "full", "v4"))
    assert answer.source == "CNI configuration"
    assert [(verdict.pool, verdict.chosen, verdict.reason) for verdict in answer.verdicts] == [
        ("off", False, "is disabled"),
        ("full", False, "all IP addresses used out"),
        ("v4", True, "next address comes from here"),
    ]
    assert answer.outcome == "shop/a would be given 10.1.0.10 of v4 on eth0"
    assert answer.error == ""
    before = world.canonical()
    assert explained(world) and world.canonical() == before, "explaining decides nothing"


@pytest.mark.parametrize("ipv4", [("full",), ("full", "v4"), ("none",), ("off",), ()])
def test_explain_says_what_an_attach_then_gets(ipv4: tuple[str, ...]) -> None:
    world = World(
        pool("full", "10.3.0.0/24", "10.3.0.10"),
        pool("off", "10.4.0.0/24", "10.4.0.10", disable=True),
        POOL,
        pod("shop/a"),
        pod("shop/b"),
    )
    world.add("shop/b", ipv4=["full"])
    answer = explained(world, ipv4=ipv4)
    if answer.error:
        assert world.refused("shop/a", ipv4=ipv4).error == answer.error
    else:
        (grant,) = world.add("shop/a", ipv4=ipv4)
        assert grant.address.partition("/")[0] in answer.outcome


def test_explain_knows_networks_annotations_resting_addresses_and_dead_pods() -> None:
    world = World(
        pool("one", "10.3.0.0/24", "10.3.0.10"),
        network("kube-system/net", ["one"]),
        pod("shop/a"),
        pod("shop/routes", annotations={"ipam.spidernet.io/routes": "["}),
        pod("shop/dead", terminating=True),
    )
    assert "10.3.0.10 of one" in explained(world, network="kube-system/net").outcome
    assert explained(world, network="kube-system/none").error == "network_unknown"
    assert explained(world, "shop/routes", ipv4=("one",)).error == "annotation_invalid"
    assert explained(world, "shop/dead", ipv4=("one",)).error == "pod_dead"
    assert explained(world, "shop/none", ipv4=("one",)).error == "pod_unknown"
    world.add(container="c", ipv4=["one"])
    world.release("c", cooldown_s=60.0)
    assert "10.3.0.10 of one" in explained(world, ipv4=("one",)).outcome


def test_explain_of_a_pod_that_holds_names_what_it_holds() -> None:
    world = World(POOL, pod("shop/a", uid="one"))
    world.add("shop/a", uid="one")
    answer = explained(world)
    assert answer.outcome == "shop/a holds 10.1.0.10 on eth0: an attach gives the same again"
    assert [lease.address for lease in answer.leases] == ["10.1.0.10"]
    world.apply(pod("shop/a", uid="two"))
    assert "would be given 10.1.0.11" in explained(world).outcome, "the lease is of the pod before"


def test_explain_covers_all_networks_of_the_pod() -> None:
    world = World(
        pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.11", default=True),
        pool("rail", "10.9.0.0/24", "10.9.0.10"),
        network("kube-system/rail", ipv4=["rail"]),
        pod("shop/a", annotations={"k8s.v1.cni.cncf.io/networks": "kube-system/rail"}),
        pod("shop/b", annotations={"k8s.v1.cni.cncf.io/networks": "kube-system/other-plugin"}),
    )
    answer = explained(world, further_networks=True)
    assert answer.outcome == "shop/a would be given 10.1.0.10 of v4 on eth0, 10.9.0.10 of rail on net1"
    assert [(v.ifname, v.pool) for v in answer.verdicts if v.chosen] == [("eth0", "v4"), ("net1", "rail")]
    assert "net1" not in explained(world).outcome
    world.add("shop/a", "eth0", further=True)
    assert explained(world, further_networks=True).outcome == (
        "shop/a holds 10.1.0.10 on eth0, 10.9.0.10 on net1: an attach gives the same again"
    )
    other = explained(world, "shop/b", further_networks=True)
    assert other.error == "" and "10.1.0.11 of v4 on eth0; of its further networks" in other.outcome
