"""Which pods a pool serves: its affinities, and its lists of names."""

from __future__ import annotations

import pytest

from tests.conformance.case import case
from tests.conformance.objects import (
    NODES,
    SHOP,
    ZONE,
    Json,
    again,
    namespace,
    owned,
    pod,
    pool,
    stateful_set,
)
from tests.conformance.world import NotStarted, World, until

POOL = "aff-v4"
IPPOOL = {"ipv4": [POOL]}
SELF = "kubernetes.io/hostname"
TEAM, APP = "example.com/team", "app"
"""Labels of the namespace (a) and of the pod (web)."""


def served(**spec: object) -> Json:
    return pool(POOL, "172.20.1.0/24", ["172.20.1.10-172.20.1.19"], **spec)


def served6(**spec: object) -> Json:
    return pool("aff-v6", "fd00:20:1::/64", ["fd00:20:1::10-fd00:20:1::19"], **spec)


def equal(**labels: str) -> Json:
    return {"matchLabels": labels}


def having(key: str, operator: str, *values: str) -> Json:
    requirement: Json = {"key": key, "operator": operator}
    return {"matchExpressions": [requirement | ({"values": list(values)} if values else {})]}


def selectors(field: str, key: str, value: str, *, yes: str, no: str) -> list[object]:
    """Every operator, right and wrong: the object has `key` with `value`. `yes` and `no` are the cases."""
    other = f"not-{value}"
    right = [
        equal(**{key: value}),
        having(key, "In", other, value),
        having(key, "NotIn", other),
        having(key, "Exists"),
        having("example.com/none", "DoesNotExist"),
        having("example.com/none", "NotIn", value),
        equal(**{key: value}) | having(key, "Exists"),
    ]
    wrong = [
        equal(**{key: other}),
        equal(**{key: value.upper()}),
        equal(**{key: value, "example.com/none": "x"}),
        having(key, "In", other),
        having(key, "NotIn", value),
        having(key, "DoesNotExist"),
        having("example.com/none", "Exists"),
        equal(**{key: value}) | having(key, "NotIn", value),
    ]
    return [
        pytest.param({field: rule}, starts, marks=case(mark), id=f"{mark}-{number}")
        for rules, starts, mark in ((right, True, yes), (wrong, False, no))
        for number, rule in enumerate(rules)
    ]


IN_ZONE_1, IN_ZONE_2 = (equal(**{ZONE: f"zone-{number}"}) for number in (1, 2))
OF_TEAM_A, OF_TEAM_B = (equal(**{TEAM: team}) for team in "ab")


def listed(mark: str, rule: Json, starts: bool) -> object:
    return pytest.param(rule, starts, marks=case(mark), id=f"{mark}-{rule}")


@pytest.mark.parametrize(
    ("rule", "starts"),
    [
        *selectors("nodeAffinity", ZONE, "zone-1", yes="L00001", no="L00002"),
        *selectors("nodeAffinity", SELF, NODES[0], yes="L00001", no="L00002"),
        *selectors("namespaceAffinity", TEAM, "a", yes="L00003", no="L00004"),
        *selectors("podAffinity", APP, "web", yes="L00005", no="L00006"),
        listed("D00011", {"nodeName": [NODES[0]]}, True),
        listed("D00011", {"nodeName": [NODES[1], NODES[0]]}, True),
        listed("D00012", {"nodeName": [NODES[1]]}, False),
        listed("D00012", {"nodeName": ["node", "node-10"]}, False),
        listed("D00013", {"nodeName": [NODES[1]], "nodeAffinity": IN_ZONE_1}, False),
        listed("D00013", {"nodeName": [NODES[0]], "nodeAffinity": IN_ZONE_2}, True),
        listed("D00013", {"nodeName": [], "nodeAffinity": IN_ZONE_1}, True),
        listed("D00013", {"nodeName": [], "nodeAffinity": IN_ZONE_2}, False),
        listed("D00014", {"namespaceName": [SHOP]}, True),
        listed("D00014", {"namespaceName": ["other", SHOP]}, True),
        listed("D00015", {"namespaceName": ["other"]}, False),
        listed("D00015", {"namespaceName": [f"{SHOP}-2", "default"]}, False),
        listed("D00016", {"namespaceName": ["other"], "namespaceAffinity": OF_TEAM_A}, False),
        listed("D00016", {"namespaceName": [SHOP], "namespaceAffinity": OF_TEAM_B}, True),
        listed("D00016", {"namespaceName": [], "namespaceAffinity": OF_TEAM_A}, True),
        listed("D00016", {"namespaceName": [], "namespaceAffinity": OF_TEAM_B}, False),
        listed("L00005", {"nodeName": [NODES[0]], "namespaceName": [SHOP], "podAffinity": equal(app="web")}, True),
        listed("L00006", {"nodeName": [NODES[0]], "namespaceName": [SHOP], "podAffinity": equal(app="db")}, False),
    ],
)  # fmt: skip
def test_one_rule_and_one_pod(world: World, rule: Json, starts: bool) -> None:
    world.apply(namespace(SHOP, {TEAM: "a"}), served(**rule), served6(**rule))
    wanted = pod("web", SHOP, labels={APP: "web"}, ippool=IPPOOL | {"ipv6": ["aff-v6"]})
    if starts:
        four, six = sorted(world.start(wanted).addresses["eth0"], key=len)
        assert (four.startswith("172.20.1."), six.startswith("fd00:20:1::")) == (True, True)
    else:
        with pytest.raises(NotStarted, match=rf"all IPv4 IPPools \[{POOL}\] of eth0 filtered out"):
            world.start(wanted)
    world.sane(POOL, "aff-v6")


@case("L00001")
@case("L00003")
@case("L00005")
@pytest.mark.parametrize(
    "rule",
    [
        {"nodeAffinity": IN_ZONE_1},
        {"nodeName": [NODES[0]]},
        {"namespaceAffinity": OF_TEAM_A},
        {"namespaceName": [SHOP]},
        {"podAffinity": equal(app="web")},
    ],
    ids=str,
)
def test_a_pool_with_a_rule_is_tried_before_one_without(world: World, rule: Json) -> None:
    """Whatever the order of the list; when it is full the other serves."""
    bound = served(**rule)
    bound["spec"]["ips"] = ["172.20.1.10"]
    world.apply(
        namespace(SHOP, {TEAM: "a"}), pool("aff-any", "172.20.2.0/24", ["172.20.2.10-172.20.2.19"]), bound
    )
    pods = [pod(f"web-{n}", SHOP, labels={APP: "web"}, ippool={"ipv4": ["aff-any", POOL]}) for n in range(2)]
    found = [world.start(one).addresses["eth0"][0].rpartition(".")[0] for one in pods]
    assert found == ["172.20.1", "172.20.2"]
    world.sane(POOL, "aff-any")


@case("L00001")
@case("L00003")
def test_labels_that_change(world: World) -> None:
    """They count as they are when a pod starts; who runs stays."""
    world.apply(namespace(SHOP, {TEAM: "b"}), served(namespaceAffinity=OF_TEAM_A))
    wanted = pod("web", SHOP, ippool=IPPOOL)
    with pytest.raises(NotStarted, match=POOL):
        world.start(wanted)
    world.apply(namespace(SHOP, {TEAM: "a"}))
    running = world.sandbox(wanted)
    world.apply(namespace(SHOP))
    with pytest.raises(NotStarted, match=POOL):
        world.start(pod("late", SHOP, ippool=IPPOOL))
    world.sane(POOL)
    world.end(running)


@case("L00007")
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("annotation", ["ippool", "ippools", "namespace", "default"])
def test_a_daemon_set_over_two_zones(world: World, annotation: str, order: int) -> None:
    pools = {1: "zone-1-v4", 2: "zone-2-v4"}
    is_default = annotation == "default"
    world.apply(
        *(
            pool(
                name,
                f"172.20.{number}.0/24",
                [f"172.20.{number}.10-172.20.{number}.19"],
                nodeAffinity={"matchLabels": {ZONE: f"zone-{number}"}},
                default=is_default,
            )
            for number, name in pools.items()
        )
    )
    names = list(pools.values())[::order]
    marks: Json = {}
    if annotation == "namespace":
        world.apply(namespace(SHOP, default_ipv4_ippool=["zone-*"]))
    elif not is_default:
        value = {"ipv4": names}
        marks[annotation] = value if annotation == "ippool" else [value]
    owner = owned("DaemonSet", "log", SHOP)
    for number, node in list(enumerate(NODES, start=1))[::order]:
        for name in ("log", "more"):
            running = world.start(pod(f"{name}-{node}", SHOP, node=node, owner=owner, **marks))
            assert running.addresses["eth0"][0].startswith(f"172.20.{number}.")
    world.sane(*pools.values())


@case("L00008")
@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("later", NODES)
def test_a_stateful_set_keeps_its_addresses_until_its_pool_changes(
    world: World, start: int, later: str
) -> None:
    """On the same node and on another."""
    bound = {"podAffinity": equal(app="db")}
    other = pool("aff-other", "172.20.2.0/24", ["172.20.2.10-172.20.2.19"], **bound)
    world.apply(served(**bound), served6(**bound), other)
    owner = stateful_set("db", SHOP, replicas=3, ordinals={"start": start})
    world.apply(owner)
    both = IPPOOL | {"ipv6": ["aff-v6"]}
    pods = [pod(f"db-{start + n}", SHOP, labels={"app": "db"}, owner=owner, ippool=both) for n in range(3)]
    first = [world.start(one) for one in pods]
    addresses = [one.addresses["eth0"] for one in first]

    for one in tuple(first):
        world.end(one)
    pods = [again(one) for one in pods]
    for one in pods:
        one["spec"]["nodeName"] = later
    second = [world.start(one) for one in reversed(pods)][::-1]
    assert [one.addresses["eth0"] for one in second] == addresses
    world.sane(POOL, "aff-v6")
    until(
        lambda: {one["status"]["current"]["node"] for one in world.endpoints(SHOP).values()} == {later},
        "told",
    )

    owner["spec"]["replicas"] = 2
    world.apply(owner)
    world.end(second.pop())
    world.sane(POOL, "aff-v6")

    for one in tuple(second):
        world.end(one)
    third = [world.start(again(one, ippool={"ipv4": ["aff-other"]})) for one in pods[:2]]
    assert all(one.addresses["eth0"][0].startswith("172.20.2.") for one in third)
    assert {len(one.all_addresses()) for one in third} == {1}
    world.sane(POOL, "aff-v6", "aff-other")


@case("L00009")
def test_pools_shared_by_namespaces(world: World) -> None:
    world.apply(
        namespace("market"),
        namespace("third"),
        served(namespaceName=[SHOP, "market"]),
        pool("aff-more", "172.20.2.0/24", ["172.20.2.10-172.20.2.19"], namespaceName=[SHOP]),
        pool("aff-most", "172.20.3.0/24", ["172.20.3.10-172.20.3.19"], namespaceName=["third", SHOP]),
    )
    for name in (SHOP, "market"):
        (address,) = world.start(pod("one", name, ippool=IPPOOL)).addresses["eth0"]
        assert address.startswith("172.20.1.")
    for number, name in ((2, "aff-more"), (3, "aff-most")):
        (address,) = world.start(pod(f"of-{name}", SHOP, ippool={"ipv4": [name]})).addresses["eth0"]
        assert address.startswith(f"172.20.{number}.")
    for name in ("aff-more", "aff-most"):
        with pytest.raises(NotStarted, match=name):
            world.start(pod("two", "market", ippool={"ipv4": [name]}))
    (address,) = world.start(pod("all", "third", ippool={"ipv4": ["aff-*"]})).addresses["eth0"]
    assert address.startswith("172.20.3.")
    world.sane(POOL, "aff-more", "aff-most")
