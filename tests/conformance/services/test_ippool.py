"""What a pool may be, what its changes do, and which networks it serves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.case import case
from tests.conformance.objects import (
    DEFAULT_NETWORK,
    GROUP,
    SHOP,
    Json,
    native,
    network,
    pod,
    pool,
    settings,
)
from tests.conformance.services.numbered import EACH
from tests.conformance.world import NotStarted, Refused, World, until

IPPOOL = {"ipv4": ["ours"]}
_MOST = 2**63 - 1
FOUR, SIX = "172.20.1.{}", "fd00:20:1::{}"
SUBNETS = {FOUR: "172.20.1.0/24", SIX: "fd00:20:1::/64"}


def ours(*ips: str, family: str = FOUR, name: str = "ours", **spec: object) -> Json:
    """Addresses 10 to 19, or `ips`."""
    found = list(ips) or [f"{family.format(10)}-{family.format(19)}"]
    return pool(name, SUBNETS[family], found, **spec)


@case("D00001")
@pytest.mark.parametrize("family", [FOUR, SIX])
@pytest.mark.parametrize(
    ("added", "excluded", "is_refused"),
    [
        ("{19}", "", True),
        ("{19}-{21}", "", True),
        ("{5}-{99}", "", True),
        ("{10}-{19}", "{11}-{19}", True),
        ("{10}-{19}", "{10}-{19}", False),
        ("{9}-{30}", "{10}-{19}", False),
        ("{9}", "", False),
        ("{21}-{29}", "", False),
    ],
)
def test_an_address_of_another_pool(
    world: World, family: str, added: str, excluded: str, is_refused: bool
) -> None:
    """Added to a pool that is there, and in one that is new; what is excluded overlaps with nothing."""
    numbers = {f"{{{n}}}": family.format(n) for n in range(100)}

    def text(pattern: str) -> list[str]:
        for mark, address in numbers.items():
            pattern = pattern.replace(mark, address)
        return [pattern] if pattern else []

    world.apply(ours(family=family), ours(family.format(20), family=family, name="other"))
    more = ours(family.format(20), *text(added), family=family, name="other", excludeIPs=text(excluded))
    new = ours(*text(added), family=family, name="new", excludeIPs=[*text(excluded), family.format(20)])
    for manifest in (more, new):
        if is_refused:
            with pytest.raises(Refused, match="overlap with IPPool ours"):
                world.review(manifest)
        else:
            world.review(manifest)


@case("D00003")
@pytest.mark.parametrize("family", [FOUR, SIX])
def test_gateway_and_routes(world: World, family: str) -> None:
    """Of a new pool as of one that is there."""
    inside, other = family.format(1), SIX if family == FOUR else FOUR
    dst, foreign, long = (
        ("10.0.0.0/8", "fd00:99::/64", "10.0.0.0/33")
        if family == FOUR
        else ("fd00:99::/64", "10.0.0.0/8", "fd00:99::/129")
    )
    outside = inside.replace("20", "21", 1)
    everywhere = "0.0.0.0/0" if family == FOUR else "::/0"
    right: list[Json] = [
        {"gateway": inside, "routes": [{"dst": dst, "gw": family.format(2)}]},
        {"gateway": family.format(15), "excludeIPs": [family.format(15)]},
        {"gateway": "", "routes": []},
        {"routes": [{"dst": dst, "gw": inside}]},
    ]
    wrong: list[Json] = [
        {"gateway": outside},
        {"gateway": other.format(1)},
        {"gateway": family.format(15)},
        {"gateway": f"{inside}/24"},
        {"gateway": "gateway"},
        {"routes": [{"dst": long, "gw": inside}]},
        {"routes": [{"dst": dst.partition("/")[0], "gw": inside}]},
        {"routes": [{"dst": dst, "gw": outside}]},
        {"routes": [{"dst": dst, "gw": other.format(1)}]},
        {"routes": [{"dst": foreign, "gw": inside}]},
        {"routes": [{"dst": everywhere, "gw": inside}]},
        {"routes": [{"dst": dst, "gw": inside}, {"dst": dst, "gw": family.format(2)}]},
        {"routes": [{"dst": dst}]},
        {"routes": [{"gw": inside}]},
    ]
    world.apply(ours(family=family))
    for name in ("ours", "new"):
        base = {"family": family, "name": name}
        ips = () if name == "ours" else (f"{family.format(110)}-{family.format(119)}",)
        for spec in right if name == "ours" else right[:1]:
            world.review(ours(*ips, **base, **spec))
        for spec in (
            wrong if name == "ours" else [one for one in wrong if one.get("gateway") != family.format(15)]
        ):
            with pytest.raises(Refused, match=r"spec\.(gateway|routes)"):
                world.review(ours(*ips, **base, **spec))


@case("D00005")
@pytest.mark.parametrize("family", [FOUR, SIX])
def test_disable(world: World, family: str) -> None:
    world.apply(ours(family=family))
    ippool = {"ipv4" if family == FOUR else "ipv6": ["ours"]}
    running = [world.start(pod(f"web-{n}", SHOP, ippool=ippool)) for n in range(2)]
    world.apply(ours(family=family, disable=True))
    late = pod("late", SHOP, ippool=ippool)
    with pytest.raises(NotStarted, match=r"all IPv. IPPools \[ours\] of eth0 filtered out: ours is disabled"):
        world.start(late)
    world.sane("ours")
    world.end(running[0])
    world.sane("ours")
    world.apply(ours(family=family))
    world.sandbox(late)
    world.sane("ours")


_OWN: list[tuple[Json, set[str]]] = [
    ({}, {"gateway", "routes"}),
    ({"gateway": 3}, {"routes"}),
    ({"routes": []}, {"gateway"}),
    ({"gateway": 3, "routes": []}, set()),
]


@case("D00008")
@pytest.mark.parametrize("family", [FOUR, SIX])
@pytest.mark.parametrize(
    ("own", "inherited"),
    _OWN,
    ids=lambda one: str(one),
)
def test_a_pool_of_a_subnet(world: World, family: str, own: Json, inherited: set[str]) -> None:
    """Gateway and routes of the SpiderSubnet are the pool's, where it has none itself, and of its pods."""
    route = {"dst": "10.7.0.0/16" if family == FOUR else "fd00:7::/64", "gw": family.format(2)}
    whole = subnet(family, gateway=family.format(1), routes=[route])
    spec = own | ({"gateway": family.format(own["gateway"])} if "gateway" in own else {})
    world.apply(whole, ours(family=family, **spec))
    stored = world.pool("ours")
    assert stored["spec"]["gateway"] == (family.format(1) if "gateway" in inherited else spec["gateway"])
    assert stored["spec"]["routes"] == ([route] if "routes" in inherited else [])
    assert stored["metadata"]["labels"]["ipam.spidernet.io/owner-spider-subnet"] == "whole"
    (owner,) = stored["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("SpiderSubnet", "whole", True)
    key, number = ("ipv4", 4) if family == FOUR else ("ipv6", 6)
    running = world.start(pod("web", SHOP, ippool={key: ["ours"]}))
    found = {one["dst"]: one["gateway"] for one in running.routes("eth0", number) if "gateway" in one}
    expected = {"default": stored["spec"]["gateway"]}
    assert found == (expected | {route["dst"]: route["gw"]} if "routes" in inherited else expected)


@case("S00004")
@pytest.mark.parametrize("family", [FOUR, SIX])
def test_exclusions_below_a_subnet(world: World, family: str) -> None:
    excluded = [family.format(10), f"{family.format(12)}-{family.format(18)}"]
    world.apply(subnet(family, excludeIPs=[family.format(30)]), ours(family=family, excludeIPs=excluded))
    assert world.pool("ours")["status"]["totalIPCount"] == 2
    ippool = {"ipv4" if family == FOUR else "ipv6": ["ours"]}
    given = [world.start(pod(f"web-{n}", SHOP, ippool=ippool)).all_addresses()[0] for n in range(2)]
    assert given == [family.format(11), family.format(19)]
    with pytest.raises(NotStarted, match="all IP addresses used out"):
        world.start(pod("late", SHOP, ippool=ippool))
    world.sane("ours")
    beyond = ours(f"{family.format(29)}-{family.format(31)}", family=family, name="beyond")
    with pytest.raises(Refused, match="not contained in controller Subnet whole"):
        world.review(beyond)


def subnet(family: str, **spec: Any) -> Json:
    """SpiderSubnet `whole`: 1 to 99 of the same CIDR."""
    return {
        "apiVersion": GROUP,
        "kind": "SpiderSubnet",
        "metadata": {"name": "whole"},
        "spec": {"subnet": SUBNETS[family], "ips": [f"{family.format(5)}-{family.format(99)}"]} | spec,
    }


@pytest.mark.parametrize(
    ("named", "starts"),
    [
        pytest.param(["kube-system/extra"], True, marks=case("D00009")),
        pytest.param(["extra"], True, marks=case("D00009")),
        pytest.param(["other", "kube-system/extra"], True, marks=case("D00009")),
        pytest.param(["kube-system/other"], False, marks=case("D00010")),
        pytest.param([f"{SHOP}/extra"], False, marks=case("D00010")),
        pytest.param(["extr", "kube-system/extra2"], False, marks=case("D00010")),
    ],
    ids=str,
)
@pytest.mark.parametrize("source", ["network", "named", "nameless", "each"])
def test_multus_name_of_a_further_network(world: World, named: list[str], starts: bool, source: str) -> None:
    """A name without namespace is one of the installation's. The network says its pools itself, or the pod does for each interface."""
    world.apply(ours(), pool("bound", "172.20.2.0/24", ["172.20.2.10"], multusName=named))
    world.apply(network("extra", ipv4=["bound"]) if source in ("network", "each") else network("extra"))
    items = [{"ipv4": ["ours"]}, {"ipv4": ["bound"]}]
    if source == "named":
        items = [{"interface": name} | one for name, one in zip(("eth0", "net1"), items, strict=True)]
    marks: Json = {"ippools": items} if source in ("named", "nameless") else {}
    wanted = pod("web", SHOP, networks="kube-system/extra", **marks)
    own = native(ippools={"ipv4": ["ours"]})
    calls = EACH | {"eth0": own | {"multiNetwork": ""}} if source == "each" else {"eth0": own}
    if starts:
        assert world.start(wanted, configurations=calls).addresses["net1"] == ["172.20.2.10"]
        world.sane("ours", "bound")
    else:
        with pytest.raises(NotStarted, match=r"all IPv4 IPPools \[bound\] of net1 filtered out"):
            world.start(wanted, configurations=calls)
        assert world.records("bound") == {}


@pytest.mark.parametrize(
    ("named", "starts"),
    [
        pytest.param("kube-system/first", True, marks=case("D00009")),
        pytest.param("first", True, marks=case("D00009")),
        pytest.param("kube-system/extra", False, marks=case("D00010")),
    ],
)
@pytest.mark.parametrize("how", ["annotation", "bare annotation", "cluster network", "bare cluster network"])
def test_multus_name_of_eth0(world: World, named: str, starts: bool, how: str) -> None:
    """By the pod's default network, else by the cluster's."""
    world.apply(network("first"), pool("bound", "172.20.2.0/24", ["172.20.2.10"], multusName=[named]))
    wanted = pod("web", SHOP, ippool={"ipv4": ["bound"]})
    name = "first" if "bare" in how else "kube-system/first"
    if "annotation" in how:
        wanted["metadata"]["annotations"][DEFAULT_NETWORK] = name
    else:
        conf = settings({})
        conf["data"]["clusterNetwork"] = name
        world.apply(conf)
    if starts:
        assert world.start(wanted).addresses["eth0"] == ["172.20.2.10"]
    else:
        with pytest.raises(NotStarted, match=r"all IPv4 IPPools \[bound\] of eth0 filtered out"):
            world.start(wanted)
    world.sane("bound")


@case("D00017")
@pytest.mark.parametrize(
    ("subnet", "ips", "excluded", "first"),
    [
        ("fd00:20::/32", ["fd00:20:0:1::1-fd00:20:ffff:ffff:ffff:ffff:ffff:fffe"], [], "fd00:20:0:1::1"),
        (
            "fd12:3456:789a::/48",
            ["fd12:3456:789a:baba::1-fd12:3456:789a:ffff:ffff:ffff:ffff:ffff"],
            [],
            "fd12:3456:789a:baba::1",
        ),
        (
            "fd12:3456:789a::/48",
            ["fd12:3456:789a:2::-fd12:3456:789a:ffff::", "fd12:3456:789a::1-fd12:3456:789a:1::"],
            ["fd12:3456:789a::1-fd12:3456:789a::ffff", "fd12:3456:789a:3::-fd12:3456:789a:4::"],
            "fd12:3456:789a::1:0",
        ),
        ("fd00::/8", ["fd00::1-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"], [], "fd00::1"),
    ],
)
def test_a_huge_pool(world: World, subnet: str, ips: list[str], excluded: list[str], first: str) -> None:
    world.apply(pool("huge", subnet, ips, excludeIPs=excluded))
    until(lambda: world.pool("huge").get("status", {}).get("totalIPCount") == _MOST, "the total saturates")
    running = [world.start(pod(f"web-{n}", SHOP, ippool={"ipv6": ["huge"]})) for n in range(2)]
    assert running[0].all_addresses() == [first]
    world.sane("huge")
    world.end(running[0])
    assert world.start(pod("late", SHOP, ippool={"ipv6": ["huge"]})).all_addresses() == [first]
    world.sane("huge")
