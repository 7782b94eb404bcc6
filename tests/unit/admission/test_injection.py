"""Injection into new pods: the parts A, B and C of the specification, their order, and who is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from shared.admission.injection import inject, injects
from shared.admission.view import Objects
from tests.unit.admission.objects import Json, conf, having, multus

RDMA, NETWORK = "cni.spidernet.io/rdma-resource-inject", "cni.spidernet.io/network-resource-inject"
NETWORKS, DEFAULT = "k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network"
ON = conf("podResourceInject: {enabled: true}")
PLUGIN = """
podResourceInject: {enabled: true}
iaasNetworkProvider: {serverUrl: "http://provider"}
agent:
  networkResourcePlugin:
    enabled: true
    resourceAdvertisement:
      masterNIC: {rules: [{}]}
      subENI: {rules: [{resourceName: example.com/slot}, {}]}
"""
POOLS = {"ipv4": ["v4"]}


def pod(*containers: Json, **annotations: str) -> Json:
    marks = {"rdma": RDMA, "network": NETWORK, "networks": NETWORKS, "default": DEFAULT}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "namespace": "x",
            "annotations": {marks[k]: v for k, v in annotations.items()},
        },
        "spec": {"containers": list(containers) or [{"name": "c"}]},
    }


def rail(name: str, group: str = "g", key: str = RDMA, **block: Any) -> Json:
    members = {"master": [name], "rdmaResourceName": f"r/{name}", "ippools": POOLS, **block}
    return multus(name, annotations={key: group}, cniType="macvlan", macvlan=members)


def vlan(name: str, mode: str = "auto", **block: Any) -> Json:
    return multus(name, cniType="vlan", vlan={"master": [f"{name}-m"], "vlanMode": mode, **block})


def injected(raw: Json, view: Objects) -> Json:
    found = inject(raw, "x", view)
    assert isinstance(found, dict), found
    assert inject(found, "x", view) == found, "twice is once"
    return found


def refused(raw: Json, view: Objects) -> str:
    found = inject(raw, "x", view)
    assert isinstance(found, tuple)
    return "\n".join(f"{error.field}: {error.message}" for error in found)


def resources(raw: Json, container: int = 0) -> Json:
    return raw["spec"]["containers"][container].get("resources", {})


def namespace(**annotations: str) -> Json:
    marks = {"rdma": RDMA, "network": NETWORK}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "x", "annotations": {marks[k]: v for k, v in annotations.items()}},
    }


def test_h00001_two_rails() -> None:
    found = injected(pod(rdma="g"), having(ON, rail("b"), rail("a"), rail("c", "other")))
    assert found["metadata"]["annotations"][NETWORKS] == "x/a,x/b"
    assert resources(found) == {"limits": {"r/a": "1", "r/b": "1"}}


def test_it_is_off_unless_the_settings_switch_it_on() -> None:
    raw = pod(rdma="g")
    assert inject(raw, "x", having(rail("a"))) is raw
    assert not injects("x", having())


def test_a_pod_that_asks_for_nothing_stays_as_it_is() -> None:
    raw = pod()
    assert injected(raw, having(ON, rail("a"))) == raw


@pytest.mark.parametrize(
    ("mine", "theirs", "taken"),
    [
        ({"rdma": "p"}, {"rdma": "n"}, "p"),
        ({"network": "p"}, {"rdma": "n"}, "n"),
        ({"network": "p"}, {"network": "n"}, "p"),
        ({}, {"network": "n"}, "n"),
        ({"rdma": "p", "network": "q"}, {}, "p"),
    ],
)
def test_the_first_annotation_counts(mine: dict[str, str], theirs: dict[str, str], taken: str) -> None:
    groups = [
        rail(f"{group}-{kind}", group, key) for group in "pqn" for kind, key in (("r", RDMA), ("w", NETWORK))
    ]
    found = injected(pod(**mine), having(ON, namespace(**theirs), *groups))
    assert found["metadata"]["annotations"][NETWORKS].startswith(f"x/{taken}-")


def test_an_empty_value_counts_as_found() -> None:
    said = refused(pod(rdma="", network="g"), having(ON, rail("a", "g", NETWORK)))
    assert said == f"metadata.annotations[{RDMA}]: no spidermultusconfigs with annotation: {RDMA}: found"


def test_members_are_of_all_namespaces_and_go_by_the_name_that_pods_use() -> None:
    far = rail("far")
    far["metadata"]["namespace"] = "y"
    named = rail("b")
    named["metadata"]["annotations"]["multus.spidernet.io/cr-name"] = "known-as"
    found = injected(pod(rdma="g", networks="z/overwritten"), having(ON, far, named))
    assert found["metadata"]["annotations"][NETWORKS] == "x/known-as,y/far"


def test_rails_are_sorted_by_their_link() -> None:
    bond = rail("zz", master=["a", "b"], bond={"name": "a0", "mode": 1})
    vf = multus(
        "vf", annotations={RDMA: "g"}, cniType="sriov", sriov={"resourceName": "m/vf", "ippools": POOLS}
    )
    ib = multus(
        "ib", annotations={RDMA: "g"}, cniType="ib-sriov", ibsriov={"resourceName": "m/ib", "ippools": POOLS}
    )
    found = injected(pod(rdma="g"), having(ON, rail("n"), vf, bond, ib))
    assert found["metadata"]["annotations"][NETWORKS] == "x/ib,x/zz,x/vf,x/n"
    assert resources(found)["limits"].keys() == {"m/ib", "r/zz", "m/vf", "r/n"}


def test_what_a_container_declares_is_not_declared_again() -> None:
    raw = pod({"name": "a"}, {"name": "b", "resources": {"limits": {"r/a": "2"}}}, rdma="g")
    found = injected(raw, having(ON, rail("a"), rail("b")))
    assert resources(found) == {"limits": {"r/b": "1"}}
    assert resources(found, 1) == {"limits": {"r/a": "2"}}


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        (
            rail("a", rdmaResourceName=""),
            "SpiderMultusConfig x/a: spec.macvlan.rdmaResourceName must be given",
        ),
        (rail("a", ippools={}), "SpiderMultusConfig x/a: spec.macvlan.ippools must name at least one IPPool"),
        (
            multus("a", annotations={RDMA: "g"}, cniType="ovs", ovs={"bridge": "b"}),
            "the cniType ovs does not support resource injection",
        ),
    ],
)
def test_a_member_that_cannot_be_one_refuses_the_pod(member: Json, sentence: str) -> None:
    assert sentence in refused(pod(rdma="g"), having(ON, member))


def test_a_network_group_needs_no_resource() -> None:
    found = injected(pod(network="g"), having(ON, rail("a", key=NETWORK, rdmaResourceName="", ippools={})))
    assert found["metadata"]["annotations"][NETWORKS] == "x/a"
    assert resources(found) == {}


def test_master_resources_and_slots_of_referenced_networks() -> None:
    bonded = rail("bonded", "none", master=["e1", "e2"], bond={"name": "b0", "mode": 1})
    ipoib = multus("ib", cniType="ipoib", ipoib={"master": "ib0"})
    view = having(conf(PLUGIN), bonded, ipoib, vlan("auto"), vlan("manual", "manual"))
    found = injected(pod(networks="bonded,ib,auto@a,auto@b,manual,unknown", default="x/auto"), view)
    wanted = {f"spidernet.io/{name}-nic": "1" for name in ("e1", "e2", "ib0", "auto-m", "manual-m")}
    assert resources(found) == {
        "requests": {**wanted, "example.com/slot": "3"},
        "limits": {**wanted, "example.com/slot": "3"},
    }
    assert NETWORKS in found["metadata"]["annotations"]


def test_what_the_group_brought_counts_for_masters() -> None:
    found = injected(pod(rdma="g"), having(conf(PLUGIN), rail("a")))
    assert resources(found)["limits"] == {"r/a": "1", "spidernet.io/a-nic": "1"}
    assert resources(found)["requests"] == {"spidernet.io/a-nic": "1"}


def test_masters_and_slots_need_the_plugin_its_rules_and_the_provider() -> None:
    view = having(
        conf(PLUGIN.replace("enabled: true\n    resource", "enabled: false\n    resource")), vlan("auto")
    )
    raw = pod(networks="auto")
    assert injected(raw, view) == raw
    without = PLUGIN.replace("subENI: {rules: [{resourceName: example.com/slot}, {}]}", "subENI: {}")
    assert resources(injected(raw, having(conf(without), vlan("auto"))))["limits"] == {
        "spidernet.io/auto-m-nic": "1"
    }


def test_networks_that_cannot_be_read_refuse_the_pod() -> None:
    assert NETWORKS in refused(pod(networks="A@@"), having(conf(PLUGIN)))


def test_only_some_namespaces_are_changed() -> None:
    excluded = having(conf("podResourceInject: {enabled: true, namespacesExclude: [x]}"))
    assert not injects("x", excluded) and injects("y", excluded)
    included = having(conf("podResourceInject: {enabled: true, namespacesInclude: [x]}"))
    assert injects("x", included) and not injects("y", included)
    assert not injects("kube-system", having(ON))


@pytest.mark.parametrize(
    "spec", [{}, {"containers": None}, {"containers": [5]}, {"containers": [{"resources": 7}]}]
)
def test_a_pod_that_is_none_is_refused_and_breaks_nothing(spec: Json) -> None:
    raw = {**pod(rdma="g"), "spec": spec}
    assert refused(raw, having(ON, rail("a")))


def test_of_two_networks_of_one_name_the_older_is_injected() -> None:
    """Both came in at one moment: a pod has the network once, and what the one that is rendered needs."""
    older, younger = rail("older", rdmaResourceName="r/older"), rail("younger", rdmaResourceName="r/younger")
    for one, at in ((older, "0"), (younger, "1")):
        one["metadata"]["annotations"]["multus.spidernet.io/cr-name"] = "net"
        one["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:0{at}Z"
    for order in ((older, younger), (younger, older)):
        found = injected(pod(rdma="g"), having(ON, *order))
        assert found["metadata"]["annotations"][NETWORKS] == "x/net"
        assert resources(found)["limits"] == {"r/older": "1"}
