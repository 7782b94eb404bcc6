"""Misspelt annotations: which names look like ours, and what was probably meant."""

from __future__ import annotations

import pytest

from shared.manifests.annotation_key import KNOWN, findings, is_ours, misplaced, unread

IPPOOL = "ipam.spidernet.io/ippool"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("ipam.spidernet.io/ipool", IPPOOL),
        ("ipam.spidernet.io/IPPool", IPPOOL),
        ("ipam.spidernet.io/ip_pool", IPPOOL),
        ("IPAM.spidernet.io/ippool", IPPOOL),
        ("spidernet.io/ippool", IPPOOL),
        ("ipam.spidernet.com/ippool", IPPOOL),
        ("ipam.spidernet/ippool", IPPOOL),
        ("ipam.spidernet.io.ippool", IPPOOL),
        ("ipam.spiderpool.io/ippools", "ipam.spidernet.io/ippools"),
        ("cni.spidernet.io/rdma-resource", "cni.spidernet.io/rdma-resource-inject"),
        ("ipam.spidernet.io/rdma-resource-inject", "cni.spidernet.io/rdma-resource-inject"),
        ("ipam.spidernet.io/default-route", "ipam.spidernet.io/default-route-nic"),
        ("k8s.v1.cni.cncf.io/network", "k8s.v1.cni.cncf.io/networks"),
        ("v1.multus-cni.io/default-networks", "v1.multus-cni.io/default-network"),
        ("k8s.v1.multus-cni.io/networks", "k8s.v1.cni.cncf.io/networks"),
    ],
)
def test_a_misspelt_name_is_told_with_what_was_meant(key: str, meant: str) -> None:
    assert is_ours(key)
    assert unread("Pod", key).endswith(f"did you mean {meant}?")


@pytest.mark.parametrize(
    "key",
    [
        "k8s.v1.cni.cncf.io/network-status",
        "k8s.v1.cni.cncf.io/networks-status",
        "checksum/spiderpool-conf",
        "meta.helm.sh/release-name",
        "cni.projectcalico.org/ipv4pools",
        "k8s.ovn.org/pod-networks",
        "kubernetes.io/config.hash",
        "ippool",
    ],
)
def test_names_of_others_are_none_of_our_business(key: str) -> None:
    assert not is_ours(key)
    assert not findings("Pod", {key: "x"})


def test_a_name_of_multus_that_is_near_none_may_be_one_that_we_do_not_know() -> None:
    assert not findings("Pod", {"k8s.v1.cni.cncf.io/bandwidth": "x"})


def test_a_name_that_is_near_none_is_told_with_all() -> None:
    said = unread("Namespace", "ipam.spidernet.io/zone")
    assert "ipam.spidernet.io/default-ipv4-ippool" in said and "did you mean" not in said


def test_an_annotation_of_another_kind_is_told_with_its_kind() -> None:
    assert unread("Namespace", IPPOOL) == "has no effect on a Namespace: it is read of a Pod"
    assert "it is read of a Namespace" in unread("Pod", "ipam.spidernet.io/default-ipv4-ippool")


@pytest.mark.parametrize("kind", KNOWN)
def test_what_is_known_is_not_told(kind: str) -> None:
    assert not findings(kind, dict.fromkeys(KNOWN[kind], "x"))
    assert all(is_ours(key) for key in KNOWN[kind])


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        (IPPOOL, '{"ipv4":["a"],"ipv_6":["b"]}', "member 'ipv_6' is not read, it has no effect; did you mean ipv6?"),
        (IPPOOL, '{"interface":"net1","ipv4":["a"]}', "member 'interface' is not read"),
        ("ipam.spidernet.io/ippools", '[{"ipv4":["a"]},{"nic":"net1","ipv4":["b"]}]', "[1]: member 'nic'"),
        ("ipam.spidernet.io/routes", '[{"dst":"10.0.0.0/8","gw":"10.0.0.1","via":"x"}]', "member 'via'"),
    ],
)  # fmt: skip
def test_members_that_nobody_reads_are_told(key: str, text: str, said: str) -> None:
    (found,) = findings("Pod", {key: text})
    assert said in found.message and found.field == f"metadata.annotations[{key}]"


@pytest.mark.parametrize("text", ['{"IPv4":["a"],"cleanGateway":true}', "{", "[]", "7", '["a"]'])
def test_members_in_any_case_are_read_and_what_is_no_json_is_refused_elsewhere(text: str) -> None:
    assert not findings("Pod", {"ipam.spidernet.io/ippools": text})


def test_annotations_of_pods_beside_the_template() -> None:
    marks = {IPPOOL: "{}", "app": "x"}
    (found,) = misplaced("Deployment", "spec.template", marks, {})
    assert "write it into spec.template.metadata.annotations" in found.message
    assert not misplaced("Deployment", "spec.template", marks, {IPPOOL: "{}"}), "it stands at both places"


def test_no_more_is_told_than_anybody_reads() -> None:
    assert len(findings("Pod", {f"ipam.spidernet.io/x{i}": "" for i in range(5000)})) == 8
