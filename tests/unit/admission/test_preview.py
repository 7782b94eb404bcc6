"""A pod at admission is told what its attach would be told: the same sentence as `orbweaver explain`, refused only for good."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.allocator.view import explain
from shared.admission.rules import validate
from shared.admission.view import Objects
from shared.contracts.query import Explain
from shared.manifests.document import parse
from tests.support.pure_allocator import World, namespace, network, pod, pool, settings

IPPOOL, IPPOOLS = "ipam.spidernet.io/ippool", "ipam.spidernet.io/ippools"
NETWORKS, DEFAULT = "k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network"
V4, V6 = pool("v4", "10.6.0.0/24", "10.6.0.10"), pool("v6", "fd00::/64", "fd00::10")


def store(*manifests: str) -> Objects:
    return Objects(document.raw for text in manifests for document in parse(text, "test").documents)


def judged(annotations: dict[str, Any], *manifests: str) -> tuple[list[str], list[str]]:
    """The sentences that refuse a pod, and those that warn."""
    (document,) = parse(pod("shop/web", annotations=annotations), "test").documents
    found = validate("CREATE", document.raw, None, store(*manifests))
    return [one.message for one in found.errors], [one.message for one in found.warnings]


def explained(
    annotations: dict[str, Any],
    *manifests: str,
    ifname: str = "eth0",
    network: str = "",
) -> str:
    world = World(*manifests, pod("shop/web", annotations=annotations))
    question = Explain(pod_namespace="shop", pod_name="web", ifname=ifname, network=network)
    return explain(world.state, world.facts, question).outcome


@pytest.mark.parametrize(
    ("annotations", "manifests"),
    [
        ({IPPOOL: {"ipv4": ["later"]}}, ()),
        ({IPPOOL: {"ipv4": ["v4"]}}, (pool("v4", "10.6.0.0/24", "10.6.0.10", disable=True),)),
        ({IPPOOL: {"ipv4": ["v4"]}}, (pool("v4", "10.6.0.0/24", "10.6.0.10", terminating=True),)),
        ({IPPOOL: {"ipv4": ["v4"]}}, (pool("a", "10.6.0.0/24", "10.6.0.10"), V4)),
        ({IPPOOL: {"ipv4": ["v4"]}}, (pool("a", "10.6.0.0/16"), V4)),
        ({IPPOOL: {"ipv4": ["v4"]}}, (pool("v4", "10.6.0.0/24", "10.6.0.10", namespaceName=["other"]),)),
        (
            {IPPOOL: {"ipv4": ["v4"]}},
            (
                pool("v4", "10.6.0.0/24", "10.6.0.10", namespaceAffinity={"matchLabels": {"a": "b"}}),
                namespace("shop", {"a": "c"}),
            ),
        ),
        ({IPPOOL: {"ipv4": ["v4"]}}, (pool("v4", "10.6.0.0/24", "10.6.0.10", podAffinity={"matchLabels": {"a": "b"}}),)),
        ({IPPOOL: {"ipv4": ["v4"]}}, (pool("v4", "10.6.0.0/24", "10.6.0.10", multusName=["x/y"]),)),
        ({IPPOOL: {"ipv6": ["six-*"]}}, ()),
        ({IPPOOL: {"ipv6": ["v6"]}}, (V6, settings(enableIPv6=False))),
    ],
)  # fmt: skip
def test_what_a_later_object_may_cure_is_a_warning_with_the_same_sentence(
    annotations: dict[str, Any], manifests: tuple[str, ...]
) -> None:
    errors, warnings = judged(annotations, *manifests)
    assert not errors
    assert explained(annotations, *manifests) in warnings


@pytest.mark.parametrize(
    ("annotations", "manifests", "ifname"),
    [
        ({IPPOOL: {"ipv4": ["v6"]}}, (V6,), "eth0"),
        ({IPPOOL: {"ipv4": ["v4"]}, "ipam.spidernet.io/default-route-nic": "net9"}, (V4,), "eth0"),
        ({IPPOOLS: [{"interface": "eth0", "ipv6": ["v4"]}]}, (V4,), "eth0"),
    ],
)
def test_what_nothing_cures_is_refused_with_the_same_sentence(
    annotations: dict[str, Any], manifests: tuple[str, ...], ifname: str
) -> None:
    errors, _ = judged(annotations, *manifests)
    assert explained(annotations, *manifests, ifname=ifname) in errors


@pytest.mark.parametrize("text", ["{", '{"ipv4": [1]}', '{"ipv4": ["a","a"]}', '{"ipv4": ["a[]b"]}'])
def test_annotations_that_cannot_be_read_are_refused_with_the_same_sentence(text: str) -> None:
    errors, _ = judged({IPPOOL: text})
    said = explained({IPPOOL: text})
    assert errors and all(error in said for error in errors)


def test_networks_of_ours_and_their_pools() -> None:
    ours = network("shop/rail", ipv4=["later"])
    errors, warnings = judged({NETWORKS: "rail"}, ours)
    assert not errors
    assert explained({NETWORKS: "rail"}, ours, ifname="net1", network="shop/rail") in warnings
    assert judged({NETWORKS: "rail"}, network("shop/rail", ipv4=["v4"]), V4) == ([], [])


def test_a_network_that_is_not_there() -> None:
    _, warnings = judged({NETWORKS: "rail", DEFAULT: "kube-system/first"})
    assert warnings == [
        "SpiderMultusConfig kube-system/first of eth0 is not found",
        "SpiderMultusConfig shop/rail of net1 is not found",
    ]
    assert explained({}, ifname="net1", network="shop/rail") == warnings[1]


def test_a_definition_of_somebody_else_is_none_of_our_business() -> None:
    theirs = (
        "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\n"
        "metadata: {name: rail, namespace: shop}\nspec: {config: '{}'}\n"
    )
    assert judged({NETWORKS: "rail"}, theirs) == ([], [])


def test_a_network_under_another_name() -> None:
    ours = network("shop/rail", ipv4=["v4"], renamed="known-as")
    assert judged({NETWORKS: "known-as"}, ours, V4) == ([], [])
    assert judged({NETWORKS: "rail"}, ours, V4)[1] == ["SpiderMultusConfig shop/rail of net1 is not found"]


def test_pools_of_some_nodes_may_serve_a_pod_that_has_none_yet() -> None:
    some = pool("v4", "10.6.0.0/24", "10.6.0.10", nodeName=["n9"])
    labelled = pool("v4", "10.6.0.0/24", "10.6.0.10", nodeAffinity={"matchLabels": {"zone": "z"}})
    for one in (some, labelled):
        assert judged({IPPOOL: {"ipv4": ["v4"]}}, one) == ([], [])


def test_one_pool_of_the_other_family_among_good_ones_is_a_warning() -> None:
    errors, warnings = judged({IPPOOL: {"ipv4": ["v4", "v6"]}}, V4, V6)
    assert not errors
    assert warnings == ["SpiderIPPool v6 is an IPv6 pool: no IPv4 of eth0 comes from it"]


def _full(text: str) -> str:
    return f"{text}status: {json.dumps({'allocatedIPCount': 1, 'totalIPCount': 1})}\n"


def test_full_pools_are_a_warning_with_the_sentence_of_an_attach() -> None:
    marks = {IPPOOL: {"ipv4": ["v4"]}}
    errors, warnings = judged(marks, _full(V4))
    assert not errors
    world = World(V4, pod("shop/first", annotations=marks), pod("shop/web", annotations=marks))
    world.add("shop/first")
    question = Explain(pod_namespace="shop", pod_name="web")
    assert warnings == [explain(world.state, world.facts, question).outcome]
    assert judged({IPPOOL: {"ipv4": ["v4", "more"]}}, _full(V4), pool("more", "10.7.0.0/24", "10.7.0.1")) == (
        [],
        [],
    )


def test_a_pod_of_another_plugin_alone_is_not_judged() -> None:
    theirs = (
        "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\n"
        "metadata: {name: calico, namespace: shop}\nspec: {config: '{}'}\n"
    )
    assert judged({DEFAULT: "shop/calico"}, theirs) == ([], [])
    assert judged({}) == ([], [])


def test_an_injection_that_is_off_is_said() -> None:
    _, warnings = judged({"cni.spidernet.io/rdma-resource-inject": "g"})
    assert "podResourceInject.enabled is not set" in warnings[0]


def test_a_refusal_that_names_its_annotation_is_about_that_one() -> None:
    (document,) = parse(pod("shop/web", annotations={NETWORKS: "a@eth0"}), "test").documents
    (error,) = validate("CREATE", document.raw, None, store()).errors
    assert error.field == f"metadata.annotations[{NETWORKS}]"
    assert error.message == "network shop/a would be a second interface eth0"


def test_networks_whose_addresses_come_from_elsewhere_are_not_judged() -> None:
    assert judged({NETWORKS: "rail"}, network("shop/rail", disableIPAM=True)) == ([], [])
    custom = network("shop/rail").replace('"cniType": "macvlan"', '"cniType": "custom"')
    assert judged({DEFAULT: "shop/rail"}, custom) == ([], [])


def test_a_misspelt_annotation_is_warned_of_with_the_sentence_of_explain() -> None:
    annotations = {"ipam.spidernet.io/ipool": {"ipv4": ["v4"]}, IPPOOL: {"ipv4": ["v4"], "ipv_6": ["v6"]}}
    world = World(V4, pod("shop/web", annotations=annotations))
    (document,) = parse(pod("shop/web", annotations=annotations), "test").documents
    found = validate("CREATE", document.raw, None, store(V4))
    assert found.valid
    told = tuple(f"{one.field}: {one.message}" for one in found.warnings)
    assert explain(world.state, world.facts, Explain(pod_namespace="shop", pod_name="web")).warnings == told
    assert "did you mean ipam.spidernet.io/ippool?" in told[0] and "did you mean ipv6?" in told[1]


def test_explain_tells_of_the_namespaces_annotations_too() -> None:
    world = World(
        V4, namespace("shop", annotations={"ipam.spidernet.io/default-ippool": "[]"}), pod("shop/web")
    )
    (said,) = explain(world.state, world.facts, Explain(pod_namespace="shop", pod_name="web")).warnings
    assert said.startswith("namespace shop: metadata.annotations[ipam.spidernet.io/default-ippool]: ")
    assert "did you mean ipam.spidernet.io/default-ipv" in said
