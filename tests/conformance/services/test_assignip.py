"""Addresses for the pods of every kind of workload, one a family, recorded and given back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.case import case
from tests.conformance.objects import NODES, SHOP, Json, again, namespace, native, owned, pod, pool
from tests.conformance.world import NotStarted, World, until

V4 = pool("fam-v4", "172.20.1.0/24", ["172.20.1.10-172.20.1.19"], gateway="172.20.1.1")
V6 = pool("fam-v6", "fd00:20:1::/64", ["fd00:20:1::10-fd00:20:1::19"])
FAMILIES = {"v4": {"ipv4": ["fam-v4"]}, "v6": {"ipv6": ["fam-v6"]}}
FAMILIES["dual"] = FAMILIES["v4"] | FAMILIES["v6"]
USED_OUT = "all IP addresses used out"


@pytest.mark.parametrize("families", list(FAMILIES))
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("", marks=case("E00001"), id="Pod"),
        pytest.param("Deployment", marks=case("E00002")),
        pytest.param("StatefulSet", marks=case("E00003")),
        pytest.param("DaemonSet", marks=case("E00004")),
        pytest.param("Job", marks=case("E00005")),
        pytest.param("CronJob", marks=case("E00005")),
        pytest.param("ReplicaSet", marks=case("E00006")),
    ],
)
def test_a_workload(world: World, kind: str, families: str) -> None:
    """On both nodes; the pods that come after them under the same names have other UIDs."""
    owner = owned(kind, "load", SHOP, replicas=4) if kind else None
    world.apply(V4, V6, *([owner] if owner else []))
    pods = [
        pod(f"load-{n}", SHOP, node=NODES[n % 2], owner=owner, ippool=FAMILIES[families]) for n in range(4)
    ]
    running = [world.start(one) for one in pods]
    for one in running:
        assert len(one.addresses["eth0"]) == len(FAMILIES[families])
    world.sane("fam-v4", "fam-v6")
    until(lambda: set(world.endpoints(SHOP)) == {one.name for one in running}, "an endpoint for each pod")
    for one in running:
        told(one.manifest, world.endpoints(SHOP)[one.name], kind, families, one.addresses["eth0"])
    before = {one.name: one.addresses for one in running}
    for one in tuple(running):
        world.end(one)
    running = [world.start(again(one)) for one in pods]
    if kind == "StatefulSet":
        assert {one.name: one.addresses for one in running} == before
    world.sane("fam-v4", "fam-v6")
    if owner is not None:
        world.remove(owner)
    for one in running:
        world.end(one)
    world.sane("fam-v4", "fam-v6")
    until(lambda: world.endpoints(SHOP) == {}, "no endpoint of a pod that is gone")


def told(pod: Json, endpoint: Json, kind: str, families: str, addresses: list[str]) -> None:
    """The endpoint is of this pod and tells its addresses with their prefix lengths, pools and gateways, and what it belongs to."""
    meta, status = endpoint["metadata"], endpoint["status"]
    # without the objects of a cluster's controllers, what stands between a pod and what a person made is all that is known
    between = {"Deployment": ("ReplicaSet", "Deployment"), "CronJob": ("Job", "CronJob")}
    assert status["ownerControllerType"] in (between.get(kind) or (kind or "Pod",))
    assert status["ownerControllerName"].startswith("load")
    owners = [one["uid"] for one in meta.get("ownerReferences", [])]
    assert owners == ([] if kind == "StatefulSet" else [pod["metadata"]["uid"]])
    assert meta["finalizers"] == ["spiderpool.spidernet.io"]
    current = status["current"]
    assert (current["uid"], current["node"]) == (pod["metadata"]["uid"], pod["spec"]["nodeName"])
    (detail,) = current["ips"]
    expected: dict[str, Any] = {"interface": "eth0"}
    if families != "v6":
        four = next(one for one in addresses if "." in one)
        expected |= {
            "ipv4": f"{four}/24",
            "ipv4Pool": "fam-v4",
            "ipv4Gateway": "172.20.1.1",
            "cleanGateway": False,
        }
    if families != "v4":
        six = next(one for one in addresses if ":" in one)
        expected |= {"ipv6": f"{six}/64", "ipv6Pool": "fam-v6"}
    assert {key: value for key, value in detail.items() if key != "vlan"} == expected


@case("E00001")
def test_a_sandbox_that_is_made_again(world: World) -> None:
    """The same pod in another sandbox has the same addresses; a second ADD of one sandbox too."""
    world.apply(V4, V6)
    wanted = pod("web", SHOP, ippool=FAMILIES["dual"])
    first = world.start(wanted)
    world.end(first, with_object=False)
    second = world.sandbox(wanted)
    assert second.addresses == first.addresses
    world.repeat(second)
    assert second.addresses == first.addresses
    world.sane("fam-v4", "fam-v6")


@case("E00001")
def test_a_static_pod_without_owner_on_default_pools(world: World) -> None:
    defaults = [one | {"spec": one["spec"] | {"default": True}} for one in (V4, V6)]
    world.apply(*defaults)
    assert len(world.start(pod("web", SHOP)).addresses["eth0"]) == 2
    (address,) = world.start(
        pod("one", SHOP), configuration=native(ippools={"ipv6": ["fam-v6"]})
    ).all_addresses()
    assert ":" in address
    world.sane("fam-v4", "fam-v6")


@case("E00007")
@pytest.mark.parametrize("note", ["x" * 200_000, "ü" * 100_000])
def test_long_annotations(world: World, note: str) -> None:
    world.apply(V4)
    labels = {f"{'k' * 55}-{n:0>3}.example.com/{n:0>63}": "v" * 63 for n in range(200)}
    long = pod("w" * 253, SHOP, labels=labels, ippool=FAMILIES["v4"])
    long["metadata"]["annotations"]["example.com/note"] = note
    assert len(world.start(long).all_addresses()) == 1
    world.sane("fam-v4")


@case("E00008")
@pytest.mark.parametrize(
    "excluded",
    [
        ["172.20.1.10", "172.20.1.12-172.20.1.19"],
        ["172.20.1.12-172.20.1.254", "172.20.1.0-172.20.1.10"],
    ],
)
def test_one_address_for_two_pods(world: World, excluded: list[str]) -> None:
    world.apply(pool("fam-v4", "172.20.1.0/24", ["172.20.1.10-172.20.1.19"], excludeIPs=excluded))
    first = world.start(pod("web-0", SHOP, ippool=FAMILIES["v4"]))
    assert first.all_addresses() == ["172.20.1.11"]
    second = pod("web-1", SHOP, node=NODES[1], ippool=FAMILIES["v4"])
    with pytest.raises(NotStarted, match=USED_OUT):
        world.start(second)
    with pytest.raises(NotStarted, match=USED_OUT):
        world.sandbox(second)
    world.end(first)
    until(lambda: world.records("fam-v4") == {}, "the address is free")
    assert world.sandbox(second).all_addresses() == ["172.20.1.11"]
    world.sane("fam-v4")


@case("E00008")
@pytest.mark.parametrize("full", ["fam-v4", "fam-v6"])
def test_one_family_is_used_out(world: World, full: str) -> None:
    """Then nothing is taken of the other."""
    small = {"fam-v4": ["172.20.1.10"], "fam-v6": ["fd00:20:1::10"]}[full]
    world.apply(
        *(
            one | {"spec": one["spec"] | ({"ips": small} if one["metadata"]["name"] == full else {})}
            for one in (V4, V6)
        )
    )
    world.start(pod("web-0", SHOP, ippool=FAMILIES["dual"]))
    second = pod("web-1", SHOP, ippool=FAMILIES["dual"])
    for attempt in (world.start, world.sandbox):
        with pytest.raises(NotStarted, match=USED_OUT):
            attempt(second)
    world.sane("fam-v4", "fam-v6")
    assert len(world.records("fam-v4")) == len(world.records("fam-v6")) == 1


@case("E00008")
def test_more_pools_than_one(world: World) -> None:
    """When the first is used out the next serves, in the order of the list."""
    names = ["zz-last", "fam-v4", "aa-more"]
    world.apply(
        *(pool(name, f"172.20.{n}.0/24", [f"172.20.{n}.10"]) for n, name in enumerate(names, start=1))
    )
    pods = [pod(f"web-{n}", SHOP, ippool={"ipv4": names}) for n in range(4)]
    assert [world.start(one).all_addresses() for one in pods[:3]] == [[f"172.20.{n}.10"] for n in (1, 2, 3)]
    with pytest.raises(NotStarted, match=USED_OUT):
        world.start(pods[3])
    world.sane(*names)


@case("E00009")
@pytest.mark.parametrize("families", ["v4", "v6"])
@pytest.mark.parametrize("annotation", ["ippool", "ippools", "nameless", "both keys", "namespace"])
def test_one_family_of_two(world: World, annotation: str, families: str) -> None:
    """The cluster has default pools of both families."""
    world.apply(
        pool("any-v4", "172.20.2.0/24", ["172.20.2.10-172.20.2.19"], default=True),
        pool("any-v6", "fd00:20:2::/64", ["fd00:20:2::10-fd00:20:2::19"], default=True),
        V4,
        V6,
    )
    wanted = FAMILIES[families]
    marks: Json = {
        "ippool": {"ippool": wanted},
        "ippools": {"ippools": [{"interface": "eth0"} | wanted]},
        "nameless": {"ippools": [wanted]},
        "both keys": {"ippool": {"ipv4": [], "ipv6": None} | wanted},
        "namespace": {},
    }[annotation]
    if annotation == "namespace":
        defaults: Json = {f"default_{key}_ippool": names for key, names in wanted.items()}
        world.apply(namespace(SHOP, **defaults))
    (address,) = world.start(pod("web", SHOP, **marks)).all_addresses()
    assert (":" in address) == (families == "v6")
    world.sane("fam-v4", "fam-v6", "any-v4", "any-v6")
