"""Where a pod's pools come from, and what else its annotations say."""

from __future__ import annotations

import json

import pytest

from tests.conformance.case import case
from tests.conformance.services.conftest import SHOP
from tests.conformance.world import (
    Json,
    NotStarted,
    World,
    again,
    namespace,
    native,
    network,
    pod,
    pool,
    stateful_set,
)


def net(number: int, name: str = "", **spec: object) -> Json:
    """IPv4 pool `p<number>` of 172.20.<number>.0/24 with ten addresses."""
    return pool(
        name or f"p{number}", f"172.20.{number}.0/24", [f"172.20.{number}.10-172.20.{number}.19"], **spec
    )


def net6(number: int, **spec: object) -> Json:
    """IPv6 pool `q<number>` of fd00:20:<number>::/64 with ten addresses."""
    return pool(
        f"q{number}", f"fd00:20:{number}::/64", [f"fd00:20:{number}::10-fd00:20:{number}::19"], **spec
    )


def of(address: str) -> int:
    """The number of the pool that an IPv4 address is of."""
    return int(address.split(".")[2])


def item(ifname: str, number: int, **more: object) -> Json:
    return {"interface": ifname, "ipv4": [f"p{number}"]} | more


@case("A00002")
def test_routes(world: World) -> None:
    world.apply(net(1, gateway="172.20.1.1"), net6(1, gateway="fd00:20:1::1"))
    routes = [
        {"dst": "10.40.0.0/16", "gw": "172.20.1.200"},
        {"dst": "fd00:40::/64", "gw": "fd00:20:1::200"},
    ]
    running = world.start(pod("web", SHOP, ippool={"ipv4": ["p1"], "ipv6": ["q1"]}, routes=routes))
    for family, route in ((4, routes[0]), (6, routes[1])):
        assert [one["gateway"] for one in running.routes("eth0", family) if one["dst"] == route["dst"]] == [
            route["gw"]
        ]


@case("A00003")
@pytest.mark.parametrize(
    "annotations",
    [
        {"ippool": {"ipv4": ["no-such-pool"]}},
        {"ippools": [{"interface": "eth0", "ipv4": ["no-such-pool"]}]},
        {"ippool": {"ipv5": ["p1"]}},
        {"ippools": [{"interface": "eth0", "ipv5": ["p1"]}]},
        {"ippool": '{"ipv4": ["p1"'},
        {"ippools": "[{"},
    ],
    ids=str,
)
def test_wrong_annotations(world: World, annotations: Json) -> None:
    world.apply(net(1))
    assert len(world.never_starts(pod("web", SHOP, **annotations)).text) > 20
    assert world.records("p1") == {}


@case("A00004")
def test_the_pod_is_asked_first(world: World) -> None:
    world.apply(net(1), net(2), net(3), namespace(SHOP, default_ipv4_ippool=["p2"]))
    configured = native(ippools={"ipv4": ["p3"]})
    running = world.start(pod("web", SHOP, ippool={"ipv4": ["p1"]}), configuration=configured)
    assert [of(one) for one in running.all_addresses()] == [1]
    second = world.start(pod("plain", SHOP), configuration=configured)
    assert [of(one) for one in second.all_addresses()] == [2]
    world.apply(namespace(SHOP))
    third = world.start(pod("bare", SHOP), configuration=configured)
    assert [of(one) for one in third.all_addresses()] == [3]
    world.sane("p1", "p2", "p3")


@case("A00005")
def test_ippools_beats_ippool(world: World) -> None:
    world.apply(net(1), net(2))
    running = world.start(pod("web", SHOP, ippool={"ipv4": ["p1"]}, ippools=[item("eth0", 2)]))
    assert [of(one) for one in running.all_addresses()] == [2]
    world.sane("p1", "p2")


@case("A00006")
def test_the_namespace_beats_the_default_pool(world: World) -> None:
    world.apply(net(1, default=True), net(2), namespace(SHOP, default_ipv4_ippool=["p2"]), namespace("plain"))
    assert [of(one) for one in world.start(pod("web", SHOP)).all_addresses()] == [2]
    assert [of(one) for one in world.start(pod("web", "plain")).all_addresses()] == [1]
    world.sane("p1", "p2")


@case("A00007")
def test_a_wildcard_of_the_namespace(world: World) -> None:
    world.apply(
        net(1, "red-1"), net(2, "red-2"), net(3, "blue-1"), namespace(SHOP, default_ipv4_ippool=["red-*"])
    )
    found = {of(world.start(pod(f"web-{n}", SHOP)).all_addresses()[0]) for n in range(15)}
    assert found == {1, 2}, "one pool has ten addresses"
    world.sane("red-1", "red-2", "blue-1")


@case("A00008")
def test_several_containers(world: World) -> None:
    world.apply(net(1), net6(1))
    running = world.start(pod("web", SHOP, containers=3, ippool={"ipv4": ["p1"], "ipv6": ["q1"]}))
    assert len(running.all_addresses()) == 2
    world.sane("p1", "q1")


@case("A00009")
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_another_pool_in_the_template(world: World, kind: str) -> None:
    world.apply(net(1), net(2))
    owner = stateful_set("web", SHOP, replicas=2) if kind == "StatefulSet" else None
    if owner:
        world.apply(owner)
    before = [pod(f"web-{n}", SHOP, owner=owner, ippool={"ipv4": ["p1"]}) for n in range(2)]
    for running in [world.start(one) for one in before]:
        world.end(running)
    after = [world.start(again(one, ippool={"ipv4": ["p2"]})) for one in before]
    assert {of(one.all_addresses()[0]) for one in after} == {2}
    world.sane("p1", "p2")
    assert {name: one["status"]["current"]["uid"] for name, one in world.endpoints(SHOP).items()} == {
        one.name: one.manifest["metadata"]["uid"] for one in after
    }


@case("A00010")
@pytest.mark.parametrize("named", [True, False])
def test_two_interfaces(world: World, named: bool) -> None:
    world.apply(*map(net, (1, 2, 3, 4)), network("extra"))

    def pools(*numbers: int) -> list[Json]:
        names = ("eth0", "net1") if named else ("", "")
        return [item(name, number) for name, number in zip(names, numbers, strict=True)]

    first = pod("web", SHOP, networks="kube-system/extra", ippools=pools(1, 2))
    running = world.start(first)
    assert {name: [of(one) for one in found] for name, found in running.addresses.items()} == {
        "eth0": [1],
        "net1": [2],
    }
    world.end(running)
    running = world.start(again(first, ippools=pools(3, 4)))
    assert {name: [of(one) for one in found] for name, found in running.addresses.items()} == {
        "eth0": [3],
        "net1": [4],
    }
    world.sane("p1", "p2", "p3", "p4")


@case("A00011")
@pytest.mark.parametrize("clean", [False, True])
def test_the_default_route(world: World, clean: bool) -> None:
    world.apply(net(1, gateway="172.20.1.1", routes=[{"dst": "10.50.0.0/16", "gw": "172.20.1.7"}]))
    running = world.start(pod("web", SHOP, ippools=[item("eth0", 1, cleangateway=clean)]))
    routes = {one["dst"]: one.get("gateway") for one in running.routes("eth0")}
    assert routes["10.50.0.0/16"] == "172.20.1.7"
    assert routes.get("default") == (None if clean else "172.20.1.1")


@case("A00012")
def test_default_route_nic(world: World) -> None:
    world.apply(net(1, gateway="172.20.1.1"), net(2, gateway="172.20.2.1"), network("extra", ipv4=["p2"]))
    running = world.start(
        pod("web", SHOP, networks="kube-system/extra", default_route_nic="net1"),
        configuration=native(ippools={"ipv4": ["p1"]}),
    )
    assert [one["gateway"] for one in running.routes("net1") if one["dst"] == "default"] == ["172.20.2.1"]
    assert [one for one in running.routes("eth0") if one["dst"] == "default"] == []


@pytest.mark.parametrize(
    ("items", "text"),
    [
        pytest.param([item("net1", 2)], "eth0", marks=case("A00013")),
        pytest.param([item("eth0", 1), item("eth0", 2)], "duplicate interface eth0", marks=case("A00014")),
        pytest.param([item("eth0", 1), item("net1", 2), item("net1", 1)], "net1", marks=case("A00014")),
    ],
)
def test_ippools_that_do_not_fit(world: World, items: list[Json], text: str) -> None:
    world.apply(net(1), net(2), network("extra"))
    failure = world.never_starts(pod("web", SHOP, networks="kube-system/extra", ippools=items))
    assert text in failure.text
    assert world.records("p1") == world.records("p2") == {}


@case("A00015")
def test_wildcards_in_ippools(world: World) -> None:
    world.apply(net(1, "red-1"), net(2, "red-2"), net(3, "blue-1"), network("extra"))
    items = [{"interface": "eth0", "ipv4": ["red-?"]}, {"interface": "net1", "ipv4": ["b*"]}]
    running = world.start(pod("web", SHOP, networks="kube-system/extra", ippools=items))
    assert of(running.addresses["eth0"][0]) in (1, 2)
    assert of(running.addresses["net1"][0]) == 3
    world.sane("red-1", "red-2", "blue-1")


@case("A00016")
def test_no_pool_is_drained_by_retries(world: World) -> None:
    world.apply(
        pool("p1", "172.20.1.0/24", ["172.20.1.10"]),
        pool("p2", "172.20.2.0/24", ["172.20.2.10-172.20.2.11"]),
        network("extra"),
    )
    pods = [
        pod(f"web-{n}", SHOP, networks="kube-system/extra", ippools=[item("eth0", 1), item("net1", 2)])
        for n in range(2)
    ]
    world.start(pods[0])
    world.apply(pods[1])
    for _ in range(5):
        with pytest.raises(NotStarted, match="p1"):
            world.sandbox(pods[1])
    world.sane("p1", "p2")
    assert len(world.records("p2")) == 1


@case("A00017")
def test_a_further_network_changes_its_pool(world: World) -> None:
    world.apply(*map(net, (1, 2, 3)), network("extra", ipv4=["p2"]))
    owner = stateful_set("db", SHOP, replicas=1)
    world.apply(owner)
    configured = native(ippools={"ipv4": ["p1"]})
    first = pod("db-0", SHOP, owner=owner, networks="kube-system/extra")
    running = world.start(first, configuration=configured)
    assert [of(one) for one in running.addresses["net1"]] == [2]
    kept = running.addresses["eth0"]

    world.apply(network("extra", ipv4=["p3"]))
    world.end(running)
    running = world.start(again(first), configuration=configured)
    assert [of(one) for one in running.addresses["net1"]] == [3]
    assert running.addresses["eth0"] == kept
    world.sane("p1", "p2", "p3")


@case("A00018")
def test_nameless_ippools_of_a_stateful_set(world: World) -> None:
    world.apply(*map(net, (1, 2, 3)), network("extra"))
    owner = stateful_set("db", SHOP, replicas=1)
    world.apply(owner)
    first = pod(
        "db-0", SHOP, owner=owner, networks="kube-system/extra", ippools=[{"ipv4": ["p1"]}, {"ipv4": ["p2"]}]
    )
    running = world.start(first)
    kept = running.addresses
    world.end(running)
    running = world.start(again(first))
    assert running.addresses == kept
    world.end(running)
    running = world.start(again(first, ippools=[{"ipv4": ["p1"]}, {"ipv4": ["p3"]}]))
    assert [of(one) for one in running.addresses["eth0"]] == [1]
    assert [of(one) for one in running.addresses["net1"]] == [3]
    world.sane("p1", "p2", "p3")


@pytest.mark.parametrize(
    "indent", [pytest.param(None, marks=case("M00036")), pytest.param(2, marks=case("M00037"))]
)
def test_networks_as_json(world: World, indent: int | None) -> None:
    world.apply(*map(net, (1, 2)), network("extra", ipv4=["p2"]))
    wanted = [{"name": "extra", "namespace": "kube-system", "interface": "data0"}]
    running = world.start(
        pod("web", SHOP, networks=json.dumps(wanted, indent=indent)),
        configuration=native(ippools={"ipv4": ["p1"]}),
    )
    assert {name: [of(one) for one in found] for name, found in running.addresses.items()} == {
        "eth0": [1],
        "data0": [2],
    }
    world.sane("p1", "p2")
