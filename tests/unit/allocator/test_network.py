"""All networks of a pod in one attach: which they are, what each gives, and what is refused without a trace."""

from __future__ import annotations

import json

import msgspec
import pytest

from services.allocator.decide import Accepted, decide_release
from shared import limits
from shared.contracts.ipam import Allocate, InterfaceRequest, Release, ReleasedInterface
from tests.support.pure_allocator import World, network, pod, pool, settings

NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"
IPPOOLS = "ipam.spidernet.io/ippools"
CLUSTER = (
    pool("e4", "10.1.0.0/24", "10.1.0.10-10.1.0.12", default=True),
    pool("e6", "fd00:1::/64", "fd00:1::10-fd00:1::12", default=True),
    pool("a4", "10.2.0.0/24", "10.2.0.10-10.2.0.12"),
    pool("a6", "fd00:2::/64", "fd00:2::10-fd00:2::12"),
    pool("one", "10.3.0.0/24", "10.3.0.10"),
    network("shop/a", ["a4"], ["a6"]),
    network("shop/single", ["one"]),
    network("infra/b", ["a4"], renamed="blue"),
)


def world(**annotations: object) -> World:
    marks = {NETWORKS if key == "networks" else key: value for key, value in annotations.items()}
    return World(*CLUSTER, pod("shop/web", annotations=marks), pod("shop/other"))


def attached(of: World, **options: object) -> tuple[Allocate, Accepted]:
    command = of.command("shop/web", further=True, **options)  # type: ignore[arg-type]
    decision = of.decide(command)
    assert isinstance(decision, Accepted), decision
    return command, decision


def told(decision: Accepted) -> list[tuple[str, str]]:
    return [(request.ifname, request.network) for request in decision.requests]


@pytest.mark.parametrize(
    ("text", "interfaces"),
    [
        ("", []),
        ("a", [("net1", "shop/a")]),
        ("a,infra/blue,shop/a@fast", [("net1", "shop/a"), ("net2", "infra/blue"), ("fast", "shop/a")]),
        (
            json.dumps([{"name": "a"}, {"name": "blue", "namespace": "infra", "interface": "data0"}]),
            [("net1", "shop/a"), ("data0", "infra/blue")],
        ),
    ],
)
def test_the_annotation_in_both_forms(text: str, interfaces: list[tuple[str, str]]) -> None:
    here = world(networks=text)
    _, decision = attached(here)
    assert told(decision) == [("eth0", ""), *interfaces]
    assert len(decision.events) == 1, "one decision"
    assert {ifname for _, ifname, held, _ in here.state.leases() if held.attached} == {
        "eth0",
        *dict(interfaces),
    }


def test_without_the_wish_the_annotation_is_multus_to_honour() -> None:
    here = world(networks="a")
    assert {grant.ifname for grant in here.add("shop/web")} == {"eth0"}


def test_a_container_without_pod_has_no_annotation() -> None:
    here = world()
    decision = here.decide(here.command("", container="c1", further=True))
    assert isinstance(decision, Accepted)
    assert told(decision) == [("eth0", "")]


def test_the_default_network_is_the_called_interfaces() -> None:
    here = World(
        *CLUSTER,
        settings(),
        network("kube-system/main", ["a4"]),
        pod("shop/web", annotations={DEFAULT_NETWORK: "main", NETWORKS: "a"}),
    )
    _, decision = attached(here, ipv4=["e4"])
    assert told(decision) == [("eth0", "kube-system/main"), ("net1", "shop/a")]
    assert here.is_held("10.2.0.10")
    assert not here.is_held("10.1.0.10")


@pytest.mark.parametrize(
    ("text", "error", "named"),
    [
        ("a,nowhere", "network_unknown", "shop/nowhere"),
        ("a,infra/b", "network_unknown", "infra/b"),
        ("a,a,a,single,single", "pool_exhausted", "shop/single"),
        ("a@eth0", "annotation_invalid", "eth0"),
        ("a@net2,a", "annotation_invalid", "net2"),
        ("a,[", "annotation_invalid", NETWORKS),
        (",".join(["a"] * limits.INTERFACES_PER_POD_MAX), "annotation_invalid", "interfaces"),
    ],
)
def test_one_wrong_network_and_nothing_is_taken(text: str, error: str, named: str) -> None:
    refusal = world(networks=text).refused("shop/web", further=True)
    assert (refusal.error, named in refusal.message) == (error, True), refusal


def test_a_repetition_is_answered_alike_and_a_new_sandbox_keeps_all() -> None:
    here = world(networks="a,single")
    command, first = attached(here)
    before = sorted(here.held())
    again = here.decide(command)
    assert isinstance(again, Accepted)
    assert (again.requests, sorted(here.held())) == (first.requests, before)
    attached(here, container="second")
    assert sorted(here.held()) == before
    here.delete_pod("shop/web")
    here.release("sandbox-web", generation=1)
    assert sorted(here.held()) == before, "a late release of the old sandbox is of an older generation"


def test_pools_listed_for_each_interface_go_before_the_networks() -> None:
    items = [{"ipv4": ["e4"]}, {"ipv4": ["one"]}]
    here = world(**{"networks": "a", IPPOOLS: items})
    attached(here)
    assert {f"10.{n}.0.10" for n in (1, 3) if here.is_held(f"10.{n}.0.10")} == {"10.1.0.10", "10.3.0.10"}
    assert here.state.lease_count() == 2


def release(of: World, command: Allocate, generation: int, *others: ReleasedInterface) -> None:
    release = Release(
        node=command.node,
        container_id=command.container_id,
        ifname="eth0",
        attempt=command.attempt,
        generation=generation,
        others=others,
    )
    of.commit(decide_release(of.state, of.facts, release, of.now_ns).events)


def test_one_release_gives_back_all_that_was_attached_together() -> None:
    here = world(networks="a,single")
    command, decision = attached(here)
    held = here.state.holdings[decision.owner].interfaces
    here.delete_pod("shop/web")
    generation = held["eth0"].generation
    others = [ReleasedInterface(ifname=name, generation=held[name].generation) for name in ("net1", "net2")]
    release(here, command, generation, others[0])
    assert interfaces_held(here) == {"net2"}
    release(here, command, generation, *others)
    assert here.state.lease_count() == 0


def test_an_attempt_that_was_never_answered_gives_back_all_it_was_given() -> None:
    here = world(networks="a,single")
    command, _ = attached(here)
    here.delete_pod("shop/web")
    release(here, msgspec.structs.replace(command, attempt="another"), 0)
    assert len(interfaces_held(here)) == 3
    release(here, command, 0)
    assert here.state.lease_count() == 0


def test_a_pod_that_lives_keeps_them_and_its_end_frees_them() -> None:
    here = world(networks="a,single")
    command, _ = attached(here)
    release(here, command, 0)
    assert all(held.detached for _, _, held, _ in here.state.leases())
    assert here.state.lease_count() == 5
    here.delete_pod("shop/web")
    assert here.state.lease_count() == 0


def test_a_network_goes_by_its_present_name() -> None:
    here = World(*CLUSTER, pod("shop/web", annotations={NETWORKS: "n"}))
    assert here.refused("shop/web", further=True).error == "network_unknown"
    here.apply(network("shop/own", ["a4"], renamed="n"))
    assert told(attached(here)[1])[1] == ("net1", "shop/n")
    here.apply(network("shop/own", ["a4"]))
    assert "shop/n" not in here.facts.networks
    assert "shop/own" in here.facts.networks
    here.delete("SpiderMultusConfig", "own", "shop")
    assert "shop/own" not in here.facts.networks


def interfaces_held(of: World) -> set[str]:
    return {ifname for _, ifname, _, _ in of.state.leases()}


def test_a_link_that_no_agent_makes_takes_no_address() -> None:
    fitting = {"cniType": "sriov", "sriov": {"resourceName": "r", "ippools": {"ipv4": ["a4"]}}}
    here = World(*CLUSTER, network("shop/vf", **fitting), pod("shop/web"))
    refusal = here.refused("shop/web", InterfaceRequest(ifname="eth0", network="shop/vf"))
    assert refusal.error == "not_in_this_version"
    assert refusal.message == "SpiderMultusConfig shop/vf: cniType sriov is not served in this version"
