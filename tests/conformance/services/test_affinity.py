"""Which pods a pool serves: its affinities, and its lists of names."""

from __future__ import annotations

import pytest

from tests.conformance.case import case
from tests.conformance.objects import NODES, ZONE, Json, again, namespace, pod, pool, stateful_set
from tests.conformance.services.conftest import SHOP
from tests.conformance.world import NotStarted, World

POOL = "aff-v4"
IPPOOL = {"ipv4": [POOL]}
IN_ZONE_1, IN_ZONE_2 = ({"matchLabels": {ZONE: f"zone-{number}"}} for number in (1, 2))
OF_TEAM_A, OF_TEAM_B = ({"matchLabels": {"team": team}} for team in "ab")


def served(**spec: object) -> Json:
    return pool(POOL, "172.20.1.0/24", ["172.20.1.10-172.20.1.19"], **spec)


@pytest.mark.parametrize(
    ("rule", "starts"),
    [
        pytest.param({"nodeAffinity": IN_ZONE_1}, True, marks=case("L00001")),
        pytest.param({"nodeAffinity": IN_ZONE_2}, False, marks=case("L00002")),
        pytest.param({"namespaceAffinity": OF_TEAM_A}, True, marks=case("L00003")),
        pytest.param({"namespaceAffinity": OF_TEAM_B}, False, marks=case("L00004")),
        pytest.param({"podAffinity": {"matchLabels": {"app": "web"}}}, True, marks=case("L00005")),
        pytest.param({"podAffinity": {"matchLabels": {"app": "db"}}}, False, marks=case("L00006")),
        pytest.param({"nodeName": [NODES[0]]}, True, marks=case("D00011")),
        pytest.param({"nodeName": [NODES[1]]}, False, marks=case("D00012")),
        pytest.param({"nodeName": [NODES[1]], "nodeAffinity": IN_ZONE_1}, False, marks=case("D00013")),
        pytest.param({"nodeName": [NODES[0]], "nodeAffinity": IN_ZONE_2}, True, marks=case("D00013")),
        pytest.param({"namespaceName": [SHOP]}, True, marks=case("D00014")),
        pytest.param({"namespaceName": ["other"]}, False, marks=case("D00015")),
        pytest.param(
            {"namespaceName": ["other"], "namespaceAffinity": OF_TEAM_A}, False, marks=case("D00016")
        ),
        pytest.param({"namespaceName": [SHOP], "namespaceAffinity": OF_TEAM_B}, True, marks=case("D00016")),
    ],
)
def test_one_rule_and_one_pod(world: World, rule: Json, starts: bool) -> None:
    world.apply(namespace(SHOP, {"team": "a"}), served(**rule))
    wanted = pod("web", SHOP, labels={"app": "web"}, ippool=IPPOOL)
    if starts:
        (address,) = world.start(wanted).addresses["eth0"]
        assert address.startswith("172.20.1.")
    else:
        with pytest.raises(NotStarted, match=POOL):
            world.start(wanted)
    world.sane(POOL)


@case("L00007")
def test_a_daemon_set_over_two_zones(world: World) -> None:
    pools = {1: "zone-1-v4", 2: "zone-2-v4"}
    world.apply(
        *(
            pool(
                name,
                f"172.20.{number}.0/24",
                [f"172.20.{number}.10-172.20.{number}.19"],
                nodeAffinity={"matchLabels": {ZONE: f"zone-{number}"}},
            )
            for number, name in pools.items()
        )
    )
    owner = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "log", "namespace": SHOP, "uid": "log-uid"},
    }
    for number, node in enumerate(NODES, start=1):
        running = world.start(
            pod(f"log-{node}", SHOP, node=node, owner=owner, ippool={"ipv4": list(pools.values())})
        )
        assert running.addresses["eth0"][0].startswith(f"172.20.{number}.")
    world.sane(*pools.values())


@case("L00008")
def test_a_stateful_set_keeps_its_addresses_until_its_pool_changes(world: World) -> None:
    bound = {"podAffinity": {"matchLabels": {"app": "db"}}}
    world.apply(served(**bound), pool("aff-other", "172.20.2.0/24", ["172.20.2.10-172.20.2.19"], **bound))
    owner = stateful_set("db", SHOP, replicas=2)
    world.apply(owner)
    pods = [pod(f"db-{n}", SHOP, labels={"app": "db"}, owner=owner, ippool=IPPOOL) for n in range(2)]
    first = [world.start(one) for one in pods]
    addresses = [one.addresses["eth0"] for one in first]

    for one in tuple(first):
        world.end(one)
    pods = [again(one) for one in pods]
    second = [world.start(one) for one in reversed(pods)][::-1]
    assert [one.addresses["eth0"] for one in second] == addresses
    world.sane(POOL)

    for one in tuple(second):
        world.end(one)
    third = [world.start(again(one, ippool={"ipv4": ["aff-other"]})) for one in pods]
    assert all(one.addresses["eth0"][0].startswith("172.20.2.") for one in third)
    world.sane(POOL, "aff-other")


@case("L00009")
def test_pools_shared_by_namespaces(world: World) -> None:
    world.apply(
        namespace("market"),
        served(namespaceName=[SHOP, "market"]),
        pool("aff-more", "172.20.2.0/24", ["172.20.2.10-172.20.2.19"], namespaceName=[SHOP]),
    )
    for name in (SHOP, "market"):
        (address,) = world.start(pod("one", name, ippool=IPPOOL)).addresses["eth0"]
        assert address.startswith("172.20.1.")
    (address,) = world.start(pod("two", SHOP, ippool={"ipv4": ["aff-more"]})).addresses["eth0"]
    assert address.startswith("172.20.2.")
    with pytest.raises(NotStarted, match="aff-more"):
        world.start(pod("two", "market", ippool={"ipv4": ["aff-more"]}))
    world.sane(POOL, "aff-more")
