"""Which candidate pools an interface may use, and in which order: the conformance rows L00001–L00009, D00009–D00016."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.ipam import InterfaceRequest
from tests.support.pure_allocator import World, addresses, namespace, network, node, pod, pool, settings

NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"
IPPOOLS = "ipam.spidernet.io/ippools"


def labels(**match: str) -> dict[str, Any]:
    return {"matchLabels": match}


def world(**spec: Any) -> World:
    """One pool with the spec, a labelled node, namespace and pod."""
    return World(
        pool("p", "10.1.0.0/24", "10.1.0.10-10.1.0.20", **spec),
        node("n1", zone="one"),
        namespace("shop", labels={"team": "a"}),
        pod("shop/web", labels={"app": "web"}),
    )


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({"nodeAffinity": labels(zone="one")}, "", id="l00001"),
        pytest.param({"nodeAffinity": labels(zone="two")}, "nodeAffinity", id="l00002"),
        pytest.param({"namespaceAffinity": labels(team="a")}, "", id="l00003"),
        pytest.param({"namespaceAffinity": labels(team="b")}, "namespaceAffinity", id="l00004"),
        pytest.param({"podAffinity": labels(app="web")}, "", id="l00005"),
        pytest.param({"podAffinity": labels(app="db")}, "podAffinity", id="l00006"),
        pytest.param({"nodeName": ["n0", "n1"]}, "", id="d00011"),
        pytest.param({"nodeName": ["n2"]}, "nodeName", id="d00012"),
        pytest.param({"nodeName": ["n2"], "nodeAffinity": labels(zone="one")}, "nodeName", id="d00013"),
        pytest.param({"nodeName": ["n1"], "nodeAffinity": labels(zone="two")}, "", id="d00013 reverse"),
        pytest.param({"namespaceName": ["shop"]}, "", id="d00014"),
        pytest.param({"namespaceName": ["other"]}, "namespaceName", id="d00015"),
        pytest.param(
            {"namespaceName": ["other"], "namespaceAffinity": labels(team="a")}, "namespaceName", id="d00016"
        ),
        pytest.param(
            {"namespaceName": ["shop"], "namespaceAffinity": labels(team="b")}, "", id="d00016 reverse"
        ),
        pytest.param({"disable": True}, "disabled", id="d00005"),
        pytest.param({"terminating": True}, "terminating", id="d00004"),
        pytest.param({"nodeAffinity": {}}, "", id="an empty selector fits all"),
        pytest.param(
            {"podAffinity": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}},
            "podAffinity",
            id="expression",
        ),
    ],
)
def test_a_pool_is_kept_or_dropped_with_its_reason(spec: dict[str, Any], reason: str) -> None:
    here = world(**spec)
    if not reason:
        assert addresses(here.add("shop/web", ipv4=["p"])) == ["10.1.0.10"]
        return
    refusal = here.refused("shop/web", ipv4=["p"])
    assert refusal.error == "no_pool"
    assert "no IPPool available, all IPv4 IPPools [p] of eth0 filtered out" in refusal.message
    assert reason in refusal.message


def test_a_pool_of_the_other_family_is_dropped_with_its_reason() -> None:
    refusal = world().refused("shop/web", ipv6=["p"])
    assert "is an IPv4 pool" in refusal.message


def test_l00007_each_node_draws_from_the_pool_of_its_zone() -> None:
    here = World(
        pool("a", "10.1.0.0/24", "10.1.0.10", nodeAffinity=labels(zone="one")),
        pool("b", "10.2.0.0/24", "10.2.0.10", nodeAffinity=labels(zone="two")),
        node("n1", zone="one"),
        node("n2", zone="two"),
        pod("shop/d-1", node="n1"),
        pod("shop/d-2", node="n2"),
    )
    assert here.add("shop/d-2", node="n2", ipv4=["a", "b"])[0].pool == "b"
    assert here.add("shop/d-1", node="n1", ipv4=["a", "b"])[0].pool == "a"


def test_l00009_two_namespaces_share_one_pool() -> None:
    here = World(
        pool("shared", "10.1.0.0/24", "10.1.0.10-10.1.0.11", namespaceName=["a", "b"]),
        pool("own", "10.2.0.0/24", "10.2.0.10", namespaceName=["a"]),
        pod("a/x"),
        pod("b/y"),
        pod("c/z"),
    )
    assert here.add("a/x", ipv4=["shared", "own"])[0].pool == "shared"
    assert here.add("b/y", ipv4=["shared"])[0].pool == "shared"
    assert here.refused("c/z", ipv4=["shared", "own"]).error == "no_pool"


def multus(*marks: str, **spec: Any) -> World:
    return World(
        pool("p", "10.1.0.0/24", "10.1.0.10-10.1.0.20", **spec),
        pod("shop/web", annotations=dict(zip(marks[::2], marks[1::2], strict=True))),
    )


@pytest.mark.parametrize(
    ("marks", "listed", "ifname"),
    [
        pytest.param((DEFAULT_NETWORK, "net-a"), "net-a", "eth0", id="default network, bare names"),
        pytest.param(
            (DEFAULT_NETWORK, "kube-system/net-a"), "kube-system/net-a", "eth0", id="with namespaces"
        ),
        pytest.param((NETWORKS, "x,net-a"), "shop/net-a", "net2", id="by position, in the pod's namespace"),
        pytest.param((NETWORKS, "kube-system/net-a@data0"), "net-a", "data0", id="by interface"),
        pytest.param(
            (NETWORKS, '[{"name":"net-a","namespace":"kube-system","interface":"d"}]'),
            "net-a",
            "d",
            id="json",
        ),
    ],
)
def test_d00009_multus_name_is_the_network_of_the_interface(
    marks: tuple[str, ...], listed: str, ifname: str
) -> None:
    here = multus(*marks, multusName=[listed])
    assert addresses(here.add("shop/web", ifname, ipv4=["p"])) == ["10.1.0.10"]


def test_d00009_the_cluster_network_is_the_one_of_eth0() -> None:
    config = settings().replace("data:\n", "data:\n  clusterNetwork: net-a\n")
    here = multus(multusName=["net-a"])
    here.apply(config)
    assert here.add("shop/web", ipv4=["p"])


def test_d00009_a_network_that_the_request_names_is_the_one() -> None:
    here = multus(DEFAULT_NETWORK, "other", multusName=["kube-system/net-a"])
    here.apply(network("kube-system/net-a"))
    assert here.add("shop/web", InterfaceRequest(ifname="eth0", network="kube-system/net-a", ipv4=("p",)))


def test_d00010_another_network_is_refused() -> None:
    assert (
        "multusName"
        in multus(DEFAULT_NETWORK, "net-b", multusName=["net-a"]).refused("shop/web", ipv4=["p"]).message
    )
    assert "multusName" in multus(multusName=["net-a"]).refused("shop/web", ipv4=["p"]).message
    refusal = multus(NETWORKS, "net-a", multusName=["net-a"]).refused("shop/web", "net7", ipv4=["p"])
    assert "no matched multus object for NIC 'net7'" in refusal.message


def test_d00009_a_pool_without_multus_name_needs_no_network() -> None:
    assert multus().add("shop/web", "net7", ipv4=["p"])


@pytest.mark.parametrize("named", [True, False])
def test_d00009_several_interfaces_named_or_not(named: bool) -> None:
    items = [{"interface": "eth0"} if named else {}, {"interface": "net1"} if named else {}]
    items[0]["ipv4"], items[1]["ipv4"] = ["a"], ["b"]  # type: ignore[assignment]
    marks: dict[str, object] = {IPPOOLS: items, DEFAULT_NETWORK: "net-a", NETWORKS: "kube-system/net-b"}
    here = World(
        pool("a", "10.1.0.0/24", "10.1.0.10", multusName=["net-a"]),
        pool("b", "10.2.0.0/24", "10.2.0.10", multusName=["net-b"]),
        pod("shop/web", annotations=marks),
    )
    assert {grant.ifname: grant.pool for grant in here.add("shop/web")} == {"eth0": "a", "net1": "b"}


def test_more_specific_pools_go_first_and_ties_keep_the_listed_order() -> None:
    kinds: dict[str, dict[str, Any]] = {
        "plain-b": {},
        "plain-a": {},
        "multus": {"multusName": ["net-a"]},
        "namespace-affinity": {"namespaceAffinity": labels(team="a")},
        "namespace-name": {"namespaceName": ["shop"]},
        "node-affinity": {"nodeAffinity": labels(zone="one")},
        "node-name": {"nodeName": ["n1"]},
        "pod-affinity": {"podAffinity": labels(app="web")},
    }
    here = World(
        *(
            pool(name, f"10.{i}.0.0/24", f"10.{i}.0.10", **spec)
            for i, (name, spec) in enumerate(kinds.items(), 1)
        ),
        node("n1", zone="one"),
        namespace("shop", labels={"team": "a"}),
        *(pod(f"shop/w{i}", labels={"app": "web"}, annotations={DEFAULT_NETWORK: "net-a"}) for i in range(8)),
    )
    found = [here.add(f"shop/w{i}", ipv4=list(kinds))[0].pool for i in range(8)]
    expected = [
        "pod-affinity",
        "node-name",
        "node-affinity",
        "namespace-name",
        "namespace-affinity",
        "multus",
    ]
    assert found == [*expected, "plain-b", "plain-a"]


def test_a_plain_container_meets_no_pool_that_asks_for_a_pod() -> None:
    here = World(
        pool("for-pods", "10.1.0.0/24", "10.1.0.10", podAffinity=labels(app="web"), default=True),
        pool("for-shop", "10.2.0.0/24", "10.2.0.10", namespaceName=["shop"], default=True),
        pool("for-all", "10.3.0.0/24", "10.3.0.10", default=True),
    )
    assert here.add("", container="c1")[0].pool == "for-all"
    assert here.refused("", container="c2", ipv4=["for-pods"]).error == "no_pool"
