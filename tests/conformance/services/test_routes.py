"""Routes and default routes of a pod, by its annotations and its pools."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.case import case
from tests.conformance.objects import SHOP, Json, native, network, pod
from tests.conformance.services.numbered import EACH, EXTRA, item, net, net6
from tests.conformance.world import Running, World

GATEWAYS = {4: "172.20.{}.1", 6: "fd00:20:{}::1"}


def gated(number: int, **spec: Any) -> tuple[Json, Json]:
    """Both pools of a number, with gateways."""
    return net(number, gateway=GATEWAYS[4].format(number), **spec), net6(
        number, gateway=GATEWAYS[6].format(number)
    )


def routes(running: Running, ifname: str = "eth0", family: int = 4) -> dict[str, str | None]:
    """Gateway by destination, without those that the kernel makes by itself."""
    return {
        one["dst"]: one.get("gateway")
        for one in running.routes(ifname, family)
        if one["dst"] != "fe80::/64" and one.get("protocol") != "kernel"
    }


@case("A00002")
@pytest.mark.parametrize(
    ("wished", "expected", "expected6"),
    [
        (
            [{"dst": "10.40.0.0/16", "gw": "172.20.1.200"}, {"dst": "fd00:40::/64", "gw": "fd00:20:1::200"}],
            {"10.40.0.0/16": "172.20.1.200"},
            {"fd00:40::/64": "fd00:20:1::200"},
        ),
        ([{"dst": "10.40.0.0/16", "gw": "172.20.1.1"}], {"10.40.0.0/16": "172.20.1.1"}, {}),
        ([{"Dst": "10.40.7.9/16", "GW": "172.20.1.200"}], {"10.40.0.0/16": "172.20.1.200"}, {}),
        ([{"dst": "10.40.7.9/32", "gw": "172.20.1.200"}], {"10.40.7.9": "172.20.1.200"}, {}),
        (
            [{"dst": "FD00:40:0::/48", "gw": "fd00:20:1:0::0200"}, {"dst": "10.0.0.0/8", "gw": "172.20.1.3"}],
            {"10.0.0.0/8": "172.20.1.3"},
            {"fd00:40::/48": "fd00:20:1::200"},
        ),
        ([{"dst": "10.40.0.0/16", "gw": "172.20.9.1"}], {}, {}),
        ([{"dst": "10.50.0.0/16", "gw": "172.20.1.200"}], {"10.50.0.0/16": "172.20.1.200"}, {}),
        ([{"dst": "0.0.0.0/0", "gw": "172.20.1.200"}], {"default": "172.20.1.200"}, {}),
        ([], {}, {}),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("annotation", ["ippool", "ippools"])
def test_routes(
    world: World,
    annotation: str,
    wished: list[Json],
    expected: dict[str, str],
    expected6: dict[str, str],
) -> None:
    """Exactly these, beside those of the pool, of which the pod's own take the place."""
    v4, v6 = gated(1, routes=[{"dst": "10.50.0.0/16", "gw": "172.20.1.7"}])
    world.apply(v4, v6)
    pools = {"ipv4": ["p1"], "ipv6": ["q1"]}
    wanted: Json = {annotation: pools if annotation == "ippool" else [{"interface": "eth0"} | pools]}
    running = world.start(pod("web", SHOP, routes=wished, **wanted))
    of_pool = {"default": "172.20.1.1", "10.50.0.0/16": "172.20.1.7"}
    assert routes(running) == of_pool | expected
    assert routes(running, family=6) == {"default": "fd00:20:1::1"} | expected6


@case("A00002")
@pytest.mark.parametrize(
    "wished",
    [
        [{"dst": "10.40.0.0/16", "gw": "fd00:20:1::1"}],
        [{"dst": "fd00:40::/64", "gw": "172.20.1.1"}],
        [{"dst": "10.40.0.0/33", "gw": "172.20.1.1"}],
        [{"dst": "10.40.0.0", "gw": "172.20.1.1"}],
        [{"dst": "10.40.0.0/16"}],
        {"dst": "10.40.0.0/16", "gw": "172.20.1.1"},
        "[",
    ],
    ids=str,
)
def test_routes_that_are_none(world: World, wished: object) -> None:
    world.apply(*gated(1))
    assert "routes" in world.never_starts(pod("web", SHOP, ippool={"ipv4": ["p1"]}, routes=wished)).text
    assert world.records("p1") == {}


@case("A00002")
@pytest.mark.parametrize("configurations", [None, EACH], ids=["together", "each"])
def test_routes_of_two_interfaces(world: World, configurations: dict[str, Json] | None) -> None:
    """Each by the interface whose subnet has its gateway; where both pools name one destination, the first interface has it."""
    both = [{"dst": "10.50.0.0/16", "gw": "172.20.{}.7"}]
    pools = [
        gated(n, routes=[{"dst": one["dst"], "gw": one["gw"].format(n)} for one in both])[0] for n in (1, 2)
    ]
    world.apply(*pools, network("extra"))
    wished = [{"dst": "10.42.0.0/16", "gw": "172.20.2.9"}, {"dst": "10.41.0.0/16", "gw": "172.20.1.9"}]
    running = world.start(
        pod("web", SHOP, networks=EXTRA, ippools=[item("eth0", 1), item("net1", 2)], routes=wished),
        configurations=configurations,
    )
    assert routes(running) == {
        "default": "172.20.1.1",
        "10.50.0.0/16": "172.20.1.7",
        "10.41.0.0/16": "172.20.1.9",
    }
    assert routes(running, "net1") == {"10.42.0.0/16": "172.20.2.9"}


@case("A00011")
@pytest.mark.parametrize("clean", [False, True, None])
@pytest.mark.parametrize("key", ["cleangateway", "cleanGateway"])
def test_the_default_route(world: World, key: str, clean: bool | None) -> None:
    world.apply(*gated(1, routes=[{"dst": "10.50.0.0/16", "gw": "172.20.1.7"}]))
    wanted = item("eth0", 1, ipv6=["q1"]) | ({} if clean is None else {key: clean})
    running = world.start(pod("web", SHOP, ippools=[wanted]))
    expected = {"10.50.0.0/16": "172.20.1.7"}
    assert routes(running) == (expected if clean else {"default": "172.20.1.1"} | expected)
    assert routes(running, family=6) == ({} if clean else {"default": "fd00:20:1::1"})
    (told,) = world.endpoints(SHOP)["web"]["status"]["current"]["ips"]
    assert (told["ipv4Gateway"], told["ipv6Gateway"]) == ("172.20.1.1", "fd00:20:1::1")
    assert told["cleanGateway"] is bool(clean)


@case("A00012")
@pytest.mark.parametrize(
    ("networks", "nic", "through"),
    [
        (EXTRA, "net1", "net1"),
        (EXTRA, "eth0", "eth0"),
        (EXTRA, "", "eth0"),
        (f"{EXTRA}@data0", "data0", "data0"),
        (f"{EXTRA},{EXTRA}", "net2", "net2"),
    ],
)
def test_default_route_nic(world: World, networks: str, nic: str, through: str) -> None:
    world.apply(*gated(1), *gated(2), network("extra", ipv4=["p2"], ipv6=["q2"]))
    marks: Json = {"default_route_nic": nic} if nic else {}
    running = world.start(
        pod("web", SHOP, networks=networks, **marks),
        configuration=native(ippools={"ipv4": ["p1"], "ipv6": ["q1"]}),
    )
    for family, gateway in GATEWAYS.items():
        found = {ifname: routes(running, ifname, family).get("default") for ifname in running.addresses}
        number = 1 if through == "eth0" else 2
        assert found == dict.fromkeys(running.addresses) | {through: gateway.format(number)}


@case("A00012")
@pytest.mark.parametrize("nic", ["net2", "eth1", "NET1"])
def test_a_default_route_nic_that_is_not_there(world: World, nic: str) -> None:
    world.apply(*gated(1), network("extra", ipv4=["p1"]))
    text = world.never_starts(
        pod("web", SHOP, networks=EXTRA, ippool={"ipv4": ["p1"]}, default_route_nic=nic)
    ).text
    assert f"podDefaultRouteNIC: {nic} don't exist in pod" in text
    assert world.records("p1") == {}


@case("D00002")
@pytest.mark.parametrize("family", [4, 6])
def test_routes_for_later_pods(world: World, family: int) -> None:
    plain = net(1) if family == 4 else net6(1)
    ippool = {f"ipv{family}": [plain["metadata"]["name"]]}
    gateway = GATEWAYS[family].format(1)
    route = {"dst": "10.60.0.0/16" if family == 4 else "fd00:60::/64", "gw": gateway[:-1] + "9"}
    world.apply(plain)
    first = world.start(pod("web-0", SHOP, ippool=ippool))
    plain["spec"] |= {"gateway": gateway, "routes": [route]}
    world.apply(plain)
    second = world.start(pod("web-1", SHOP, ippool=ippool))
    assert routes(first, family=family) == {}
    assert routes(second, family=family) == {route["dst"]: route["gw"], "default": gateway}
    del plain["spec"]["gateway"], plain["spec"]["routes"]
    world.apply(plain)
    assert routes(world.start(pod("web-2", SHOP, ippool=ippool)), family=family) == {}
