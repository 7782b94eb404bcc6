"""Addresses for the pods of every kind of workload, one a family, recorded and given back."""

from __future__ import annotations

import secrets

import pytest

from tests.conformance.case import case
from tests.conformance.objects import Json, namespace, pod, pool
from tests.conformance.services.conftest import SHOP
from tests.conformance.world import NotStarted, World, until

V4 = pool("fam-v4", "172.20.1.0/24", ["172.20.1.10-172.20.1.19"])
V6 = pool("fam-v6", "fd00:20:1::/64", ["fd00:20:1::10-fd00:20:1::19"])
FAMILIES = {"v4": {"ipv4": ["fam-v4"]}, "v6": {"ipv6": ["fam-v6"]}}
FAMILIES["dual"] = FAMILIES["v4"] | FAMILIES["v6"]


def owner_of(kind: str) -> Json | None:
    if not kind:
        return None
    version = "batch/v1" if kind == "Job" else "apps/v1"
    metadata = {"name": "load", "namespace": SHOP, "uid": f"load-{secrets.token_hex(4)}"}
    spec = {"replicas": 2} if kind in ("Deployment", "ReplicaSet", "StatefulSet") else {}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("families", list(FAMILIES))
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("", marks=case("E00001"), id="Pod"),
        pytest.param("Deployment", marks=case("E00002")),
        pytest.param("StatefulSet", marks=case("E00003")),
        pytest.param("DaemonSet", marks=case("E00004")),
        pytest.param("Job", marks=case("E00005")),
        pytest.param("ReplicaSet", marks=case("E00006")),
    ],
)
def test_a_workload(world: World, kind: str, families: str) -> None:
    owner = owner_of(kind)
    world.apply(V4, V6, *([owner] if kind == "StatefulSet" and owner else []))
    pods = [pod(f"load-{n}", SHOP, owner=owner, ippool=FAMILIES[families]) for n in range(2)]
    running = [world.start(one) for one in pods]
    for one in running:
        assert len(one.addresses["eth0"]) == len(FAMILIES[families])
    world.sane("fam-v4", "fam-v6")
    until(lambda: set(world.endpoints(SHOP)) == {"load-0", "load-1"}, "an endpoint for each pod")
    for one in world.endpoints(SHOP).values():
        (detail,) = one["status"]["current"]["ips"]
        assert detail["interface"] == "eth0"
        assert {key for key in ("ipv4Pool", "ipv6Pool") if detail.get(key)} == {
            f"{family}Pool" for family in FAMILIES[families]
        }
    if kind == "StatefulSet":
        assert owner is not None
        world.remove(owner)
    for one in running:
        world.end(one)
    world.sane("fam-v4", "fam-v6")
    until(lambda: world.endpoints(SHOP) == {}, "no endpoint of a pod that is gone")


@case("E00007")
def test_long_annotations(world: World) -> None:
    world.apply(V4)
    long = pod("web", SHOP, labels={f"label-{n}": "x" * 63 for n in range(200)}, ippool=FAMILIES["v4"])
    long["metadata"]["annotations"]["example.com/note"] = "x" * 200_000
    assert len(world.start(long).all_addresses()) == 1
    world.sane("fam-v4")


@case("E00008")
def test_one_address_for_two_pods(world: World) -> None:
    excluded = ["172.20.1.10", "172.20.1.12-172.20.1.19"]
    world.apply(pool("fam-v4", "172.20.1.0/24", ["172.20.1.10-172.20.1.19"], excludeIPs=excluded))
    first = world.start(pod("web-0", SHOP, ippool=FAMILIES["v4"]))
    assert first.all_addresses() == ["172.20.1.11"]
    second = pod("web-1", SHOP, ippool=FAMILIES["v4"])
    with pytest.raises(NotStarted, match="all IP addresses used out"):
        world.start(second)
    world.end(first)
    until(lambda: world.records("fam-v4") == {}, "the address is free")
    assert world.sandbox(second).all_addresses() == ["172.20.1.11"]
    world.sane("fam-v4")


@case("E00009")
@pytest.mark.parametrize("families", ["v4", "v6"])
@pytest.mark.parametrize("annotation", ["ippool", "ippools"])
def test_one_family_of_two(world: World, annotation: str, families: str) -> None:
    """The cluster has default pools of both families."""
    world.apply(
        namespace(SHOP),
        pool("any-v4", "172.20.2.0/24", ["172.20.2.10-172.20.2.19"], default=True),
        pool("any-v6", "fd00:20:2::/64", ["fd00:20:2::10-fd00:20:2::19"], default=True),
        V4,
        V6,
    )
    wanted = FAMILIES[families]
    value = wanted if annotation == "ippool" else [{"interface": "eth0"} | wanted]
    (address,) = world.start(pod("web", SHOP, **{annotation: value})).all_addresses()
    assert (":" in address) == (families == "v6")
    world.sane("fam-v4", "fam-v6", "any-v4", "any-v6")
