"""The objects that an installation begins with, by the variables of Spiderpool's init job (spec §2.7)."""

from __future__ import annotations

import pytest

from services.controller.defaults import default_objects
from shared.admission.rules import admit
from shared.admission.view import Objects

INIT = "SPIDERPOOL_INIT_"
ALL = {
    f"{INIT}DEFAULT_COORDINATOR_NAME": "default",
    f"{INIT}DEFAULT_COORDINATOR_MODE": "auto",
    f"{INIT}DEFAULT_COORDINATOR_POD_CIDR_TYPE": "cluster",
    f"{INIT}DEFAULT_COORDINATOR_HIJACK_CIDR": '["169.254.0.0/16"]',
    f"{INIT}DEFAULT_COORDINATOR_TUNE_POD_ROUTES": "true",
    f"{INIT}DEFAULT_COORDINATOR_VETH_MTU": "1400",
    f"{INIT}DEFAULT_IPV4_IPPOOL_NAME": "default-v4-ippool",
    f"{INIT}DEFAULT_IPV4_IPPOOL_SUBNET": "172.18.0.0/16",
    f"{INIT}DEFAULT_IPV4_IPPOOL_IPRANGES": '["172.18.40.40-172.18.40.200"]',
    f"{INIT}DEFAULT_IPV4_IPPOOL_GATEWAY": "172.18.0.1",
    f"{INIT}DEFAULT_IPV6_IPPOOL_NAME": "default-v6-ippool",
    f"{INIT}DEFAULT_IPV6_IPPOOL_SUBNET": "fd00:172:18::/64",
    f"{INIT}ENABLE_MULTUS_CONFIG": "true",
    f"{INIT}DEFAULT_CNI_NAMESPACE": "kube-system",
}


def test_each_is_made_and_admitted() -> None:
    made = default_objects(ALL, "k8s-pod-network")
    assert [(one["kind"], one["metadata"]["name"]) for one in made] == [
        ("SpiderCoordinator", "default"),
        ("SpiderIPPool", "default-v4-ippool"),
        ("SpiderIPPool", "default-v6-ippool"),
        ("SpiderMultusConfig", "calico"),
    ]
    store = Objects()
    for one in made:
        admitted, verdict = admit(one, None, store)
        assert not verdict.errors, verdict.errors
        store.put(admitted)
    coordinator, pool = made[0]["spec"], made[1]["spec"]
    assert (coordinator["vethMTU"], coordinator["tunePodRoutes"]) == (1400, True)
    assert coordinator["hijackCIDR"] == ["169.254.0.0/16"]
    assert pool["default"] is True
    assert pool["gateway"] == "172.18.0.1"
    assert made[3]["metadata"]["annotations"] == {"multus.spidernet.io/cr-name": "k8s-pod-network"}


def test_nothing_is_named_nothing_is_made() -> None:
    assert default_objects({}, "cilium") == []


def test_a_subnet_where_one_is_named() -> None:
    made = default_objects({**ALL, f"{INIT}DEFAULT_IPV4_SUBNET_NAME": "default-v4-subnet"}, "")
    assert [one["kind"] for one in made][:2] == ["SpiderCoordinator", "SpiderSubnet"]
    assert "default" not in made[1]["spec"]


def test_without_a_cni_the_network_is_called_default() -> None:
    assert default_objects(ALL, "")[-1]["metadata"]["name"] == "default"
    assert default_objects({**ALL, f"{INIT}DEFAULT_CNI_NAME": "mine"}, "x")[-1]["metadata"]["name"] == "mine"


@pytest.mark.parametrize(
    "wrong",
    [
        {f"{INIT}DEFAULT_IPV6_IPPOOL_NAME": "default-v4-ippool"},
        {f"{INIT}DEFAULT_IPV4_IPPOOL_IPRANGES": "172.18.40.40"},
    ],
)
def test_a_mistake_names_its_variable(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        default_objects({**ALL, **wrong}, "")
