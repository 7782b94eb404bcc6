"""SpiderMultusConfig → NetworkAttachmentDefinition: every cniType against its golden text, as the reference renders it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.controller.nad import definition, differs, replacement
from shared.admission.rules import admit
from shared.admission.view import Objects
from shared.manifests.meta import OwnerReference
from shared.manifests.network import (
    NetworkAttachmentDefinition,
    NetworkAttachmentSpec,
    SpiderMultusConfig,
)

IPAM = '"ipam":{"type":"spiderpool","default_ipv4_ippool":["v4"],"default_ipv6_ippool":["v6"]}'
POOLS = {"ippools": {"ipv4": ["v4"], "ipv6": ["v6"]}}
COORDINATOR = '{"txQueueLen":0,"tunePodRoutes":true,"mode":"auto","type":"coordinator"}'


def config(
    spec: dict[str, Any], annotations: dict[str, str] | None = None, name: str = "net"
) -> SpiderMultusConfig:
    """As it is in force: the defaults of schema and admission filled in."""
    raw = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderMultusConfig",
        "metadata": {"name": name, "namespace": "shop", "uid": "u1", "annotations": annotations or {}},
        "spec": spec,
    }
    admitted, found = admit(raw, None, Objects())
    assert not found.errors, found.errors
    return msgspec.convert(admitted, SpiderMultusConfig)


def text_of(spec: dict[str, Any], annotations: dict[str, str] | None = None) -> str:
    made = definition(config(spec, annotations))
    assert made is not None
    return made["spec"]["config"]


def listed(*plugins: str, version: str = "0.3.1", name: str = "net") -> str:
    return f'{{"cniVersion":"{version}","name":"{name}","plugins":[{",".join(plugins)}]}}'


GOLDEN: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "macvlan": (
        {
            "cniType": "macvlan",
            "macvlan": {"master": ["ens4"], "mtu": 0, **POOLS},
            "enableCoordinator": False,
        },
        (f'{{"type":"macvlan","master":"ens4","mode":"bridge","mtu":0,{IPAM}}}',),
    ),
    "macvlan with a VLAN": (
        {
            "cniType": "macvlan",
            "macvlan": {"master": ["ens4"], "vlanID": 120, **POOLS},
            "enableCoordinator": False,
        },
        (
            '{"vlanID":120,"type":"ifacer","interfaces":["ens4"]}',
            f'{{"type":"macvlan","master":"ens4.120","mode":"bridge","mtu":0,{IPAM}}}',
        ),
    ),
    "macvlan on a bond": (
        {
            "cniType": "macvlan",
            "macvlan": {
                "master": ["ens4", "ens5"],
                "vlanID": 7,
                "bond": {"name": "bond7", "mode": 1, "options": "miimon=100"},
                **POOLS,
            },
            "enableCoordinator": False,
        },
        (
            '{"vlanID":7,"type":"ifacer","interfaces":["ens4","ens5"],'
            '"bond":{"name":"bond7","mode":1,"options":"miimon=100"}}',
            f'{{"type":"macvlan","master":"bond7.7","mode":"bridge","mtu":0,{IPAM}}}',
        ),
    ),
    "ipvlan": (
        {
            "cniType": "ipvlan",
            "ipvlan": {"master": ["ens4"], "mtu": 9000, **POOLS},
            "enableCoordinator": False,
        },
        (f'{{"type":"ipvlan","master":"ens4","mtu":9000,{IPAM}}}',),
    ),
    "one parent with a bond that is given beside": (
        {
            "cniType": "macvlan",
            "macvlan": {"master": ["a"], "vlanID": 7, "bond": {"name": "b0", "mode": 1}},
            "enableCoordinator": False,
        },
        (
            '{"vlanID":7,"type":"ifacer","interfaces":["a"],"bond":{"name":"b0","mode":1,"options":""}}',
            '{"type":"macvlan","master":"a.7","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}}',
        ),
    ),
    "ipvlan on a bond with a VLAN": (
        {
            "cniType": "ipvlan",
            "ipvlan": {"master": ["a", "b"], "vlanID": 9, "bond": {"name": "b0", "mode": 0}, **POOLS},
            "enableCoordinator": False,
        },
        (
            '{"vlanID":9,"type":"ifacer","interfaces":["a","b"],"bond":{"name":"b0","mode":0,"options":""}}',
            f'{{"type":"ipvlan","master":"b0.9","mtu":0,{IPAM}}}',
        ),
    ),
    "macvlan on a bond without a VLAN": (
        {
            "cniType": "macvlan",
            "macvlan": {"master": ["a", "b"], "bond": {"name": "b0", "mode": 6}},
            "enableCoordinator": False,
        },
        (
            '{"type":"ifacer","interfaces":["a","b"],"bond":{"name":"b0","mode":6,"options":""}}',
            '{"type":"macvlan","master":"b0","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}}',
        ),
    ),
    "vlan": (
        {
            "cniType": "vlan",
            "vlan": {"master": ["ens4"], "vlanMode": "manual", "vlanID": 12, "mtu": 0, **POOLS},
            "enableCoordinator": False,
        },
        (f'{{"type":"vlan","master":"ens4","vlanMode":"manual","vlanId":12,"mtu":0,{IPAM}}}',),
    ),
    "vlan on a bond": (
        {
            "cniType": "vlan",
            "vlan": {
                "master": ["ens4", "ens5"],
                "vlanMode": "auto",
                "bond": {"name": "b", "mode": 4, "options": ""},
                **POOLS,
            },
            "enableCoordinator": False,
        },
        (
            '{"type":"ifacer","interfaces":["ens4","ens5"],"bond":{"name":"b","mode":4,"options":""}}',
            f'{{"type":"vlan","master":"b","vlanMode":"auto","mtu":0,{IPAM}}}',
        ),
    ),
    "sriov": (
        {
            "cniType": "sriov",
            "sriov": {
                "resourceName": "spidernet.io/mlx",
                "vlanID": 3,
                "minTxRateMbps": 1,
                "maxTxRateMbps": 2,
                "rdmaIsolation": True,
                "mtu": 4200,
                "ippools": {"ipv4": ["v4"], "matchMasterSubnet": True},
            },
        },
        (
            '{"vlan":3,"min_tx_rate":1,"max_tx_rate":2,"type":"sriov",'
            '"ipam":{"type":"spiderpool","default_ipv4_ippool":["v4"],"match_master_subnet":true}}',
            '{"type":"rdma"}',
            "COORDINATOR",
            '{"type":"tuning","mtu":4200}',
        ),
    ),
    "sriov without more": (
        {"cniType": "sriov", "sriov": {"resourceName": "r.io/x"}},
        (
            '{"vlan":0,"min_tx_rate":0,"max_tx_rate":0,"type":"sriov","ipam":{"type":"spiderpool"}}',
            "COORDINATOR",
        ),
    ),
    "sriov with all that may follow": (
        {
            "cniType": "sriov",
            "sriov": {"resourceName": "r.io/x", "rdmaIsolation": True, "mtu": 9000},
            "chainCNIJsonData": ['{"type":"b"}', '{"type":"a"}'],
            "disableIPAM": True,
        },
        (
            '{"vlan":0,"min_tx_rate":0,"max_tx_rate":0,"type":"sriov"}',
            '{"type":"rdma"}',
            '{"type":"b"}',
            '{"type":"a"}',
            "COORDINATOR",
            '{"type":"tuning","mtu":9000}',
        ),
    ),
    "ib-sriov without more": (
        {
            "cniType": "ib-sriov",
            "ibsriov": {"resourceName": "r.io/x", "ippools": {"ipv4": ["v4"], "matchMasterSubnet": True}},
        },
        (
            '{"type":"ib-sriov","pkey":"","link_state":"enable","rdmaIsolation":true,"ibKubernetesEnabled":false,'
            '"ipam":{"type":"spiderpool","default_ipv4_ippool":["v4"]}}',
            "COORDINATOR",
        ),
    ),
    "ovs without more": (
        {"cniType": "ovs", "ovs": {"bridge": "br1"}},
        ('{"vlan":0,"type":"ovs","bridge":"br1","ipam":{"type":"spiderpool"}}', "COORDINATOR"),
    ),
    "ib-sriov": (
        {
            "cniType": "ib-sriov",
            "ibsriov": {
                "resourceName": "spidernet.io/ib",
                "pkey": "0x2",
                "linkState": "enable",
                "rdmaIsolation": True,
                "enableIbKubernetes": False,
                **POOLS,
            },
            "enableCoordinator": False,
        },
        (
            '{"type":"ib-sriov","pkey":"0x2","link_state":"enable","rdmaIsolation":true,'
            f'"ibKubernetesEnabled":false,{IPAM}}}',
        ),
    ),
    "ipoib": (
        {"cniType": "ipoib", "ipoib": {"master": "ib0", **POOLS}, "enableCoordinator": False},
        (f'{{"type":"ipoib","master":"ib0",{IPAM}}}',),
    ),
    "ovs": (
        {
            "cniType": "ovs",
            "ovs": {
                "bridge": "br1",
                "vlan": 5,
                "trunk": [{"minID": 1, "maxID": 9}, {"id": 20}],
                "deviceID": "0000:01:00.1",
                **POOLS,
            },
            "enableCoordinator": False,
        },
        (
            f'{{"vlan":5,"type":"ovs","bridge":"br1","deviceID":"0000:01:00.1",{IPAM},'
            '"trunk":[{"minID":1,"maxID":9},{"id":20}]}',
        ),
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_each_type_is_rendered_as_the_reference_does(case: str) -> None:
    spec, plugins = GOLDEN[case]
    text = text_of(spec)
    expected = listed(*plugins).replace("COORDINATOR", COORDINATOR)
    assert text == expected


def test_the_coordinator_is_rendered_with_what_is_set_in_the_reference_order() -> None:
    block = {
        "mode": "underlay",
        "podCIDRType": "cluster",
        "hijackCIDR": ["10.0.0.1"],
        "policyRoutes": [{"dst": "10.9.0.0/16", "gw": "10.6.0.1"}],
        "podMACPrefix": "0a:1b",
        "podDefaultRouteNIC": "eth0",
        "vethLinkAddress": "169.254.1.1",
        "vethMTU": 1400,
        "podRPFilter": 2,
        "txQueueLen": 10,
        "tunePodRoutes": False,
        "hostRuleTable": 501,
    }
    text = text_of({"cniType": "ipoib", "ipoib": {"master": "ib0"}, "coordinator": block})
    rendered = msgspec.json.encode(msgspec.json.decode(text)["plugins"][-1]).decode()
    assert rendered == (
        '{"txQueueLen":10,"vethLinkAddress":"169.254.1.1","vethMTU":1400,"tunePodRoutes":false,'
        '"podMACPrefix":"0a:1b","mode":"underlay","type":"coordinator","podDefaultRouteNic":"eth0",'
        '"podRPFilter":2,"hostRuleTable":501,"hijackCIDR":["10.0.0.1/32"],'
        '"policyRoutes":[{"dst":"10.9.0.0/16","gw":"10.6.0.1"}]}'
    )


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({}, {}),
        ({"podRPFilter": 0}, {}),
        ({"podRPFilter": 0, "podCIDRType": "none"}, {"podRPFilter": 0}),
        ({"podRPFilter": -1}, {"podRPFilter": -1}),
        ({"hostRuleTable": 500}, {}),
        ({"hostRuleTable": 600}, {"hostRuleTable": 600}),
        ({"hijackCIDR": [], "policyRoutes": [], "podMACPrefix": "", "vethLinkAddress": ""}, {}),
        ({"vethMTU": 9000, "mode": "disabled"}, {"vethMTU": 9000, "mode": "disabled"}),
    ],
)
def test_what_of_a_coordinator_block_is_rendered(block: dict[str, Any], expected: dict[str, Any]) -> None:
    """podRPFilter and hostRuleTable where they say something: admission's own defaults would hide the SpiderCoordinator's."""
    text = text_of({"cniType": "ipoib", "ipoib": {"master": "ib0"}, "coordinator": block})
    always = {"type": "coordinator", "mode": "auto", "tunePodRoutes": True, "txQueueLen": 0}
    assert msgspec.json.decode(text)["plugins"][-1] == {**always, **expected}


def test_custom_is_verbatim_and_empty_is_no_config() -> None:
    assert text_of({"cniType": "custom", "customCNI": '{"cniVersion": "1.0.0",  "type":"x"}'}) == (
        '{"cniVersion": "1.0.0",  "type":"x"}'
    )
    made = definition(config({"cniType": "custom", "customCNI": ""}))
    assert made is not None
    assert made["spec"] == {}


def test_without_ipam_and_with_chained_plugins_whose_keys_are_sorted() -> None:
    text = text_of(
        {
            "cniType": "ipoib",
            "ipoib": {"master": "ib0"},
            "disableIPAM": True,
            "enableCoordinator": False,
            "chainCNIJsonData": ['{"type":"tuning","sysctl":{"b":"1","a":"2"},"mtu":9}'],
        }
    )
    assert text == listed(
        '{"type":"ipoib","master":"ib0"}', '{"mtu":9,"sysctl":{"a":"2","b":"1"},"type":"tuning"}'
    )


def test_names_version_and_annotations() -> None:
    marks = {
        "multus.spidernet.io/cr-name": "other",
        "multus.spidernet.io/cni-version": "1.0.0",
        "cni.spidernet.io/cniconfig-name": "third",
        "mine": "kept",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    }
    made = definition(
        config({"cniType": "sriov", "sriov": {"resourceName": "r.io/x"}, "enableCoordinator": False}, marks)
    )
    assert made is not None
    assert made["metadata"]["name"] == "other"
    assert made["metadata"]["annotations"] == {**marks, "k8s.v1.cni.cncf.io/resourceName": "r.io/x"}
    read = msgspec.json.decode(made["spec"]["config"])
    assert (read["cniVersion"], read["name"]) == ("1.0.0", "third")
    assert made["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "spiderpool.spidernet.io/v2beta1",
            "kind": "SpiderMultusConfig",
            "name": "net",
            "uid": "u1",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


@pytest.mark.parametrize(
    ("spec", "resource"),
    [
        ({"cniType": "sriov", "sriov": {"resourceName": "r.io/vf"}}, "r.io/vf"),
        ({"cniType": "ib-sriov", "ibsriov": {"resourceName": "r.io/ib"}}, "r.io/ib"),
        ({"cniType": "ovs", "ovs": {"bridge": "br1", "deviceID": "x"}}, "ovs-cni.network.kubevirt.io/br1"),
        ({"cniType": "ovs", "ovs": {"bridge": "br1"}}, ""),
        ({"cniType": "macvlan", "macvlan": {"master": ["a"], "rdmaResourceName": "r.io/x"}}, ""),
        ({"cniType": "ipoib", "ipoib": {"master": "ib0"}}, ""),
        ({"cniType": "custom", "customCNI": "{}"}, ""),
    ],
)
@pytest.mark.parametrize("native", [False, True])
def test_the_resource_that_pods_must_ask_for(spec: dict[str, Any], resource: str, native: bool) -> None:
    made = definition(config(spec, {"orbweaver.io/native": "true"} if native else {"mine": "1"}))
    assert made is not None
    assert made["metadata"]["annotations"].get("k8s.v1.cni.cncf.io/resourceName", "") == resource


def test_what_admission_would_refuse_is_not_rendered() -> None:
    raw = {
        "metadata": {"name": "net", "namespace": "shop", "uid": "u1"},
        "spec": {"cniType": "macvlan"},
    }
    assert definition(msgspec.convert(raw, SpiderMultusConfig)) is None


def test_native_is_one_plugin_of_ours_that_names_the_network() -> None:
    text = text_of({"cniType": "macvlan", "macvlan": {"master": ["ens4"]}}, {"orbweaver.io/native": "true"})
    assert text == listed('{"type":"orbweaver","network":"shop/net"}')


def test_what_is_there_is_replaced_only_where_it_differs_and_keeps_what_is_not_ours() -> None:
    made = definition(config({"cniType": "custom", "customCNI": '{"type":"x"}'}, {"a": "b"}))
    assert made is not None
    present = msgspec.convert(made, NetworkAttachmentDefinition)
    assert not differs(made, present)
    meta = present.metadata
    other = msgspec.structs.replace(
        present, metadata=msgspec.structs.replace(meta, annotations={"a": "c"}, labels={"l": "1"})
    )
    assert differs(made, other)
    body = replacement(made, other, 7)
    assert body["metadata"]["labels"] == {"l": "1"}
    assert body["metadata"]["annotations"] == {"a": "b"}
    assert body["metadata"]["resourceVersion"] == "7"
    assert differs(made, msgspec.structs.replace(present, spec=NetworkAttachmentSpec(config="{}")))
    (ours,) = meta.owner_references
    theirs = msgspec.structs.replace(ours, name="x", uid="u2")
    assert differs(made, _owned(present, theirs)), "another one controls it"
    beside = msgspec.structs.replace(ours, kind="ConfigMap", name="y", uid="u3", controller=False)
    held = msgspec.structs.replace(
        _owned(present, theirs, beside).metadata, finalizers=("spiderpool.spidernet.io", "theirs")
    )
    body = replacement(made, msgspec.structs.replace(present, metadata=held), 7)
    assert [one["uid"] for one in body["metadata"]["ownerReferences"]] == ["u3", "u1"]
    assert body["metadata"]["finalizers"] == ["theirs"]
    unowned = msgspec.structs.replace(present, metadata=msgspec.structs.replace(meta, owner_references=()))
    assert differs(made, unowned), "one that nobody controls is taken over"


def _owned(present: NetworkAttachmentDefinition, *owners: OwnerReference) -> NetworkAttachmentDefinition:
    return msgspec.structs.replace(
        present, metadata=msgspec.structs.replace(present.metadata, owner_references=owners)
    )
