"""Where an interface's pools come from (spec of `ipam.spidernet.io`): the conformance rows A00002–A00018, I00023, I00024, E00009."""

from __future__ import annotations

import pytest

from shared.contracts.ipam import InterfaceRequest
from tests.support.pure_allocator import World, addresses, namespace, network, pod, pool, settings

IPPOOL = "ipam.spidernet.io/ippool"
IPPOOLS = "ipam.spidernet.io/ippools"
ROUTES = "ipam.spidernet.io/routes"
DEFAULT_V4 = "ipam.spidernet.io/default-ipv4-ippool"
DEFAULT_V6 = "ipam.spidernet.io/default-ipv6-ippool"
NETWORKS = "k8s.v1.cni.cncf.io/networks"

POOLS = (
    pool("blue-a", "10.1.0.0/24", "10.1.0.10-10.1.0.12"),
    pool("blue-b", "10.2.0.0/24", "10.2.0.10-10.2.0.12"),
    pool("red", "10.3.0.0/24", "10.3.0.10-10.3.0.12"),
    pool("six", "fd00:6::/64", "fd00:6::10-fd00:6::12"),
    pool("cluster", "10.9.0.0/24", "10.9.0.10-10.9.0.12", default=True),
)


def test_a00002_routes_of_the_annotation_go_to_the_family_and_subnet_of_their_gateway() -> None:
    routes = [
        {"dst": "10.40.0.0/16", "gw": "10.1.0.254"},
        {"dst": "fd40::/64", "gw": "fd00:6::fe"},
        {"dst": "10.41.0.0/16", "gw": "192.0.2.1"},
    ]
    marks = {IPPOOL: {"ipv4": ["blue-a"], "ipv6": ["six"]}, ROUTES: routes}
    grants = World(*POOLS, pod("shop/web", annotations=marks)).add("shop/web")
    found = {grant.family: [(route.dst, route.gw) for route in grant.routes] for grant in grants}
    assert found == {4: [("10.40.0.0/16", "10.1.0.254")], 6: [("fd40::/64", "fd00:6::fe")]}


@pytest.mark.parametrize(
    ("wished", "first", "second"),
    [
        (("10.8.0.0/16", "10.7.0.9"), ["10.7.0.9"], []),
        (("10.8.1.0/16", "10.5.0.9"), [], ["10.5.0.9"]),
        (("10.8.0.0/17", "10.7.0.9"), ["10.7.0.2", "10.7.0.9"], ["10.5.0.2"]),
        (("10.8.0.0/16", "192.0.2.1"), ["10.7.0.2"], ["10.5.0.2"]),
    ],
)
def test_a00002_a_route_of_the_pods_own_takes_the_place_of_those_of_its_pools(
    wished: tuple[str, str], first: list[str], second: list[str]
) -> None:
    """To the same destination, by whichever interface; one that no interface reaches takes no place."""
    pools = [
        pool(
            name,
            f"10.{n}.0.0/24",
            f"10.{n}.0.10-10.{n}.0.12",
            routes=[{"dst": "10.8.0.0/16", "gw": f"10.{n}.0.2"}],
        )
        for name, n in (("one", 7), ("two", 5))
    ]
    items = [{"interface": "eth0", "ipv4": ["one"]}, {"interface": "net1", "ipv4": ["two"]}]
    marks = {IPPOOLS: items, ROUTES: [{"dst": wished[0], "gw": wished[1]}]}
    grants = World(*pools, pod("shop/web", annotations=marks)).add("shop/web")
    found = {grant.ifname: [route.gw for route in grant.routes] for grant in grants}
    assert found == {"eth0": first, "net1": second}


@pytest.mark.parametrize(
    ("marks", "error", "fragment"),
    [
        ({IPPOOL: {"ipv4": ["nope"]}}, "pool_unknown", "nope"),
        ({IPPOOLS: [{"interface": "eth0", "ipv4": ["nope"]}]}, "pool_unknown", "nope"),
        ({IPPOOL: {"ipv5": ["blue-a"]}}, "annotation_invalid", "no IPPool is named"),
        ({IPPOOLS: [{"interface": "eth0", "ipv5": ["blue-a"]}]}, "annotation_invalid", "no IPPool is named"),
        ({IPPOOL: "{"}, "annotation_invalid", "ipam.spidernet.io/ippool"),
        ({IPPOOL: ""}, "annotation_invalid", "ipam.spidernet.io/ippool"),
        ({IPPOOLS: '[{"interface":'}, "annotation_invalid", "ipam.spidernet.io/ippools"),
        ({IPPOOLS: []}, "annotation_invalid", "value requires at least one item"),
        ({IPPOOL: {"ipv4": ["blue-a", "blue-a"]}}, "annotation_invalid", "duplicate IPPool blue-a"),
        ({IPPOOL: {"ipv4": ["a[]b"]}}, "annotation_invalid", "a[]b"),
    ],
)
def test_a00003_a_bad_annotation_is_refused_and_nothing_is_allocated(
    marks: dict[str, object], error: str, fragment: str
) -> None:
    world = World(*POOLS, pod("shop/web", annotations=marks))
    refusal = world.refused("shop/web")
    assert (refusal.error, fragment in refusal.message) == (error, True), refusal


def test_a00003_an_annotation_beats_the_defaults_even_when_it_is_wrong() -> None:
    world = World(*POOLS, pod("shop/web", annotations={IPPOOL: {"ipv4": ["nope"]}}))
    assert world.refused("shop/web", ipv4=["red"]).error == "pool_unknown"


def test_a00004_the_pods_annotation_comes_before_its_namespaces_and_the_configuration() -> None:
    world = World(
        *POOLS,
        namespace("shop", annotations={DEFAULT_V4: '["blue-b"]'}),
        pod("shop/web", annotations={IPPOOL: {"ipv4": ["blue-a"]}}),
    )
    assert addresses(world.add("shop/web", ipv4=["red"])) == ["10.1.0.10"]


def test_a00005_ippools_comes_before_ippool() -> None:
    marks = {IPPOOL: {"ipv4": ["blue-a"]}, IPPOOLS: [{"interface": "eth0", "ipv4": ["blue-b"]}]}
    assert addresses(World(*POOLS, pod("shop/web", annotations=marks)).add("shop/web")) == ["10.2.0.10"]


def test_a00006_the_namespace_comes_before_the_cluster_default_and_the_configuration() -> None:
    world = World(
        *POOLS, namespace("shop", annotations={DEFAULT_V4: '["blue-b"]'}), pod("shop/web"), pod("x/y")
    )
    assert addresses(world.add("shop/web", ipv4=["red"])) == ["10.2.0.10"]
    assert addresses(world.add("x/y", ipv4=["red"])) == ["10.3.0.10"]


def test_a_namespace_without_pools_in_its_annotations_falls_through() -> None:
    marks = {DEFAULT_V4: "[]", DEFAULT_V6: ""}
    world = World(*POOLS, namespace("shop", annotations=marks), pod("shop/web"))
    assert addresses(world.add("shop/web")) == ["10.9.0.10"]


def test_one_family_of_a_namespace_is_enough_and_stands_alone() -> None:
    world = World(*POOLS, namespace("shop", annotations={DEFAULT_V6: '["six"]'}), pod("shop/web"))
    assert addresses(world.add("shop/web")) == ["fd00:6::10"]


def test_a00007_a_namespaces_wildcard_stands_for_its_matches_by_name() -> None:
    world = World(
        *POOLS,
        namespace("shop", annotations={DEFAULT_V4: '["blue-?"]'}),
        *(pod(f"shop/web-{i}") for i in range(6)),
    )
    found = [addresses(world.add(f"shop/web-{i}"))[0] for i in range(6)]
    assert found == [f"10.1.0.1{i}" for i in range(3)] + [f"10.2.0.1{i}" for i in range(3)]


def test_a00008_containers_of_a_pod_share_one_address_of_each_family() -> None:
    marks = {IPPOOL: {"ipv4": ["blue-a"], "ipv6": ["six"]}}
    world = World(*POOLS, pod("shop/web", annotations=marks, containers=4))
    assert addresses(world.add("shop/web")) == ["10.1.0.10", "fd00:6::10"]
    assert world.state.lease_count() == 2


def test_a00009_a_re_created_pod_draws_from_the_pool_of_its_new_annotation() -> None:
    world = World(*POOLS, pod("shop/web", annotations={IPPOOL: {"ipv4": ["blue-a"]}}))
    world.add("shop/web")
    world.apply(pod("shop/web", terminating=True))
    world.release("sandbox-web")
    world.apply(pod("shop/web", uid="second", annotations={IPPOOL: {"ipv4": ["blue-b"]}}))
    assert addresses(world.add("shop/web", uid="second")) == ["10.2.0.10"]
    assert not world.is_held("10.1.0.10")


def test_a00010_each_interface_of_a_named_list_has_an_address_of_its_own_pool() -> None:
    items = [{"interface": "eth0", "ipv4": ["blue-a"]}, {"interface": "net1", "ipv4": ["blue-b"]}]
    world = World(*POOLS, pod("shop/web", annotations={IPPOOLS: items}))
    grants = world.add("shop/web")
    assert (addresses(grants, "eth0"), addresses(grants, "net1")) == (["10.1.0.10"], ["10.2.0.10"])
    assert world.add("shop/web", "net1") == grants


def test_a00010_an_unnamed_list_goes_by_position() -> None:
    items = [{"ipv4": ["blue-a"]}, {"ipv4": ["blue-b"]}, {"ipv4": ["red"]}]
    marks = {IPPOOLS: items, NETWORKS: "kube-system/one@data0,kube-system/two"}
    grants = World(*POOLS, pod("shop/web", annotations=marks)).add("shop/web")
    found = {grant.ifname: grant.pool for grant in grants}
    assert found == {"eth0": "blue-a", "data0": "blue-b", "net2": "red"}


def test_a00018_without_networks_the_unnamed_items_are_net1_net2() -> None:
    marks = {IPPOOLS: [{"ipv4": ["blue-a"]}, {"ipv4": ["blue-b"]}]}
    world = World(*POOLS, pod("shop/web", annotations=marks))
    assert [grant.ifname for grant in world.add("shop/web")] == ["eth0", "net1"]


def test_a_network_that_takes_the_name_of_another_interface_is_refused() -> None:
    marks = {IPPOOLS: [{"ipv4": ["blue-a"]}, {"ipv4": ["blue-b"]}], NETWORKS: "kube-system/one@eth0"}
    refusal = World(*POOLS, pod("shop/web", annotations=marks)).refused("shop/web")
    assert (refusal.error, "duplicate interface eth0" in refusal.message) == ("annotation_invalid", True)


def test_more_interfaces_than_a_pod_may_have_are_refused() -> None:
    items = [{"interface": f"net{i}", "ipv4": ["blue-?"]} for i in range(33)]
    refusal = World(*POOLS, pod("shop/web", annotations={IPPOOLS: items})).refused("shop/web", "net1")
    assert (refusal.error, "at most 32" in refusal.message) == ("annotation_invalid", True)


@pytest.mark.parametrize(("spelling", "clean"), [("false", False), ("true", True)])
def test_a00011_cleangateway_is_the_items_and_the_gateway_is_told_either_way(
    spelling: str, clean: bool
) -> None:
    routed = pool(
        "routed",
        "10.7.0.0/24",
        "10.7.0.10-10.7.0.12",
        gateway="10.7.0.1",
        routes=[{"dst": "10.8.0.0/16", "gw": "10.7.0.2"}],
    )
    text = f'[{{"interface":"eth0","ipv4":["routed"],"cleanGateway":{spelling}}}]'
    (grant,) = World(routed, pod("shop/web", annotations={IPPOOLS: text})).add("shop/web")
    assert (grant.gateway, grant.clean_gateway, grant.address) == ("10.7.0.1", clean, "10.7.0.10/24")
    assert [(route.dst, route.gw) for route in grant.routes] == [("10.8.0.0/16", "10.7.0.2")]


def test_cleangateway_of_the_configuration_counts_where_ippools_does_not() -> None:
    world = World(*POOLS, pod("shop/web", annotations={IPPOOL: {"ipv4": ["blue-a"]}}))
    (grant,) = world.add("shop/web", InterfaceRequest(ifname="eth0", clean_gateway=True))
    assert grant.clean_gateway


def test_a00013_an_interface_that_the_list_lacks_is_refused() -> None:
    marks = {IPPOOLS: [{"interface": "net1", "ipv4": ["blue-a"]}]}
    refusal = World(*POOLS, pod("shop/web", annotations=marks)).refused("shop/web")
    assert "interface eth0 must be specified" in refusal.message


def test_a00014_an_interface_listed_twice_is_refused() -> None:
    items = [{"interface": "eth0", "ipv4": ["blue-a"]}, {"interface": "eth0", "ipv4": ["blue-b"]}]
    refusal = World(*POOLS, pod("shop/web", annotations={IPPOOLS: items})).refused("shop/web")
    assert "duplicate interface eth0" in refusal.message


def test_names_for_some_items_only_are_refused() -> None:
    items = [{"interface": "eth0", "ipv4": ["blue-a"]}, {"ipv4": ["blue-b"]}]
    refusal = World(*POOLS, pod("shop/web", annotations={IPPOOLS: items})).refused("shop/web")
    assert "NIC should be either all specified or all unspecified" in refusal.message


def test_a00015_a_wildcard_in_ippools_expands_to_pools_of_the_family() -> None:
    marks = {IPPOOLS: [{"interface": "eth0", "ipv4": ["*"], "ipv6": ["*"]}]}
    world = World(*POOLS, pod("shop/web", annotations=marks))
    assert addresses(world.add("shop/web")) == ["10.1.0.10", "fd00:6::10"]


def test_a_pool_reached_by_name_and_by_pattern_counts_once_in_its_first_place() -> None:
    marks = {IPPOOL: {"ipv4": ["red", "[br]*"]}}
    world = World(*POOLS, *(pod(f"shop/web-{i}", annotations=marks) for i in range(9)))
    found = [world.add(f"shop/web-{i}")[0].pool for i in range(9)]
    assert found == ["red"] * 3 + ["blue-a"] * 3 + ["blue-b"] * 3


def test_a_pattern_without_a_match_takes_its_family_away_alone() -> None:
    world = World(*POOLS, pod("shop/web", annotations={IPPOOL: {"ipv4": ["nothing-*"], "ipv6": ["six"]}}))
    assert addresses(world.add("shop/web")) == ["fd00:6::10"]
    world.apply(pod("shop/two", annotations={IPPOOL: {"ipv4": ["nothing-*"]}}))
    assert "no Interface eth0 IP allocation found" in world.refused("shop/two").message


def test_a00016_a_retry_drains_no_other_pool() -> None:
    items = [{"interface": "eth0", "ipv4": ["one"]}, {"interface": "net1", "ipv4": ["two"]}]
    world = World(
        pool("one", "10.1.0.0/24", "10.1.0.10"),
        pool("two", "10.2.0.0/24", "10.2.0.10-10.2.0.11"),
        *(pod(f"shop/web-{i}", annotations={IPPOOLS: items}) for i in range(2)),
    )
    world.add("shop/web-0")
    for attempt in range(5):
        refusal = world.refused("shop/web-1", container=f"sandbox-{attempt}")
        assert refusal.error == "pool_exhausted"
        assert "all IP addresses used out" in refusal.message
        assert world.add("shop/web-0", "net1") and world.state.lease_count() == 2
    world.apply(pod("shop/web-0", terminating=True))
    world.release("sandbox-web-0", "eth0")
    world.release("sandbox-web-0", "net1")
    assert addresses(world.add("shop/web-1")) == ["10.1.0.10", "10.2.0.10"]


def test_a00016_without_annotations_all_interfaces_of_one_request_or_none() -> None:
    world = World(
        pool("one", "10.1.0.0/24", "10.1.0.10"),
        pool("two", "10.2.0.0/24", "10.2.0.10-10.2.0.11"),
        pod("shop/web-0"),
        pod("shop/web-1"),
    )
    wanted = (InterfaceRequest(ifname="eth0", ipv4=("two",)), InterfaceRequest(ifname="net1", ipv4=("one",)))
    world.add("shop/web-0", *wanted)
    assert world.refused("shop/web-1", *wanted).error == "pool_exhausted"
    assert not world.is_held("10.2.0.11")


@pytest.mark.parametrize("annotation", [IPPOOL, IPPOOLS])
def test_e00009_one_family_named_is_one_family_given(annotation: str) -> None:
    value = {"ipv6": ["six"]} if annotation == IPPOOL else [{"interface": "eth0", "ipv6": ["six"]}]
    world = World(*POOLS, pod("shop/web", annotations={annotation: value}))
    assert addresses(world.add("shop/web")) == ["fd00:6::10"]


@pytest.mark.parametrize("annotation", ["subnet", "subnets"])
def test_i00023_a_pod_without_controller_may_not_use_subnets(annotation: str) -> None:
    value = {"ipv4": ["s"]} if annotation == "subnet" else [{"interface": "eth0", "ipv4": ["s"]}]
    world = World(*POOLS, pod("shop/web", annotations={f"ipam.spidernet.io/{annotation}": value}))
    assert "SpiderSubnet feature doesn't support no-controller pod" in world.refused("shop/web").message


@pytest.mark.parametrize("annotation", ["subnet", "subnets"])
def test_i00024_with_auto_pools_off_subnets_are_refused(annotation: str) -> None:
    marks = {f"ipam.spidernet.io/{annotation}": {"ipv4": ["s"]}}
    world = World(
        *POOLS,
        settings(enableSpiderSubnet=True, enableAutoPoolForApplication=False),
        pod("shop/web", annotations=marks, owner="ReplicaSet"),
    )
    assert "annotation when Auto-Pool feature is disabled" in world.refused("shop/web").message


def test_with_subnets_off_their_annotations_are_ignored() -> None:
    marks = {"ipam.spidernet.io/subnet": {"ipv4": ["s"]}}
    world = World(*POOLS, settings(enableSpiderSubnet=False), pod("shop/web", annotations=marks))
    assert addresses(world.add("shop/web")) == ["10.9.0.10"]


def test_automatic_pools_are_named_as_not_served_yet() -> None:
    marks = {"ipam.spidernet.io/subnet": {"ipv4": ["s"]}}
    world = World(*POOLS, pod("shop/web", annotations=marks, owner="ReplicaSet"))
    assert world.refused("shop/web").error == "not_in_this_version"


@pytest.mark.parametrize(
    ("key", "value", "fragment"),
    [
        (ROUTES, [{"dst": "10.0.0.0/8", "gw": "fd00::1"}], "different families"),
        (ROUTES, "[", "ipam.spidernet.io/routes"),
        ("ipam.spidernet.io/default-route-nic", "a/b", "default-route-nic"),
        (DEFAULT_V4, "", ""),
    ],
)
def test_other_annotations_that_cannot_be_read_are_refused(key: str, value: object, fragment: str) -> None:
    world = World(*POOLS, pod("shop/web", annotations={key: value}))
    if fragment:
        refusal = world.refused("shop/web")
        assert (refusal.error, fragment in refusal.message) == ("annotation_invalid", True)
    else:
        assert world.add("shop/web")


@pytest.mark.parametrize(
    ("marks", "interfaces"),
    [
        ({}, ["eth0"]),
        ({NETWORKS: "a,shop/b@fast"}, ["eth0", "net1", "fast"]),
        (
            {IPPOOLS: [{"interface": "eth0", "ipv4": ["red"]}, {"interface": "up1", "ipv4": ["red"]}]},
            ["eth0", "up1"],
        ),
        ({NETWORKS: "a@fast", IPPOOLS: [{"ipv4": ["red"]}] * 3}, ["eth0", "fast", "net2"]),
    ],
)
def test_c00014_the_default_route_nic_must_be_one_of_the_pods(
    marks: dict[str, object], interfaces: list[str]
) -> None:
    nic = "ipam.spidernet.io/default-route-nic"
    for name in interfaces:
        assert World(*POOLS, pod("shop/web", annotations={**marks, nic: name})).add("shop/web")
    world = World(*POOLS, pod("shop/web", annotations={**marks, nic: "net9"}))
    refusal = world.refused("shop/web")
    assert refusal.error == "annotation_invalid"
    assert "podDefaultRouteNIC: net9 don't exist in pod" in refusal.message
    assert all(name in refusal.message for name in interfaces)
    assert not world.state.holdings


def test_the_default_route_nic_may_be_the_one_that_is_called_or_one_that_is_held() -> None:
    marks = {"ipam.spidernet.io/default-route-nic": "net5"}
    world = World(*POOLS, pod("shop/web", annotations=marks))
    assert world.add("shop/web", InterfaceRequest(ifname="net5"))
    assert world.add("shop/web", InterfaceRequest(ifname="eth0"))


def test_a_namespaces_broken_annotation_is_refused_and_names_the_namespace() -> None:
    world = World(*POOLS, namespace("shop", annotations={DEFAULT_V4: "{"}), pod("shop/web"))
    refusal = world.refused("shop/web")
    assert (refusal.error, "namespace shop" in refusal.message) == ("annotation_invalid", True)


def test_the_pools_of_a_named_network_are_its_configurations() -> None:
    world = World(*POOLS, network("kube-system/net", ["blue-b"], ["six"]), pod("shop/web"))
    grants = world.add("shop/web", InterfaceRequest(ifname="eth0", network="kube-system/net"))
    assert [grant.pool for grant in grants] == ["blue-b", "six"]
    other = world.refused("shop/web", InterfaceRequest(ifname="net1", network="kube-system/none"))
    assert other.error == "network_unknown"


def test_the_order_of_the_configurations_pools_is_kept_and_the_next_is_used_when_one_is_full() -> None:
    world = World(*POOLS, *(pod(f"shop/web-{i}") for i in range(4)))
    found = [world.add(f"shop/web-{i}", ipv4=["red", "blue-a"])[0].pool for i in range(4)]
    assert found == ["red", "red", "red", "blue-a"]


def test_cluster_default_pools_go_by_name_and_none_is_said_so() -> None:
    world = World(
        pool("b", "10.2.0.0/24", "10.2.0.10", default=True),
        pool("a", "10.1.0.0/24", "10.1.0.10", default=True),
        *(pod(f"shop/web-{i}") for i in range(2)),
    )
    assert [world.add(f"shop/web-{i}")[0].pool for i in range(2)] == ["a", "b"]
    world = World(pool("a", "10.1.0.0/24", "10.1.0.10"), pod("shop/web"))
    assert "no pool selection rules of any type are specified" in world.refused("shop/web").message


def test_a_family_that_is_off_is_dropped_silently() -> None:
    marks = {IPPOOL: {"ipv4": ["blue-a"], "ipv6": ["six"]}}
    world = World(*POOLS, settings(enableIPv6=False), pod("shop/web", annotations=marks))
    assert addresses(world.add("shop/web")) == ["10.1.0.10"]
    world = World(
        *POOLS, settings(enableIPv4=False), pod("shop/web", annotations={IPPOOL: {"ipv4": ["red"]}})
    )
    assert "no Interface eth0 IP allocation found" in world.refused("shop/web").message
