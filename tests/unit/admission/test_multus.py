"""SpiderMultusConfig: defaults, and one test for each rule."""

from __future__ import annotations

from typing import Any

import pytest

from shared.admission.rules import mutate
from shared.admission.view import Objects
from tests.unit.admission.objects import create, delete, fields, multus, said, update

RDMA, NETWORK = "cni.spidernet.io/rdma-resource-inject", "cni.spidernet.io/network-resource-inject"
CR_NAME, CNI_VERSION = "multus.spidernet.io/cr-name", "multus.spidernet.io/cni-version"
POOLS = {"ipv4": ["v4"]}
BLOCKS: dict[str, dict[str, Any]] = {
    "macvlan": {"cniType": "macvlan", "macvlan": {"master": ["eth0"]}},
    "ipvlan": {"cniType": "ipvlan", "ipvlan": {"master": ["eth0"]}},
    "vlan": {"cniType": "vlan", "vlan": {"master": ["eth0"], "vlanID": 100}},
    "sriov": {"cniType": "sriov", "sriov": {"resourceName": "spidernet.io/sriov"}},
    "ib-sriov": {"cniType": "ib-sriov", "ibsriov": {"resourceName": "spidernet.io/ib"}},
    "ipoib": {"cniType": "ipoib", "ipoib": {"master": "ibs1"}},
    "ovs": {"cniType": "ovs", "ovs": {"bridge": "br1"}},
}


def block(cni_type: str, **members: Any) -> dict[str, Any]:
    """The smallest valid spec of a type, with members of its block replaced."""
    key = next(key for key in BLOCKS[cni_type] if key != "cniType")
    return {"cniType": cni_type, key: {**BLOCKS[cni_type][key], **members}}


class TestDefaults:
    def test_m00019_an_empty_spec_is_custom(self) -> None:
        out = mutate(multus(enableCoordinator=True, coordinator={"mode": "auto"}), Objects())
        assert out["spec"] == {
            "cniType": "custom",
            "enableCoordinator": False,
            "disableIPAM": False,
            "chainCNIJsonData": [],
            "customCNI": "",
        }
        assert create(multus()).valid

    def test_macvlan(self) -> None:
        out = mutate(multus(**block("macvlan", bond={"name": "b", "mode": 1})), Objects())
        assert out["spec"]["macvlan"] == {
            "master": ["eth0"],
            "mtu": 0,
            "vlanID": 0,
            "rdmaResourceName": "",
            "bond": {"name": "b", "mode": 1, "options": ""},
            "ippools": {"matchMasterSubnet": False},
        }
        assert out["spec"]["enableCoordinator"] is True
        assert out["spec"]["coordinator"] == {
            "mode": "auto",
            "hijackCIDR": [],
            "policyRoutes": [],
            "vethLinkAddress": "",
            "podMACPrefix": "",
            "podDefaultRouteNIC": "",
            "podRPFilter": 0,
            "tunePodRoutes": True,
            "txQueueLen": 0,
            "hostRuleTable": 500,
        }
        assert mutate(out, Objects()) == out

    def test_a_coordinator_block_is_filled_and_normalised(self) -> None:
        out = mutate(multus(**block("macvlan"), coordinator={"hijackCIDR": ["10.0.0.1"]}), Objects())
        assert out["spec"]["coordinator"]["hijackCIDR"] == ["10.0.0.1/32"]
        assert out["spec"]["coordinator"]["txQueueLen"] == 0

    def test_the_other_types(self) -> None:
        def of(cni_type: str, key: str) -> dict[str, Any]:
            return mutate(multus(**block(cni_type)), Objects())["spec"][key]

        pools = {"ippools": {"matchMasterSubnet": False}}
        assert of("sriov", "sriov") == {
            "resourceName": "spidernet.io/sriov",
            "vlanID": 0,
            "mtu": 0,
            "minTxRateMbps": 0,
            "maxTxRateMbps": 0,
            "rdmaIsolation": False,
            **pools,
        }
        assert of("ib-sriov", "ibsriov") == {
            "resourceName": "spidernet.io/ib",
            "pkey": "",
            "linkState": "enable",
            "rdmaIsolation": True,
            "enableIbKubernetes": False,
            **pools,
        }
        assert of("ovs", "ovs") == {"bridge": "br1", "vlan": 0, **pools}
        assert of("ipoib", "ipoib") == {"master": "ibs1", **pools}

    def test_m00039_vlan_auto_gets_no_id(self) -> None:
        auto = mutate(multus(cniType="vlan", vlan={"master": ["eth0"], "vlanMode": "auto"}), Objects())
        assert "vlanID" not in auto["spec"]["vlan"]
        manual = mutate(multus(cniType="vlan", vlan={"master": ["eth0"]}), Objects())
        assert manual["spec"]["vlan"]["vlanMode"] == "manual"
        assert manual["spec"]["vlan"]["vlanID"] == 0

    def test_membership_of_a_group_comes_and_goes_with_its_annotation(self) -> None:
        out = mutate(multus(annotations={RDMA: "g"}, **block("macvlan")), Objects())
        assert out["metadata"]["labels"] == {RDMA: "g"}
        del out["metadata"]["annotations"][RDMA]
        assert mutate(out, Objects())["metadata"]["labels"] == {}


@pytest.mark.parametrize("cni_type", list(BLOCKS))
def test_m00001_to_m00003_the_smallest_of_each_type(cni_type: str) -> None:
    assert create(multus(**block(cni_type))).valid
    assert create(multus(**block(cni_type), disableIPAM=True)).valid


def test_m00004_and_m00005_custom_json() -> None:
    assert create(multus(customCNI='{"type":"x"}')).valid
    assert create(multus(cniType="custom", customCNI='"a string"')).valid
    assert fields(create(multus(customCNI="{"))) == ["spec.customCNI"]


def test_m00006_two_masters_need_a_bond() -> None:
    two = {"master": ["eth0", "eth1"], "vlanID": 100}
    assert create(multus(**block("macvlan", **two, bond={"name": "bond0", "mode": 1}))).valid
    assert fields(create(multus(**block("macvlan", **two)))) == ["spec.macvlan.bond"]
    nameless = create(multus(**block("macvlan", **two, bond={"mode": 7})))
    assert fields(nameless) == ["spec.macvlan.bond.name", "spec.macvlan.bond.mode"]


def test_m00009_from_one_master_to_two() -> None:
    two = block("macvlan", master=["eth0", "eth1"], bond={"name": "b", "mode": 0})
    assert update(multus(**block("macvlan")), multus(**two)).valid


def test_m00010_a_name_of_its_own_for_the_definition() -> None:
    assert create(multus(annotations={CR_NAME: "other"})).valid


@pytest.mark.parametrize(
    ("new", "stored"),
    [
        (multus("n", annotations={CR_NAME: "t"}), multus("m", annotations={CR_NAME: "t"})),
        (multus("n", annotations={CR_NAME: "m"}), multus("m")),
        (multus("t"), multus("m", annotations={CR_NAME: "t"})),
    ],
)
def test_m00011_clashes(new: dict[str, Any], stored: dict[str, Any]) -> None:
    verdict = create(new, stored)
    assert "already exists and is managed by SpiderMultusConfig x/m." in said(verdict)
    elsewhere = {**stored, "metadata": {**stored["metadata"], "namespace": "y"}}
    assert create(new, elsewhere).valid


def test_m00014_a_definition_without_owner_is_taken_over_and_an_owned_one_is_not() -> None:
    definition: dict[str, Any] = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "m", "namespace": "x"},
    }
    assert create(multus(), definition).valid
    owner = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderMultusConfig",
        "name": "q",
        "controller": True,
    }
    definition["metadata"]["ownerReferences"] = [owner]
    assert "managed by SpiderMultusConfig x/q." in said(create(multus(), definition))


def test_m00012_and_m00013_versions() -> None:
    for version in ("0.3.0", "0.3.1", "0.4.0", "1.0.0"):
        assert create(multus(annotations={CNI_VERSION: version})).valid
    assert "unsupported CNI version 0.2.0" in said(create(multus(annotations={CNI_VERSION: "0.2.0"})))


def test_m00015_type_and_block_must_agree() -> None:
    other = create(multus(cniType="macvlan", ipvlan={"master": ["eth0"]}))
    assert fields(other) == ["spec.ipvlan", "spec.macvlan"]
    assert "the cniType macvlan only supports macvlan, please remove other CNI configs" in said(other)
    assert "no macvlan specified" in said(other)
    assert fields(create(multus(**block("sriov"), customCNI="{}"))) == ["spec.customCNI"]
    assert fields(create(multus(cniType="custom", macvlan={"master": ["a"]}))) == ["spec.macvlan"]
    assert fields(create(multus(cniType="bridge"))) == ["spec.cniType"]
    assert "no ibsriov specified" in said(create(multus(cniType="ib-sriov")))


@pytest.mark.parametrize("cni_type", ["macvlan", "ipvlan", "vlan", "sriov"])
@pytest.mark.parametrize("vlan_id", [-1, 4095])
def test_m00016_vlan_ids(cni_type: str, vlan_id: int) -> None:
    assert fields(create(multus(**block(cni_type, vlanID=vlan_id)))) == [f"spec.{cni_type}.vlanID"]
    assert create(multus(**block(cni_type, vlanID=4094))).valid


@pytest.mark.parametrize("name", ["", "a" * 254, "A", "a_b", "-a", "a..b"])
def test_m00020_and_m00025_the_name_of_the_definition(name: str) -> None:
    assert fields(create(multus(annotations={CR_NAME: name}))) == [f"metadata.annotations[{CR_NAME}]"]


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"type":""}', '{"type":5}', '"x"', "[" * 9999])
def test_m00021_chained_plugins(text: str) -> None:
    good = '{"type":"tuning","sysctl":{"net.core.somaxconn":"4096"}}'
    assert create(multus(**block("macvlan"), chainCNIJsonData=[good])).valid
    assert fields(create(multus(**block("macvlan"), chainCNIJsonData=[good, text]))) == [
        "spec.chainCNIJsonData[1]"
    ]


def test_m00022_to_m00024_the_coordinator_block() -> None:
    assert create(multus(**block("macvlan"), coordinator={"hostRPFilter": 0})).valid
    assert create(multus(**block("macvlan"), coordinator={"podMACPrefix": "9e:10"})).valid
    for spec, field in (
        ({"podRPFilter": 4}, "podRPFilter"),
        ({"podMACPrefix": "01:10"}, "podMACPrefix"),
        ({"hijackCIDR": ["x"]}, "hijackCIDR[0]"),
    ):
        assert fields(create(multus(**block("macvlan"), coordinator=spec))) == [f"spec.coordinator.{field}"]


@pytest.mark.parametrize("key", [RDMA, NETWORK])
def test_m00027_and_m00031_injection_with_resource_and_pools(key: str) -> None:
    for cni_type in ("macvlan", "ipvlan", "vlan"):
        spec = block(cni_type, rdmaResourceName="spidernet.io/rdma", ippools=POOLS)
        assert create(multus(annotations={key: "g"}, **spec)).valid
    for cni_type in ("sriov", "ib-sriov", "ipoib"):
        assert create(multus(annotations={key: "g"}, **block(cni_type, ippools={"ipv6": ["v6"]}))).valid


def test_m00028_rdma_injection_needs_a_resource() -> None:
    spec = block("macvlan", ippools=POOLS)
    assert fields(create(multus(annotations={RDMA: "g"}, **spec))) == ["spec.macvlan.rdmaResourceName"]
    assert create(multus(annotations={NETWORK: "g"}, **spec)).valid


@pytest.mark.parametrize("key", [RDMA, NETWORK])
def test_m00029_and_m00032_injection_needs_pools(key: str) -> None:
    spec = block("macvlan", rdmaResourceName="r")
    assert fields(create(multus(annotations={key: "g"}, **spec))) == ["spec.macvlan.ippools"]
    assert create(multus(annotations={NETWORK: "g"}, **block("macvlan"))).valid


@pytest.mark.parametrize("key", [RDMA, NETWORK])
def test_m00030_types_that_have_no_injection(key: str) -> None:
    for spec in (block("ovs"), {"cniType": "custom"}):
        assert fields(create(multus(annotations={key: "g"}, **spec))) == [f"metadata.annotations[{key}]"]


@pytest.mark.parametrize("cni_type", ["macvlan", "ipvlan", "vlan", "sriov"])
def test_m00033_to_m00035_mtu(cni_type: str) -> None:
    assert fields(create(multus(**block(cni_type, mtu=-1)))) == [f"spec.{cni_type}.mtu"]
    assert create(multus(**block(cni_type, mtu=1400))).valid


def test_m00038_and_m00040_vlan_modes() -> None:
    assert create(multus(**block("vlan"))).valid
    auto = {"cniType": "vlan", "vlan": {"master": ["eth0"], "vlanMode": "auto"}}
    assert create(multus(**auto)).valid
    assert fields(create(multus(**block("vlan", vlanMode="auto", vlanID=5)))) == ["spec.vlan.vlanID"]
    assert fields(create(multus(**block("vlan", vlanMode="both")))) == ["spec.vlan.vlanMode"]


@pytest.mark.parametrize(
    ("cni_type", "members", "field"),
    [
        ("macvlan", {"master": []}, "macvlan.master"),
        ("macvlan", {"master": ["eth0", ""], "bond": {"name": "b", "mode": 0}}, "macvlan.master[1]"),
        ("sriov", {"resourceName": ""}, "sriov.resourceName"),
        ("sriov", {"minTxRateMbps": 2, "maxTxRateMbps": 1}, "sriov.minTxRateMbps"),
        ("sriov", {"minTxRateMbps": -1}, "sriov.minTxRateMbps"),
        ("ib-sriov", {"resourceName": ""}, "ibsriov.resourceName"),
        ("ib-sriov", {"linkState": "up"}, "ibsriov.linkState"),
        ("ipoib", {"master": ""}, "ipoib.master"),
        ("ovs", {"bridge": ""}, "ovs.bridge"),
        ("ovs", {"trunk": [{"maxID": 5}]}, "ovs.trunk[0].minID"),
        ("ovs", {"trunk": [{"minID": 5}]}, "ovs.trunk[0].maxID"),
        ("ovs", {"trunk": [{"minID": 5, "maxID": 4}]}, "ovs.trunk[0].maxID"),
        ("ovs", {"trunk": [{"id": 4095}]}, "ovs.trunk[0].id"),
        ("macvlan", {"ippools": {"matchMasterSubnet": True}}, "macvlan.ippools.matchMasterSubnet"),
        ("macvlan", {"ippools": {"ipv4": ["a", "a[]b"]}}, "macvlan.ippools.ipv4[1]"),
    ],
)
def test_rules_of_the_blocks(cni_type: str, members: dict[str, Any], field: str) -> None:
    assert fields(create(multus(**block(cni_type, **members)))) == [f"spec.{field}"]


def test_rules_that_allow() -> None:
    assert create(multus(**block("ovs", trunk=[{"minID": 4, "maxID": 5}, {"id": 9}]))).valid
    assert create(multus(**block("sriov", minTxRateMbps=5))).valid, "0 is no limit"
    for cni_type in ("sriov", "ib-sriov", "ipoib", "ovs"):
        assert create(multus(**block(cni_type, ippools={"matchMasterSubnet": True}))).valid


def test_the_name_of_the_definition_stays() -> None:
    with_name, other = multus(annotations={CR_NAME: "a"}), multus(annotations={CR_NAME: "b"})
    field = [f"metadata.annotations[{CR_NAME}]"]
    assert fields(update(with_name, other)) == field
    assert fields(update(multus(), with_name)) == field
    assert update(with_name, multus()).valid
    assert update(with_name, with_name).valid


def test_deletion_is_free() -> None:
    assert delete(multus()).valid


def test_two_of_one_name_can_be_changed_and_each_is_warned_of_the_other() -> None:
    """They came in at one moment: that one of them has no effect is told, and how it looks meanwhile is the user's."""
    marks = {"multus.spidernet.io/cr-name": "net"}
    one = multus("one", annotations=marks, cniType="macvlan", macvlan={"master": ["eth1"]})
    other = multus("other", annotations=marks, cniType="macvlan", macvlan={"master": ["eth1"]})
    changed = multus("other", annotations=marks, cniType="macvlan", macvlan={"master": ["eth2"]})
    verdict = update(other, changed, one)
    assert verdict.valid
    assert "x/net already exists and is managed by SpiderMultusConfig x/one." in verdict.warnings[0].message
    assert not create(other, one).valid


def test_what_the_schema_refuses_is_refused_without_an_api_server_too() -> None:
    empty = multus(cniType="vlan", vlan={"master": ["eth1"], "vlanMode": ""})
    assert fields(create(empty)) == ["spec.vlan.vlanMode"]
    long = multus(cniType="ipoib", ipoib={"master": "i" * 16})
    assert fields(create(long)) == ["spec.ipoib.master"]
    large = multus(cniType="sriov", sriov={"resourceName": "r", "mtu": 1 << 31, "maxTxRateMbps": 1 << 31})
    assert fields(create(large)) == ["spec.sriov.mtu", "spec.sriov.maxTxRateMbps"]
