"""What a pool may be, what its changes do, and addresses that nobody gets."""

from __future__ import annotations

import pytest

from tests.conformance.case import case
from tests.conformance.objects import GROUP, Json, native, network, pod, pool
from tests.conformance.services.conftest import SHOP
from tests.conformance.world import NotStarted, Refused, World, until

IPPOOL = {"ipv4": ["ours"]}
_MOST = 2**63 - 1


def ours(ips: str = "172.20.1.10-172.20.1.19", **spec: object) -> Json:
    return pool("ours", "172.20.1.0/24", [ips], **spec)


@case("D00001")
def test_an_address_of_another_pool(world: World) -> None:
    other = pool("other", "172.20.1.0/24", ["172.20.1.20-172.20.1.29"])
    world.apply(ours(), other)
    other["spec"]["ips"].append("172.20.1.19")
    with pytest.raises(Refused, match="overlap"):
        world.review(other)


@case("D00003")
@pytest.mark.parametrize(
    ("subnet", "right", "wrong"),
    [
        (
            "172.20.1.0/24",
            {"gateway": "172.20.1.1", "routes": [{"dst": "10.0.0.0/8", "gw": "172.20.1.2"}]},
            [
                {"gateway": "172.20.2.1"},
                {"gateway": "fd00::1"},
                {"routes": [{"dst": "10.0.0.0/33", "gw": "172.20.1.2"}]},
                {"routes": [{"dst": "10.0.0.0/8", "gw": "172.20.2.2"}]},
            ],
        ),
        (
            "fd00:20:1::/64",
            {"gateway": "fd00:20:1::1", "routes": [{"dst": "fd00:99::/64", "gw": "fd00:20:1::2"}]},
            [
                {"gateway": "fd00:20:2::1"},
                {"gateway": "172.20.1.1"},
                {"routes": [{"dst": "fd00:99::/129", "gw": "fd00:20:1::2"}]},
                {"routes": [{"dst": "fd00:99::/64", "gw": "fd00:20:2::2"}]},
            ],
        ),
    ],
)
def test_gateway_and_routes(world: World, subnet: str, right: Json, wrong: list[Json]) -> None:
    last = subnet.replace(".0/24", ".9").replace("::/64", "::9")
    world.apply(pool("ours", subnet, [last]))
    world.review(pool("ours", subnet, [last], **right))
    for spec in wrong:
        with pytest.raises(Refused, match=r"gateway|routes"):
            world.review(pool("ours", subnet, [last], **spec))


@case("D00005")
def test_disable(world: World) -> None:
    world.apply(ours())
    running = world.start(pod("web-0", SHOP, ippool=IPPOOL))
    world.apply(ours(disable=True))
    with pytest.raises(NotStarted, match="ours"):
        world.start(pod("web-1", SHOP, ippool=IPPOOL))
    world.end(running)
    world.sane("ours")


@pytest.mark.parametrize(
    ("named", "starts"),
    [
        pytest.param("kube-system/extra", True, marks=case("D00009")),
        pytest.param("kube-system/other", False, marks=case("D00010")),
    ],
)
def test_multus_name(world: World, named: str, starts: bool) -> None:
    world.apply(
        ours(),
        pool("bound", "172.20.2.0/24", ["172.20.2.10"], multusName=[named]),
        network("extra", ipv4=["bound"]),
    )
    wanted = pod("web", SHOP, networks="kube-system/extra")
    configured = native(ippools={"ipv4": ["ours"]})
    if starts:
        assert world.start(wanted, configuration=configured).addresses["net1"] == ["172.20.2.10"]
    else:
        with pytest.raises(NotStarted, match="bound"):
            world.start(wanted, configuration=configured)
    world.sane("ours", "bound")


@case("D00017")
def test_a_huge_pool(world: World) -> None:
    world.apply(pool("huge", "fd00:20::/32", ["fd00:20:0:1::1-fd00:20:ffff:ffff:ffff:ffff:ffff:fffe"]))
    (address,) = world.start(pod("web", SHOP, ippool={"ipv6": ["huge"]})).all_addresses()
    assert address == "fd00:20:0:1::1"
    until(lambda: world.pool("huge").get("status", {}).get("totalIPCount") == _MOST, "the total saturates")
    world.sane("huge")


@case("S00001")
def test_a_reserved_address(world: World) -> None:
    reserved = {"apiVersion": GROUP, "kind": "SpiderReservedIP", "metadata": {"name": "printer"}}
    reserved["spec"] = {"ips": ["172.20.1.10"]}
    world.apply(ours("172.20.1.10"), reserved)
    wanted = pod("web", SHOP, ippool=IPPOOL)
    with pytest.raises(NotStarted, match="all IP addresses used out"):
        world.start(wanted)
    world.remove(reserved)
    assert world.sandbox(wanted).all_addresses() == ["172.20.1.10"]
    world.sane("ours")


@case("S00002")
def test_an_excluded_address(world: World) -> None:
    world.apply(ours("172.20.1.10-172.20.1.11", excludeIPs=["172.20.1.10"]))
    assert world.start(pod("web-0", SHOP, ippool=IPPOOL)).all_addresses() == ["172.20.1.11"]
    with pytest.raises(NotStarted, match="all IP addresses used out"):
        world.start(pod("web-1", SHOP, ippool=IPPOOL))
    world.sane("ours")


@case("S00003")
def test_excluding_an_address_in_use(world: World) -> None:
    world.apply(ours())
    (address,) = world.start(pod("web", SHOP, ippool=IPPOOL)).all_addresses()
    with pytest.raises(Refused, match=address):
        world.review(ours(excludeIPs=[address]))
    world.review(ours(excludeIPs=["172.20.1.19"]))
