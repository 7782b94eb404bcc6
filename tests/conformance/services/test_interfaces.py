"""Pods of several interfaces: which pool each draws from, whatever names and order they have."""

from __future__ import annotations

import json

import pytest

from tests.conformance.case import case
from tests.conformance.objects import (
    DEFAULT_NETWORK,
    SHOP,
    Json,
    again,
    native,
    network,
    pod,
    pool,
    stateful_set,
)
from tests.conformance.services.numbered import BY_NAME, EACH, EXTRA, drawn, item, net, net6
from tests.conformance.world import NotStarted, World


@case("A00010")
@pytest.mark.parametrize("configurations", [None, EACH], ids=["together", "each"])
@pytest.mark.parametrize("order", ["named", "reversed", "nameless"])
def test_two_interfaces(world: World, order: str, configurations: dict[str, Json] | None) -> None:
    world.apply(*map(net, (1, 2, 3, 4)), network("extra", ipv4=["p4"]))

    def pools(*numbers: int) -> list[Json]:
        names = ("", "") if order == "nameless" else ("eth0", "net1")
        items = [item(name, number) for name, number in zip(names, numbers, strict=True)]
        return items[::-1] if order == "reversed" else items

    first = pod("web", SHOP, networks=EXTRA, ippools=pools(1, 2))
    running = world.start(first, configurations=configurations)
    assert drawn(running) == {"eth0": [1], "net1": [2]}
    world.end(running)
    running = world.start(again(first, ippools=pools(3, 4)), configurations=configurations)
    assert drawn(running) == {"eth0": [3], "net1": [4]}
    world.sane("p1", "p2", "p3", "p4")


@case("A00010")
@pytest.mark.parametrize("named", [True, False])
def test_four_interfaces_of_both_families(world: World, named: bool) -> None:
    """One network twice, one under a name of its own; two interfaces from one pool have an address each."""
    world.apply(*map(net, (1, 2, 3)), *map(net6, (1, 2)), network("extra"), network("more", SHOP))
    networks = f"{EXTRA},more@data0, {EXTRA}"
    names = ("eth0", "net1", "data0", "net3")
    wanted = [
        {"ipv4": ["p1"], "ipv6": ["q1"]},
        {"ipv4": ["p2"], "ipv6": ["q2"]},
        {"ipv4": ["p2"]},
        {"ipv6": ["q2"], "ipv4": ["p3"]},
    ]
    items = [{"interface": name} | one for name, one in zip(names, wanted, strict=True)] if named else wanted
    running = world.start(pod("web", SHOP, networks=networks, ippools=items))
    assert drawn(running) == {"eth0": [1, 1], "net1": [2, 2], "data0": [2], "net3": [3, 2]}
    world.sane("p1", "p2", "p3", "q1", "q2")
    (told,) = world.endpoints(SHOP).values()
    assert next(one["interface"] for one in told["status"]["current"]["ips"]) == "eth0"


@case("A00010")
@pytest.mark.parametrize("configurations", [None, EACH], ids=["together", "each"])
def test_ippool_is_for_every_interface(world: World, configurations: dict[str, Json] | None) -> None:
    """Also one whose network names pools itself; each has an address of its own."""
    world.apply(net(1), net6(1), net(2), network("extra", ipv4=["p2"]))
    wanted = pod("web", SHOP, networks=EXTRA, ippool={"ipv4": ["p1"], "ipv6": ["q1"]})
    assert drawn(world.start(wanted, configurations=configurations)) == {"eth0": [1, 1], "net1": [1, 1]}
    world.sane("p1", "q1", "p2")


@pytest.mark.parametrize(
    ("items", "text"),
    [
        pytest.param([item("net1", 2)], "interface eth0 must be specified", marks=case("A00013")),
        pytest.param([item("eth0", 1)], "interface net1 must be specified", marks=case("A00013")),
        pytest.param(
            [item("net1", 1), item("net2", 2)], "interface eth0 must be specified", marks=case("A00013")
        ),
        pytest.param([item("", 1)], "interface net1 must be specified", marks=case("A00013")),
        pytest.param([item("eth0", 1), item("eth0", 2)], "duplicate interface eth0", marks=case("A00014")),
        pytest.param([item("eth0", 1), item("eth0", 1)], "duplicate interface eth0", marks=case("A00014")),
        pytest.param(
            [item("eth0", 1), item("net1", 2), item("net1", 1)],
            "duplicate interface net1",
            marks=case("A00014"),
        ),
        pytest.param(
            [item("net1", 1), item("eth0", 2), item("net1", 2)],
            "duplicate interface net1",
            marks=case("A00014"),
        ),
        pytest.param(
            [item("eth0", 1), item("", 2)],
            "either all specified or all unspecified",
            marks=case("A00014"),
        ),
    ],
)
@pytest.mark.parametrize("configurations", [None, EACH], ids=["together", "each"])
def test_ippools_that_do_not_fit(
    world: World, items: list[Json], text: str, configurations: dict[str, Json] | None
) -> None:
    world.apply(net(1), net(2), network("extra"))
    failure = world.never_starts(
        pod("web", SHOP, networks=EXTRA, ippools=items), configurations=configurations
    )
    assert text in failure.text
    assert world.records("p2") == {}
    # of two ADDs the first may have succeeded: the pod lives, and keeps what it has for its next try
    assert not world.records("p1") or (configurations and "net1 must" in text)


@case("A00016")
@pytest.mark.parametrize("configurations", [None, EACH], ids=["together", "each"])
@pytest.mark.parametrize("sizes", [(1, 2), (2, 1), (1, 9)])
@pytest.mark.parametrize("annotated", [True, False])
def test_no_pool_is_drained_by_retries(
    world: World, sizes: tuple[int, int], annotated: bool, configurations: dict[str, Json] | None
) -> None:
    world.apply(
        *(
            pool(f"p{n}", f"172.20.{n}.0/24", [f"172.20.{n}.10-172.20.{n}.{9 + size}"])
            for n, size in enumerate(sizes, start=1)
        ),
        network("extra", ipv4=["p2"]),
    )
    marks: Json = {"ippools": [item("eth0", 1), item("net1", 2)]} if annotated else {}
    if not annotated:
        own = native(ippools={"ipv4": ["p1"]})
        configurations = (
            {"eth0": own} if configurations is None else EACH | {"eth0": own | {"multiNetwork": ""}}
        )
    pods = [pod(f"web-{n}", SHOP, networks=EXTRA, **marks) for n in range(2)]
    world.start(pods[0], configurations=configurations)
    world.apply(pods[1])
    for _ in range(3):
        with pytest.raises(NotStarted, match="all IP addresses used out"):
            world.sandbox(pods[1], configurations=configurations)
    counts = [len(world.records(name)) for name in ("p1", "p2")]
    assert max(counts) <= 2
    assert counts[sizes.index(min(sizes))] == 1
    assert counts[sizes.index(max(sizes))] <= 2
    world.end(world.running[0])
    world.sandbox(pods[1], configurations=configurations)
    world.sane("p1", "p2")


@case("A00017")
@pytest.mark.parametrize("configurations", [False, True], ids=["together", "each"])
def test_a_further_network_changes_its_pool(world: World, configurations: bool) -> None:
    world.apply(*map(net, (1, 2, 3)), *map(net6, (1, 2, 3)), network("extra", ipv4=["p2"], ipv6=["q2"]))
    owner = stateful_set("db", SHOP, replicas=2)
    world.apply(owner)
    own = native(ippools={"ipv4": ["p1"], "ipv6": ["q1"]})
    calls = {"eth0": own | {"multiNetwork": ""}, "net1": BY_NAME} if configurations else {"eth0": own}
    pods = [pod(f"db-{n}", SHOP, owner=owner, networks=EXTRA) for n in range(2)]
    first = [world.start(one, configurations=calls) for one in pods]
    assert [drawn(one) for one in first] == [{"eth0": [1, 1], "net1": [2, 2]}] * 2

    world.apply(network("extra", ipv4=["p3"], ipv6=["q3"]))
    for before in first:
        world.end(before)
        after = world.start(again(before.manifest), configurations=calls)
        assert drawn(after)["net1"] == [3, 3]
        assert after.addresses["eth0"] == before.addresses["eth0"]
    world.sane("p1", "p2", "p3", "q1", "q2", "q3")


@case("A00018")
@pytest.mark.parametrize("configurations", [None, EACH], ids=["together", "each"])
@pytest.mark.parametrize("after", [(1, 3), (3, 2), (3, 4), (2, 1)], ids=str)
def test_nameless_ippools_of_a_stateful_set(
    world: World, after: tuple[int, int], configurations: dict[str, Json] | None
) -> None:
    world.apply(*map(net, (1, 2, 3, 4)), network("extra"))
    owner = stateful_set("db", SHOP, replicas=1)
    world.apply(owner)
    first = pod("db-0", SHOP, owner=owner, networks=EXTRA, ippools=[{"ipv4": ["p1"]}, {"ipv4": ["p2"]}])
    running = world.start(first, configurations=configurations)
    assert drawn(running) == {"eth0": [1], "net1": [2]}
    kept = running.addresses
    world.end(running)
    running = world.start(again(first), configurations=configurations)
    assert running.addresses == kept
    world.end(running)
    items = [{"ipv4": [f"p{number}"]} for number in after]
    running = world.start(again(first, ippools=items), configurations=configurations)
    assert drawn(running) == {"eth0": [after[0]], "net1": [after[1]]}
    world.sane("p1", "p2", "p3", "p4")


@pytest.mark.parametrize(
    "indent", [pytest.param(None, marks=case("M00036")), pytest.param(2, marks=case("M00037"))]
)
@pytest.mark.parametrize(
    "wanted",
    [
        [{"name": "extra", "namespace": "kube-system", "interface": "data0"}],
        [{"name": "extra", "namespace": "kube-system", "interface": "data0", "cni-args": {"a": [1]}, "portMappings": []}],
        [{"interface": "data0", "Name": "extra", "NAMESPACE": "kube-system"}, {"name": "own"}],
    ],
    ids=["one", "more keys", "two"],
)  # fmt: skip
def test_networks_as_json(world: World, wanted: list[Json], indent: int | None) -> None:
    world.apply(*map(net, (1, 2, 3)), network("extra", ipv4=["p2"]), network("own", SHOP, ipv4=["p3"]))
    text = json.dumps(wanted, indent=indent, separators=(",", ":") if indent is None else None)
    running = world.start(
        pod("web", SHOP, networks=text if indent is None else f"\n{text}\n"),
        configuration=native(ippools={"ipv4": ["p1"]}),
    )
    assert drawn(running) == {"eth0": [1], "data0": [2]} | ({"net2": [3]} if len(wanted) > 1 else {})
    world.sane("p1", "p2", "p3")


@case("M00036")
def test_a_default_network_as_json(world: World) -> None:
    world.apply(net(1), network("extra", ipv4=["p1"]))
    wanted = pod("web", SHOP)
    wanted["metadata"]["annotations"][DEFAULT_NETWORK] = json.dumps(
        [{"name": "extra", "namespace": "kube-system"}]
    )
    assert drawn(world.start(wanted)) == {"eth0": [1]}
