"""Which addresses a pool gives: the conformance rows E00001–E00008, D00004, D00017, S00001, S00002."""

from __future__ import annotations

import pytest

from tests.support.pure_allocator import World, addresses, network, pod, pool, reserved, settings


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ({"enableIPv6": False}, ["10.1.0.10"]),
        ({"enableIPv4": False}, ["fd00::10"]),
        ({}, ["10.1.0.10", "fd00::10"]),
    ],
)
@pytest.mark.parametrize(
    "owner",
    [
        pytest.param("", id="e00001"),
        pytest.param("ReplicaSet", id="e00002"),
        pytest.param("DaemonSet", id="e00004"),
        pytest.param("Job", id="e00005"),
        pytest.param("ReplicaSet", id="e00006"),
    ],
)
def test_an_address_of_each_enabled_family_until_the_pod_is_gone(
    owner: str, on: dict[str, object], expected: list[str]
) -> None:
    world = World(
        pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.20", default=True),
        pool("v6", "fd00::/64", "fd00::10-fd00::20", default=True),
        settings(**on),
        pod("shop/web", owner=owner),
    )
    assert addresses(world.add("shop/web")) == expected
    world.release("sandbox-web")
    assert world.state.lease_count() == len(expected), "a pod that lives keeps its addresses"
    world.delete_pod("shop/web")
    assert world.state.lease_count() == 0


def test_e00007_very_long_annotations_and_labels() -> None:
    world = World(
        pool("v4", "10.1.0.0/24", "10.1.0.10", default=True),
        pod(
            "shop/web",
            labels={f"k{i}": "v" * 63 for i in range(500)},
            annotations={f"a.example/{i}": "x" * 10_000 for i in range(25)},
        ),
    )
    assert addresses(world.add("shop/web")) == ["10.1.0.10"]


def test_e00008_one_usable_address_and_two_pods() -> None:
    world = World(
        pool(
            "v4",
            "10.1.0.0/24",
            "10.1.0.10-10.1.0.20",
            excludeIPs=["10.1.0.10-10.1.0.14", "10.1.0.16-10.1.0.20"],
        ),
        pod("shop/a"),
        pod("shop/b"),
    )
    assert addresses(world.add("shop/a", ipv4=["v4"])) == ["10.1.0.15"]
    refusal = world.refused("shop/b", ipv4=["v4"])
    assert refusal.error == "pool_exhausted"
    assert "all IP addresses used out" in refusal.message
    world.delete_pod("shop/a")
    world.release("sandbox-a")
    assert addresses(world.add("shop/b", ipv4=["v4"])) == ["10.1.0.15"]


def test_s00001_a_reserved_address_is_never_given_until_the_reservation_goes() -> None:
    world = World(
        pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.12"),
        reserved("hands-off", "10.1.0.10-10.1.0.11", "10.1.0.12"),
        pod("shop/a"),
    )
    assert world.refused("shop/a", ipv4=["v4"]).error == "pool_exhausted"
    world.delete("SpiderReservedIP", "hands-off")
    assert addresses(world.add("shop/a", ipv4=["v4"])) == ["10.1.0.10"]


def test_a_reservation_of_one_family_leaves_the_other_and_does_not_touch_what_is_held() -> None:
    world = World(
        pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.12"),
        pool("v6", "fd00::/64", "fd00::10-fd00::12"),
        *(pod(f"shop/{name}") for name in "abc"),
    )
    world.add("shop/a", ipv4=["v4"], ipv6=["v6"])
    world.apply(reserved("r", "10.1.0.10", "10.1.0.11"))
    assert addresses(world.add("shop/a", ipv4=["v4"], ipv6=["v6"])) == ["10.1.0.10", "fd00::10"]
    assert addresses(world.add("shop/b", ipv4=["v4"], ipv6=["v6"])) == ["10.1.0.12", "fd00::11"]
    world.delete_pod("shop/a")
    world.release("sandbox-a")
    assert world.refused("shop/c", ipv4=["v4"]).error == "pool_exhausted"


def test_s00002_an_excluded_address_is_never_given() -> None:
    world = World(
        pool("v6", "fd00::/64", "fd00::10-fd00::13", excludeIPs=["fd00::10", "fd00::12-fd00::13"]),
        pod("shop/a"),
        pod("shop/b"),
    )
    assert addresses(world.add("shop/a", ipv6=["v6"])) == ["fd00::11"]
    assert world.refused("shop/b", ipv6=["v6"]).error == "pool_exhausted"


def test_gateway_network_and_broadcast_are_never_given() -> None:
    world = World(
        pool("v4", "10.1.0.0/29", "10.1.0.0-10.1.0.7", gateway="10.1.0.3"),
        *(pod(f"shop/w{i}") for i in range(6)),
    )
    found = [addresses(world.add(f"shop/w{i}", ipv4=["v4"]))[0] for i in range(5)]
    assert found == ["10.1.0.1", "10.1.0.2", "10.1.0.4", "10.1.0.5", "10.1.0.6"]
    assert world.refused("shop/w5", ipv4=["v4"]).error == "pool_exhausted"


@pytest.mark.parametrize("prefix_len", [31, 32])
def test_a_point_to_point_subnet_has_neither_network_nor_broadcast(prefix_len: int) -> None:
    last = 1 if prefix_len == 31 else 0
    world = World(pool("v4", f"10.1.0.0/{prefix_len}", f"10.1.0.0-10.1.0.{last}"), pod("shop/a"))
    assert world.add("shop/a", ipv4=["v4"])[0].address == f"10.1.0.0/{prefix_len}"


def test_an_ipv6_subnet_gives_its_first_and_last_address_but_not_its_gateway() -> None:
    world = World(
        pool("v6", "fd00::/126", "fd00::-fd00::3", gateway="fd00::1"), *(pod(f"shop/w{i}") for i in range(4))
    )
    assert [addresses(world.add(f"shop/w{i}", ipv6=["v6"]))[0] for i in range(3)] == [
        "fd00::",
        "fd00::2",
        "fd00::3",
    ]
    assert world.refused("shop/w3", ipv6=["v6"]).error == "pool_exhausted"


def test_the_lowest_free_address_in_the_order_of_addresses() -> None:
    world = World(
        pool("v4", "10.1.0.0/24", "10.1.0.30", "10.1.0.10-10.1.0.11", "10.1.0.20"),
        *(pod(f"shop/w{i}") for i in range(5)),
    )
    found = [addresses(world.add(f"shop/w{i}", ipv4=["v4"]))[0] for i in range(4)]
    assert found == ["10.1.0.10", "10.1.0.11", "10.1.0.20", "10.1.0.30"]
    world.delete_pod("shop/w1")
    world.release("sandbox-w1")
    assert addresses(world.add("shop/w4", ipv4=["v4"])) == ["10.1.0.11"]


def test_two_interfaces_of_one_pod_from_one_pool_get_different_addresses() -> None:
    marks = {"ipam.spidernet.io/ippools": [{"interface": f"net{i}", "ipv4": ["v4"]} for i in range(3)]}
    world = World(
        pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.12"), pod("shop/a", annotations=marks), pod("shop/b")
    )
    grants = world.add("shop/a", "net0")
    assert [addresses(grants, f"net{i}") for i in range(3)] == [["10.1.0.10"], ["10.1.0.11"], ["10.1.0.12"]]


def test_interfaces_that_come_one_by_one_from_one_pool_get_different_addresses() -> None:
    world = World(pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.12"), pod("shop/a"))
    world.add("shop/a", "eth0", ipv4=["v4"])
    assert addresses(world.add("shop/a", "net1", ipv4=["v4"])) == ["10.1.0.10", "10.1.0.11"]


def test_d00004_a_terminating_pool_gives_nothing_and_takes_back() -> None:
    world = World(pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.12"), pod("shop/a"), pod("shop/b"))
    world.add("shop/a", ipv4=["v4"])
    world.apply(pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.12", terminating=True))
    assert world.refused("shop/b", ipv4=["v4"]).error == "no_pool"
    assert addresses(world.add("shop/a", ipv4=["v4"])) == ["10.1.0.10"], "what is held is confirmed"
    world.delete_pod("shop/a")
    world.release("sandbox-a")
    assert world.state.lease_count() == 0


def test_d00005_a_disabled_pool_takes_back() -> None:
    world = World(pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.12"), pod("shop/a"))
    world.add("shop/a", ipv4=["v4"])
    world.apply(pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.12", disable=True))
    world.delete_pod("shop/a")
    world.release("sandbox-a")
    assert world.state.lease_count() == 0


def test_d00017_a_huge_pool_costs_nothing_and_gives_its_lowest() -> None:
    world = World(
        pool("v6", "fd00::/8", "fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        pool("v4", "10.0.0.0/8", "10.0.0.0-10.255.255.255"),
        pod("shop/a"),
    )
    assert addresses(world.add("shop/a", ipv4=["v4"], ipv6=["v6"])) == ["10.0.0.1", "fd00::"]


def test_addresses_of_a_pool_outside_its_subnet_are_never_given() -> None:
    world = World(pool("v4", "10.1.0.0/24", "10.0.255.250-10.1.0.2"), *(pod(f"shop/w{i}") for i in range(3)))
    assert [addresses(world.add(f"shop/w{i}", ipv4=["v4"]))[0] for i in range(2)] == ["10.1.0.1", "10.1.0.2"]
    assert world.refused("shop/w2", ipv4=["v4"]).error == "pool_exhausted"


def test_an_address_in_two_pools_is_given_once() -> None:
    """Pools that admission would not have let in beside each other: the older counts, and what the younger gave before stays."""
    older = pool("a", "10.1.0.0/24", "10.1.0.10-10.1.0.11", created="2026-01-01T00:00:00Z")
    younger = pool("b", "10.1.0.0/16", "10.1.0.10-10.1.0.12", created="2026-01-01T00:00:01Z")
    world = World(younger, *(pod(f"shop/w{i}") for i in range(4)))
    assert addresses(world.add("shop/w0", ipv4=["b"])) == ["10.1.0.10"]
    world.apply(older)
    said = world.refused("shop/w1", ipv4=["b"])
    assert said.error == "no_pool"
    assert (
        "b overlaps with the older IPPool a of subnet 10.1.0.0/24: no address is given from it"
        in said.message
    )
    assert addresses(world.add("shop/w0", ipv4=["b"])) == ["10.1.0.10"], "who has one keeps it"
    assert addresses(world.add("shop/w1", ipv4=["a", "b"])) == ["10.1.0.11"], "not the one that is held"
    assert world.refused("shop/w2", ipv4=["a"]).error == "pool_exhausted"
    world.delete("SpiderIPPool", "a")
    assert addresses(world.add("shop/w2", ipv4=["b"])) == ["10.1.0.12"], "the conflict is over"


def test_a_pool_that_is_being_deleted_stands_in_nobodys_way() -> None:
    older = {"subnet": "10.1.0.0/24", "created": "2026-01-01T00:00:00Z"}
    younger = pool("b", "10.1.0.0/24", "10.1.0.10-10.1.0.12", created="2026-01-01T00:00:01Z")
    world = World(pool("a", older["subnet"], "10.1.0.10-10.1.0.11", created=older["created"]), younger)
    world.apply(pod("shop/w0"), pod("shop/w1"))
    assert addresses(world.add("shop/w0", ipv4=["a"])) == ["10.1.0.10"]
    said = world.refused("shop/w1", ipv4=["b"]).message
    assert "b overlaps with the older IPPool a in 10.1.0.10-10.1.0.11: no address is given from it" in said
    leaving = pool("a", older["subnet"], "10.1.0.10-10.1.0.11", created=older["created"], terminating=True)
    world.apply(leaving)
    assert addresses(world.add("shop/w1", ipv4=["b"])) == ["10.1.0.11"]


def test_of_two_networks_of_one_name_the_older_counts() -> None:
    world = World(pool("a", "10.1.0.0/24", "10.1.0.10"), pool("b", "10.2.0.0/24", "10.2.0.10"))
    world.apply(network("x/two", ipv4=["b"], renamed="net"), network("x/one", ipv4=["a"], renamed="net"))
    assert world.facts.networks["x/net"].ipv4 == ("a",), "of one age, the lower name"
    world.delete("SpiderMultusConfig", "one", "x")
    assert world.facts.networks["x/net"].ipv4 == ("b",)
    world.delete("SpiderMultusConfig", "two", "x")
    assert "x/net" not in world.facts.networks


def test_a_pool_that_is_made_anew_remembers_what_is_held() -> None:
    world = World(pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.11"), pod("shop/a"), pod("shop/b"))
    world.add("shop/a", ipv4=["v4"])
    world.delete("SpiderIPPool", "v4")
    assert world.refused("shop/b", ipv4=["v4"]).error == "pool_unknown"
    world.apply(pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.11"))
    assert addresses(world.add("shop/b", ipv4=["v4"])) == ["10.1.0.11"]


def test_many_pools_at_once_have_what_is_held_taken_out() -> None:
    world = World(*(pool(f"p{i}", "10.1.0.0/24", f"10.1.0.{i + 1}") for i in range(10)), pod("shop/a"))
    world.add("shop/a", ipv4=["p3"])
    world.apply(reserved("r", "10.1.0.1"))
    free = {name: world.state.pools.occupancy(name) for name in world.facts.pools}
    assert {name for name, occupancy in free.items() if occupancy and not occupancy.free_count} == {
        "p0",
        "p3",
    }
