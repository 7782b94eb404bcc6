"""The status of a SpiderCoordinator by each podCIDRType (spec api-crds, "Status computation")."""

from __future__ import annotations

from typing import Any

import pytest

from services.controller.cidr import Sources, coordinator_status, needs_controller_arguments, network_name

KUBEADM = {
    "ClusterConfiguration": "kind: ClusterConfiguration\nnetworking:\n  podSubnet: 10.244.0.0/16,fd00:10:244::/56\n"
    "  serviceSubnet: 10.96.0.0/12, nonsense\n"
}
PODS, SERVICES = ("10.244.0.0/16", "fd00:10:244::/56"), ("10.96.0.0/12",)


def listed(name: str, created: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": created}, "spec": spec}


def synced(type_: str, **sources: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    outcome = coordinator_status(type_, Sources(**{"kubeadm": KUBEADM, **sources}))
    assert (outcome.status.phase, outcome.status.reason, outcome.event) == ("Synced", "", "")
    return outcome.status.overlay_pod_cidr, outcome.status.service_cidr


def test_cluster_and_none() -> None:
    assert synced("cluster") == (PODS, SERVICES)
    assert synced("none") == ((), SERVICES)


@pytest.mark.parametrize(
    "text",
    [
        "podSubnet: 10.1.0.0/16\nserviceSubnet: 10.2.0.0/16\n",
        "networking:\n  dnsDomain: x\n  podSubnet: '10.1.0.0/16'\n  serviceSubnet: \"10.2.0.0/16\" # ours\n",
        "networking: {podSubnet: 10.1.0.0/16, serviceSubnet: 10.2.0.0/16}",
        "not: [yaml\n\tpodSubnet: 10.1.0.0/16\n\tserviceSubnet:   10.2.0.0/16",
        "etcd: {}\nnetworking:\n    serviceSubnet: 10.2.0.0/16\n    podSubnet: 10.1.0.0/16",
    ],
)
def test_kubeadms_text_is_read_wherever_it_has_them(text: str) -> None:
    found = synced("cluster", kubeadm={"ClusterConfiguration": text})
    assert found == (("10.1.0.0/16",), ("10.2.0.0/16",))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("flannel", PODS),
        ("", ()),
        ("mine", ()),
        ("calico", ("10.9.0.0/16",)),
        ("k8s-pod-network", ("10.9.0.0/16",)),
    ],
)
def test_auto_goes_by_the_name_of_the_network(network: str, expected: tuple[str, ...]) -> None:
    pools = (listed("a", "2020", cidr="10.9.0.0/16"),)
    assert synced("auto", cni_network=network, calico_pools=pools)[0] == expected


def test_auto_without_a_readable_directory_is_not_ready() -> None:
    outcome = coordinator_status("auto", Sources(kubeadm=KUBEADM, cni_network=None))
    assert outcome.status.phase == "NotReady"
    assert outcome.status.overlay_pod_cidr == outcome.status.service_cidr == ()


def test_calico_pools_oldest_first_without_those_disabled_or_going() -> None:
    going = listed("d", "2019", cidr="10.4.0.0/16")
    going["metadata"]["deletionTimestamp"] = "2024"
    pools = (
        listed("a", "2022", cidr="10.1.0.0/16"),
        listed("b", "2020", cidr="10.2.0.0/16"),
        listed("c", "2018", cidr="10.3.0.0/16", disabled=True),
        going,
    )
    assert synced("calico", calico_pools=pools)[0] == ("10.2.0.0/16", "10.1.0.0/16")


def test_cilium_by_its_mode() -> None:
    config = {
        "ipam": "cluster-pool",
        "cluster-pool-ipv4-cidr": "10.1.0.0/16",
        "cluster-pool-ipv6-cidr": "fd00::/64",
    }
    assert synced("cilium", cilium=config)[0] == ("10.1.0.0/16", "fd00::/64")
    assert synced("cilium", cilium={"ipam": "kubernetes"})[0] == PODS
    pools = (
        listed("b", "2022", ipv4={"cidrs": ["10.2.0.0/16"], "maskSize": 24}),
        listed("a", "2021", ipv4={"cidrs": ["10.1.0.0/16"]}, ipv6={"cidrs": ["fd00:1::/64"]}),
    )
    assert synced("cilium", cilium={"ipam": "multi-pool"}, cilium_pools=pools)[0] == (
        "10.1.0.0/16",
        "fd00:1::/64",
        "10.2.0.0/16",
    )
    outcome = coordinator_status("cilium", Sources(kubeadm=KUBEADM, cilium={"ipam": "eni"}))
    assert "unsupported CIlium IPAM mode" in outcome.status.reason
    assert outcome.status.service_cidr == SERVICES, "only the pods' CIDRs are not known"


@pytest.mark.parametrize(("kind", "config"), [("calico", None), ("cilium", {"ipam": "multi-pool"})])
def test_pools_of_a_cni_that_is_not_installed_are_not_ready(kind: str, config: dict[str, str] | None) -> None:
    outcome = coordinator_status(kind, Sources(kubeadm=KUBEADM, cilium=config))
    assert outcome.status.phase == "NotReady"
    assert "is that CNI installed?" in outcome.status.reason
    assert (outcome.status.overlay_pod_cidr, outcome.status.service_cidr) == ((), SERVICES)
    served = Sources(kubeadm=KUBEADM, cilium=config, calico_pools=(), cilium_pools=())
    assert coordinator_status(kind, served).status.phase == "Synced"


def test_cilium_without_its_config_map_is_told_by_an_event() -> None:
    outcome = coordinator_status("cilium", Sources(kubeadm=KUBEADM))
    assert outcome.status.phase == "NotReady"
    assert outcome.event == "CiliumNotReady"
    assert outcome.message == "Cilium needs to be installed first"


def test_service_cidr_objects_win_and_the_oldest_is_first() -> None:
    objects = (
        listed("new", "2024", cidrs=["10.98.0.0/16"]),
        listed("kubernetes", "2020", cidrs=["10.96.0.0/16", "fd00:96::/112"]),
    )
    assert synced("none", service_cidrs=objects)[1] == ("10.96.0.0/16", "fd00:96::/112", "10.98.0.0/16")


def test_the_controller_managers_flags_where_kubeadm_tells_nothing() -> None:
    arguments = (
        "kube-controller-manager",
        "--cluster-cidr=10.5.0.0/16",
        "--service-cluster-ip-range=10.6.0.0/16",
    )
    assert needs_controller_arguments(None)
    assert not needs_controller_arguments(KUBEADM)
    assert synced("cluster", kubeadm=None, controller_arguments=arguments) == (
        ("10.5.0.0/16",),
        ("10.6.0.0/16",),
    )
    nobody = coordinator_status("cluster", Sources())
    assert nobody.status.reason == "No kube-controller-manager pod found, unable to get clusterCIDR"
    broken = coordinator_status("none", Sources(controller_problem="pods is forbidden"))
    assert (broken.status.phase, broken.event) == ("NotReady", "ClusterNotReady")


@pytest.mark.parametrize(
    ("told", "missing"),
    [("podSubnet: 10.1.0.0/16", "services"), ("serviceSubnet: 10.2.0.0/16", "pods")],
)
def test_what_kubeadm_leaves_out_is_told_by_the_controller_manager(told: str, missing: str) -> None:
    kubeadm = {"ClusterConfiguration": f"networking:\n  {told}\n"}
    assert needs_controller_arguments(kubeadm)
    flag = "--service-cluster-ip-range=" if missing == "services" else "--cluster-cidr="
    found = synced(
        "cluster", kubeadm=kubeadm, controller_arguments=("first", f"{flag}10.3.0.0/16,nonsense,fd03::/64")
    )
    of_flag = ("10.3.0.0/16", "fd03::/64")
    assert found == ((("10.1.0.0/16",), of_flag) if missing == "services" else (of_flag, ("10.2.0.0/16",)))


def test_a_cni_configuration_that_is_none_has_no_name() -> None:
    assert network_name('{"name": "cilium"}') == "cilium"
    assert network_name("[]") == network_name("nonsense") == network_name('{"name": 3}') == ""
