"""What the webhook of pods adds to a pod that asks for a group of networks."""

from __future__ import annotations

import copy

import pytest

from tests.conformance.case import case
from tests.conformance.objects import NETWORKS, SHOP, Json, namespace, pod, pool, settings
from tests.conformance.review import Rejected
from tests.conformance.smc import NAME, NETWORK, POOLS, RDMA, block, made
from tests.conformance.world import World, until

ON = {"podResourceInject": {"enabled": True}}
A, B = "example.com/rdma-a", "example.com/rdma-b"


def rail(name: str, master: str = "eth1", resource: str = A, key: str = RDMA, within: str = SHOP) -> Json:
    network = made(
        annotations={key: "fabric"},
        name=name,
        macvlan=block(master=[master], rdmaResourceName=resource) | POOLS,
    )
    network["metadata"]["namespace"] = within
    return network


def prepare(world: World, *networks: Json, conf: Json = ON) -> None:
    world.apply(settings(conf), pool("ours", "172.20.1.0/24", ["172.20.1.10-172.20.1.19"]), *networks)


def asking(key: str = RDMA, group: str = "fabric", **more: str) -> Json:
    wanted = pod("train", SHOP, containers=2)
    wanted["metadata"]["annotations"] |= {key: group, **more}
    return wanted


def stored(world: World, wanted: Json) -> Json:
    """As soon as the webhook knows the networks."""

    def is_changed() -> bool:
        try:
            return world.injected(wanted) != wanted
        except Rejected:
            return False

    until(is_changed, "the pod is changed")
    return world.injected(wanted)


def networks(found: Json) -> str:
    return found["metadata"]["annotations"][NETWORKS]


def amounts(found: Json) -> list[dict[str, str]]:
    """The limits of each container."""
    listed = found["spec"]["containers"]
    return [{k: str(v) for k, v in one.get("resources", {}).get("limits", {}).items()} for one in listed]


@case("H00001")
@pytest.mark.parametrize("cni_type", ["macvlan", "ipvlan", "vlan"])
@pytest.mark.parametrize("names", [("rail-0", "rail-1"), ("nad-b", "nad-a"), ("z", "a")])
def test_injection(world: World, names: tuple[str, str], cni_type: str) -> None:
    """Of two networks on one link the names decide the order."""
    rails = [rail(name, resource=resource) for name, resource in zip(names, (A, B), strict=True)]
    for one in rails:
        one["spec"] |= {"cniType": cni_type, cni_type: one["spec"].pop("macvlan")}
    prepare(world, *rails)
    found = stored(world, asking())
    assert networks(found) == ",".join(f"{SHOP}/{name}" for name in sorted(names))
    assert amounts(found) == [{A: "1", B: "1"}, {}]


@case("H00001")
def test_the_link_decides_the_order(world: World) -> None:
    """Over all namespaces; one resource of two networks is asked for once."""
    prepare(
        world,
        namespace("infra"),
        rail("a", "eth9"),
        rail("b", "eth2", within="infra"),
        rail("c", "eth5", B),
        rail("other-group", "eth1")
        | {"metadata": {"name": "other-group", "namespace": SHOP, "annotations": {RDMA: "storage"}}},
    )
    found = stored(world, asking())
    assert networks(found) == f"infra/b,{SHOP}/c,{SHOP}/a"
    assert amounts(found) == [{A: "1", B: "1"}, {}]


@case("H00001")
def test_what_is_declared_already(world: World) -> None:
    """By whichever container; what stood in the pod's networks makes place."""
    prepare(world, rail("rail-0"), rail("rail-1", resource=B))
    wanted = asking(**{NETWORKS: f"{SHOP}/mine"})
    wanted["spec"]["containers"][1]["resources"] = {"limits": {A: "2"}, "requests": {A: "2"}}
    wanted["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1"}}
    found = stored(world, wanted)
    assert networks(found) == f"{SHOP}/rail-0,{SHOP}/rail-1"
    assert amounts(found) == [{"cpu": "1", B: "1"}, {A: "2"}]


@case("H00001")
@pytest.mark.parametrize("key", [RDMA, NETWORK])
def test_a_namespace_asks_for_its_pods(world: World, key: str) -> None:
    """A pod's own wish goes before; an empty one asks for nothing that is there."""
    prepare(world, rail("rail-0", key=key), rail("rail-1", resource=B, key=key))
    asks = namespace(SHOP)
    asks["metadata"]["annotations"][key] = "fabric"
    world.apply(asks)
    plain = pod("train", SHOP)
    found = stored(world, plain)
    assert networks(found) == f"{SHOP}/rail-0,{SHOP}/rail-1"
    assert amounts(found) == [{A: "1", B: "1"}]
    for group in ("storage", ""):
        wanted = copy.deepcopy(plain)
        wanted["metadata"]["annotations"][key] = group
        with pytest.raises(Rejected, match=f"no spidermultusconfigs with annotation: {key}:{group} found"):
            world.injected(wanted)


@case("H00001")
def test_other_networks_than_of_rdma(world: World) -> None:
    """Without resource only the networks come; a network goes by the name that it has for pods."""
    plain = made(annotations={NETWORK: "fabric", NAME: "known-as"}, name="one", macvlan=block(**POOLS))
    vf = made("sriov", {NETWORK: "fabric"}, name="two", sriov={"resourceName": "example.com/vf"} | POOLS)
    prepare(world, plain, vf)
    found = stored(world, asking(NETWORK))
    assert networks(found) == f"{SHOP}/known-as,{SHOP}/two"
    assert amounts(found) == [{"example.com/vf": "1"}, {}]


@case("H00001")
@pytest.mark.parametrize(
    "inject",
    [
        {"enabled": False},
        {"enabled": True, "namespacesExclude": [SHOP]},
        {"enabled": True, "namespacesInclude": ["market"]},
    ],
    ids=str,
)
def test_where_nothing_is_injected(world: World, inject: Json) -> None:
    prepare(world, rail("rail-0"), conf=ON)
    stored(world, asking())
    world.apply(settings({"podResourceInject": inject}))
    until(lambda: unchanged(world), "the pod is left alone")


def unchanged(world: World) -> bool:
    wanted = asking()
    return world.injected(wanted) == wanted
