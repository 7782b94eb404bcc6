"""The objects that a fresh installation begins with."""

from __future__ import annotations

from typing import Any

import pytest

from shared.manifests.initial import PREFIX, initial_objects
from shared.manifests.problem import Invalid

POOLS = {
    "DEFAULT_IPV4_IPPOOL_NAME": "default-v4-ippool",
    "DEFAULT_IPV4_SUBNET_NAME": "default-v4-subnet",
    "DEFAULT_IPV4_IPPOOL_SUBNET": "172.18.0.0/16",
    "DEFAULT_IPV4_IPPOOL_IPRANGES": '["172.18.40.40-172.18.40.200"]',
    "DEFAULT_IPV4_IPPOOL_GATEWAY": "172.18.0.1",
    "DEFAULT_IPV6_IPPOOL_NAME": "default-v6-ippool",
    "DEFAULT_IPV6_IPPOOL_SUBNET": "fd00:18::/64",
}


def made(values: dict[str, str], **more: Any) -> tuple[dict[str, Any], ...] | Invalid:
    variables = {f"{PREFIX}{name}": text for name, text in values.items()}
    options = {"namespace": "spiderpool", "subnets_enabled": True, **more}
    return initial_objects(variables, **options)


def objects(values: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    answer = made(values, **more)
    assert not isinstance(answer, Invalid), answer
    return [*answer]


def test_nothing_is_asked_for() -> None:
    assert objects({}) == []


def test_the_default_pools_and_the_subnets_before_them() -> None:
    subnet, v4, v6 = objects(POOLS)
    common = {
        "ipVersion": 4,
        "subnet": "172.18.0.0/16",
        "ips": ["172.18.40.40-172.18.40.200"],
        "gateway": "172.18.0.1",
    }
    assert (subnet["kind"], subnet["metadata"], subnet["spec"]) == (
        "SpiderSubnet",
        {"name": "default-v4-subnet"},
        common,
    )
    assert (v4["kind"], v4["metadata"], v4["spec"]) == (
        "SpiderIPPool",
        {"name": "default-v4-ippool"},
        {**common, "default": True},
    )
    assert v6["spec"] == {"ipVersion": 6, "subnet": "fd00:18::/64", "default": True}


def test_no_subnets_where_they_are_off() -> None:
    assert [one["kind"] for one in objects(POOLS, subnets_enabled=False)] == ["SpiderIPPool"] * 2


def test_the_default_coordinator_has_what_is_asked_for() -> None:
    (coordinator,) = objects(
        {
            "DEFAULT_COORDINATOR_NAME": "default",
            "DEFAULT_COORDINATOR_MODE": "auto",
            "DEFAULT_COORDINATOR_POD_CIDR_TYPE": "auto",
            "DEFAULT_COORDINATOR_TUNE_POD_ROUTES": "false",
            "DEFAULT_COORDINATOR_HIJACK_CIDR": '["169.254.0.0/16"]',
            "DEFAULT_COORDINATOR_POLICY_ROUTES": "[]",
            "DEFAULT_COORDINATOR_VETH_MTU": "1400",
        }
    )
    assert coordinator["spec"] == {
        "mode": "auto",
        "podCIDRType": "auto",
        "tunePodRoutes": False,
        "hijackCIDR": ["169.254.0.0/16"],
        "vethMTU": 1400,
    }


@pytest.mark.parametrize(
    ("values", "present", "name", "marks"),
    [
        ({}, "cilium", "cilium", {}),
        ({}, "macvlan", "macvlan", {}),
        ({}, "", "default", {}),
        ({}, "k8s-pod-network", "calico", {"multus.spidernet.io/cr-name": "k8s-pod-network"}),
        ({"DEFAULT_CNI_NAME": "flannel"}, "cilium", "flannel", {}),
    ],
)
def test_a_network_for_the_cni_that_is_there(
    values: dict[str, str], present: str, name: str, marks: dict[str, str]
) -> None:
    (network,) = objects({"ENABLE_MULTUS_CONFIG": "true", **values}, present_cni=present)
    assert network["metadata"]["name"] == name
    assert network["metadata"].get("annotations", {}) == marks
    assert network["metadata"]["namespace"] == "spiderpool"
    assert network["spec"] == {"cniType": "custom", "enableCoordinator": False}


def test_the_namespace_of_that_network() -> None:
    (network,) = objects({"ENABLE_MULTUS_CONFIG": "true", "DEFAULT_CNI_NAMESPACE": "kube-system"})
    assert network["metadata"]["namespace"] == "kube-system"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({**POOLS, "DEFAULT_IPV6_IPPOOL_NAME": "default-v4-ippool"}, "DEFAULT_IPV6_IPPOOL_NAME"),
        ({**POOLS, "DEFAULT_IPV6_SUBNET_NAME": "default-v4-subnet"}, "DEFAULT_IPV6_SUBNET_NAME"),
        ({**POOLS, "DEFAULT_IPV4_IPPOOL_SUBNET": ""}, "DEFAULT_IPV4_IPPOOL_SUBNET"),
        ({**POOLS, "DEFAULT_IPV4_IPPOOL_IPRANGES": "172.18.0.1-172.18.0.9"}, "DEFAULT_IPV4_IPPOOL_IPRANGES"),
        ({**POOLS, "DEFAULT_IPV4_IPPOOL_IPRANGES": '{"a":1}'}, "DEFAULT_IPV4_IPPOOL_IPRANGES"),
        ({"ENABLE_MULTUS_CONFIG": "perhaps"}, "ENABLE_MULTUS_CONFIG"),
        (
            {"DEFAULT_COORDINATOR_NAME": "default", "DEFAULT_COORDINATOR_VETH_MTU": "big"},
            "DEFAULT_COORDINATOR_VETH_MTU",
        ),
    ],
)
def test_what_is_wrong_names_the_variable(values: dict[str, str], field: str) -> None:
    answer = made(values)
    assert isinstance(answer, Invalid)
    assert f"{PREFIX}{field}" in {error.field for error in answer.errors}
