"""Which of several sources a pod's pools come from, and what an annotation may say."""

from __future__ import annotations

import pytest

from tests.conformance.case import case
from tests.conformance.objects import (
    SHOP,
    Json,
    again,
    namespace,
    native,
    network,
    owned,
    pod,
    settings,
    stateful_set,
)
from tests.conformance.services.numbered import drawn, item, net, net6, of
from tests.conformance.world import World, until

_WRONG: list[Json] = [
    {"ippool": {"ipv4": ["no-such-pool"]}},
    {"ippool": {"ipv4": ["p1", "no-such-pool"]}},
    {"ippool": {"ipv4": ["p1"], "ipv6": ["no-such-pool"]}},
    {"ippool": {"ipv4": ["no-such-*"]}},
    {"ippool": {"ipv4": ["p[]1"]}},
    {"ippool": {"ipv6": ["p1"]}},
    {"ippool": {"ipv4": ["p1", "p1"]}},
    {"ippool": {"ipv4": "p1"}},
    {"ippool": {"ipv5": ["p1"]}},
    {"ippool": {}},
    {"ippool": ["p1"]},
    {"ippool": ""},
    {"ippool": "p1"},
    {"ippool": "null"},
    {"ippool": '{"ipv4": ["p1"'},
    {"ippool": '{"ipv4": ["p1"],}'},
    {"ippools": [{"interface": "eth0", "ipv4": ["no-such-pool"]}]},
    {"ippools": [{"ipv4": ["no-such-pool"]}]},
    {"ippools": [{"interface": "eth0", "ipv5": ["p1"]}]},
    {"ippools": [{"interface": "eth0"}]},
    {"ippools": [{}]},
    {"ippools": []},
    {"ippools": {"interface": "eth0", "ipv4": ["p1"]}},
    {"ippools": [{"interface": "eth0", "ipv4": ["p1"], "cleangateway": "true"}]},
    {"ippools": "[{"},
    {"ippools": [], "ippool": {"ipv4": ["p1"]}},
]


@case("A00003")
@pytest.mark.parametrize("annotations", _WRONG, ids=str)
def test_wrong_annotations(world: World, annotations: Json) -> None:
    """Although the cluster has a default pool: what the annotation says is used alone."""
    world.apply(net(1), net(8, default=True))
    assert len(world.never_starts(pod("web", SHOP, **annotations)).text) > 20
    assert world.records("p1") == world.records("p8") == {}


_FIRST: list[Json] = [
    {"ippool": {"ipv4": ["p1"]}},
    {"ippool": {"IPv4": ["p1"], "IPV6": None, "other": {"ipv6": ["q4"]}}},
    {"ippool": ' {"ipv4" :\n["p1"]}\n'},
    {"ippools": [item("eth0", 1)]},
    {"ippools": [item("", 1)]},
    {"ippools": [{"Interface": "eth0", "IPV4": ["p1"], "CleanGateway": False, "vlan": 3}]},
]


@case("A00004")
@pytest.mark.parametrize("annotation", _FIRST, ids=str)
def test_the_pod_is_asked_first(world: World, annotation: Json) -> None:
    world.apply(
        *map(net, (1, 2, 3)),
        net(4, default=True),
        net6(4, default=True),
        namespace(SHOP, default_ipv4_ippool=["p2"]),
    )
    configured = native(ippools={"ipv4": ["p3"]})
    running = world.start(pod("web", SHOP, **annotation), configuration=configured)
    assert [of(one) for one in running.all_addresses()] == [1]
    second = world.start(pod("plain", SHOP), configuration=configured)
    assert [of(one) for one in second.all_addresses()] == [2]
    world.apply(namespace(SHOP, default_ipv4_ippool=[], default_ipv6_ippool=[]))
    third = world.start(pod("bare", SHOP), configuration=configured)
    assert [of(one) for one in third.all_addresses()] == [3]
    last = world.start(pod("last", SHOP))
    assert drawn(last) == {"eth0": [4, 4]}
    world.sane("p1", "p2", "p3", "p4", "q4")


@case("A00004")
def test_a_source_is_not_completed_by_the_next(world: World) -> None:
    """A family that the first source leaves out is not taken from the second."""
    world.apply(net(1), net6(2), net6(3, default=True), namespace(SHOP, default_ipv6_ippool=["q2"]))
    running = world.start(pod("web", SHOP, ippool={"ipv4": ["p1"]}))
    assert [of(one) for one in running.all_addresses()] == [1]
    running = world.start(pod("plain", SHOP), configuration=native(ippools={"ipv4": ["p1"]}))
    assert [of(one) for one in running.all_addresses()] == [2]
    world.sane("p1", "q2", "q3")


@case("A00005")
@pytest.mark.parametrize("ifname", ["eth0", ""])
@pytest.mark.parametrize("other", [{"ipv4": ["p1"]}, {"ipv4": ["no-such-pool"]}, {"ipv6": ["q1"]}])
def test_ippools_beats_ippool(world: World, ifname: str, other: Json) -> None:
    world.apply(net(1), net(2), net6(1))
    running = world.start(pod("web", SHOP, ippool=other, ippools=[item(ifname, 2)]))
    assert [of(one) for one in running.all_addresses()] == [2]
    world.sane("p1", "p2", "q1")


@case("A00006")
def test_the_namespace_beats_the_default_pool(world: World) -> None:
    world.apply(net(1, default=True), net(2), namespace(SHOP, default_ipv4_ippool=["p2"]), namespace("plain"))
    assert [of(one) for one in world.start(pod("web", SHOP)).all_addresses()] == [2]
    assert [of(one) for one in world.start(pod("web", "plain")).all_addresses()] == [1]
    world.sane("p1", "p2")


@case("A00006")
def test_a_namespace_of_both_families(world: World) -> None:
    """A pool that is full or may not serve makes place for the next of the list; the default pools are not asked."""
    world.apply(
        *(net(1, default=True), net6(1, default=True), net(2, disable=True), net(3), net6(3)),
        namespace(SHOP, default_ipv4_ippool=["p2", "p3"], default_ipv6_ippool=["q3"]),
    )
    assert drawn(world.start(pod("web", SHOP))) == {"eth0": [3, 3]}
    world.sane("p1", "q1", "p2", "p3", "q3")


@case("A00007")
@pytest.mark.parametrize("pattern", ["red-*", "red-?", "red-[12]", "r*d-?", "*-[0-2]", "red*"])
def test_a_wildcard_of_the_namespace(world: World, pattern: str) -> None:
    world.apply(
        *(net(1, "red-1"), net(2, "red-2"), net(3, "blue-9"), net6(4, "red-3")),
        namespace(SHOP, default_ipv4_ippool=[pattern]),
    )
    found = {of(world.start(pod(f"web-{n}", SHOP)).all_addresses()[0]) for n in range(11)}
    assert found == {1, 2}, "one pool has ten addresses"
    world.sane("red-1", "red-2", "blue-9", "red-3")


@case("A00007")
def test_wildcards_of_both_families_and_a_name(world: World) -> None:
    world.apply(
        *(net(1, "red-1"), net(2, "blue-1"), net6(3, "red-v6")),
        namespace(SHOP, default_ipv4_ippool=["blue-1", "red-*", "*-1"], default_ipv6_ippool=["red-*"]),
    )
    assert drawn(world.start(pod("web", SHOP))) == {"eth0": [2, 3]}
    world.apply(namespace(SHOP, default_ipv4_ippool=["red-*"], default_ipv6_ippool=["green-*"]))
    assert drawn(world.start(pod("single", SHOP))) == {"eth0": [1]}
    world.apply(namespace(SHOP, default_ipv4_ippool=["green-*"]))
    assert "eth0" in world.never_starts(pod("none", SHOP)).text
    world.sane("red-1", "blue-1", "red-v6")


@case("A00008")
@pytest.mark.parametrize("count", [2, 3, 8])
def test_several_containers(world: World, count: int) -> None:
    world.apply(net(1), net6(1))
    running = world.start(pod("web", SHOP, containers=count, ippool={"ipv4": ["p1"], "ipv6": ["q1"]}))
    assert drawn(running) == {"eth0": [1, 1]}
    world.sane("p1", "q1")


@case("A00009")
@pytest.mark.parametrize("annotation", ["ippool", "ippools"])
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_another_pool_in_the_template(world: World, kind: str, annotation: str) -> None:
    world.apply(*map(net, (1, 2)), *map(net6, (1, 2)))

    def pools(number: int) -> Json:
        wanted = {"ipv4": [f"p{number}"], "ipv6": [f"q{number}"]}
        return {annotation: wanted if annotation == "ippool" else [{"interface": "eth0"} | wanted]}

    owner = stateful_set("web", SHOP, replicas=2) if kind == "StatefulSet" else owned(kind, "web", SHOP)
    world.apply(owner)
    before = [pod(f"web-{n}", SHOP, owner=owner, **pools(1)) for n in range(2)]
    for running in [world.start(one) for one in before]:
        world.end(running)
    after = [world.start(again(one, **pools(2))) for one in before]
    assert [drawn(one) for one in after] == [{"eth0": [2, 2]}] * 2
    world.sane("p1", "p2", "q1", "q2")
    uids = {one.name: one.manifest["metadata"]["uid"] for one in after}
    until(
        lambda: (
            {name: one["status"]["current"]["uid"] for name, one in world.endpoints(SHOP).items()} == uids
        ),
        "endpoints are of the new pods",
    )
    for one in world.endpoints(SHOP).values():
        (detail,) = one["status"]["current"]["ips"]
        assert (detail["ipv4Pool"], detail["ipv6Pool"]) == ("p2", "q2")


@case("A00015")
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("first", "second"), [("red-?", "b*"), ("re[c-e]-*", "*lue-1"), ("red-*", "blue-[\\1]")]
)
def test_wildcards_in_ippools(world: World, named: bool, first: str, second: str) -> None:
    world.apply(
        net(1, "red-1"),
        net(2, "red-2"),
        net(3, "blue-1"),
        net6(3, "red-v6"),
        net6(4, "blue-v6"),
        network("extra"),
    )
    items = [{"ipv4": [first], "ipv6": ["red-*"]}, {"ipv4": [second], "ipv6": ["*blue*"]}]
    if named:
        items = [{"interface": name} | one for name, one in zip(("eth0", "net1"), items, strict=True)]
    running = world.start(pod("web", SHOP, networks="kube-system/extra", ippools=items))
    found = drawn(running)
    assert found["eth0"] in ([1, 3], [2, 3])
    assert found["net1"] == [3, 4]
    world.sane("red-1", "red-2", "blue-1", "red-v6", "blue-v6")


@case("A00015")
def test_wildcards_of_a_network(world: World) -> None:
    world.apply(net(1, "red-1"), net(2, "blue-1"), network("extra", ipv4=["blue-*"]))
    running = world.start(
        pod("web", SHOP, networks="kube-system/extra"), configuration=native(ippools={"ipv4": ["red-[0-9]"]})
    )
    assert drawn(running) == {"eth0": [1], "net1": [2]}


@case("E00009")
@pytest.mark.parametrize(
    ("off", "wanted", "found"),
    [
        ("enableIPv6", {"ipv4": ["p1"], "ipv6": ["no-such-pool"]}, 1),
        ("enableIPv4", {"ipv4": ["no-such-pool"], "ipv6": ["q1"]}, 1),
        ("enableIPv6", {"ipv6": ["no-such-pool"]}, 0),
    ],
)
def test_a_family_that_is_off(world: World, off: str, wanted: Json, found: int) -> None:
    """Pools of a family that the cluster has not are left out silently."""
    world.apply(net6(1) if off == "enableIPv4" else net(1), settings({off: False}))
    if found:
        assert drawn(world.start(pod("web", SHOP, ippool=wanted))) == {"eth0": [found]}
    else:
        assert "eth0" in world.never_starts(pod("web", SHOP, ippool=wanted)).text
