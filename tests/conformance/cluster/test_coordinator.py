"""The SpiderCoordinator's status, by each source of the cluster's CIDRs, on an API server whose controller reads a CNI directory of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.settings import ControllerSettings
from tests.conformance.case import case
from tests.conformance.cluster.stage import OURS, Json, until
from tests.support.kube import ApiServer
from tests.support.kube_client import ApiError
from tests.support.kube_system import ROOT
from tests.support.kube_workload import GROUP
from tests.support.nats import NatsServer
from tests.support.service import Service

PATH = f"{OURS}/spidercoordinators/default"
SYSTEM = "/api/v1/namespaces/kube-system"
SERVICES = "/apis/networking.k8s.io/v1/servicecidrs"
CALICO = "/apis/crd.projectcalico.org/v1/ippools"
CILIUM = "/apis/cilium.io/v2alpha1/ciliumpodippools"


class Side:
    """`files` is the CNI directory."""

    def __init__(self, server: ApiServer, files: Path) -> None:
        self.server = server
        self.client = server.client
        self.files = files

    def network(self, name: str, file: str = "10-first.conflist") -> None:
        (self.files / file).write_text(json.dumps({"name": name}))

    def coordinator(self, kind: str) -> None:
        body = {
            "apiVersion": GROUP,
            "kind": "SpiderCoordinator",
            "metadata": {"name": "default"},
            "spec": {"mode": "auto", "podCIDRType": kind, "podRPFilter": 0},
        }
        self.client.create(f"{OURS}/spidercoordinators", body)

    def kubeadm(self, pods: str = "10.50.0.0/16,fd50::/56", services: str = "10.60.0.0/16") -> None:
        text = f"networking:\n  podSubnet: {pods}\n  serviceSubnet: {services}\n"
        self.config_map("kubeadm-config", ClusterConfiguration=text)

    def config_map(self, name: str, **data: str) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        self.client.apply(f"{SYSTEM}/configmaps/{name}", body)

    def status(self) -> Json:
        return self.client.get(PATH).get("status") or {}

    def await_pods(self, *cidrs: str, phase: str = "Synced") -> Json:
        return until(
            lambda: (
                (found := self.status()).get("phase") == phase
                and found["overlayPodCIDR"] == list(cidrs)
                and found
            ),
            f"{phase} with {cidrs}",
        )

    def clear(self) -> None:
        try:
            self.client.patch(PATH, {"metadata": {"finalizers": None}})
            self.client.delete(PATH)
        except ApiError as error:
            assert error.status == 404
        for name in ("kubeadm-config", "cilium-config"):
            self.client.delete(f"{SYSTEM}/configmaps/{name}")
        self.client.delete(f"{SYSTEM}/pods/kcm", grace_s=0)
        for collection in (CALICO, CILIUM):
            for one in self.client.items(collection):
                self.client.delete(f"{collection}/{one['metadata']['name']}")
        for file in self.files.iterdir():
            file.unlink()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    server = ApiServer(tmp_path_factory.mktemp("kube"))
    nats = NatsServer(tmp_path_factory.mktemp("nats"))
    directory = tmp_path_factory.mktemp("controller")
    files = directory / "net.d"
    files.mkdir()
    started: list[Service] = []
    server.start()
    try:
        nats.start()
        server.kubectl("apply", "--server-side", "-k", str(ROOT / "deploy" / "crds"))
        server.kubectl("apply", "--server-side", "-k", str(ROOT / "deploy" / "crds" / "multus"))
        for definition in (
            _definition("crd.projectcalico.org", "v1", "IPPool"),
            _definition("cilium.io", "v2alpha1", "CiliumPodIPPool"),
        ):
            server.kubectl("apply", "-f", "-", stdin=json.dumps(definition))
        server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=120s")
        settings = ControllerSettings(
            replica="c1",
            bus=nats.settings("controller"),
            source="kubernetes",
            kubeconfig=str(server.kubeconfig),
            adopt=False,
            cni_config_dir=str(files),
        )
        service = Service("services.controller", settings, directory)
        started.append(service)
        service.start()
        yield Side(server, files)
    finally:
        for service in started:
            service.kill()
        nats.stop()
        server.stop()


@pytest.fixture
def side(whole: Side) -> Iterator[Side]:
    yield whole
    whole.clear()


@case("V00001")
@pytest.mark.parametrize(
    ("network", "cidrs"),
    [
        ("flannel", ("10.50.0.0/16", "fd50::/56")),
        ("k8s-pod-network", ("10.51.0.0/16",)),
        ("calico", ("10.51.0.0/16",)),
        ("cilium", ("10.52.0.0/16",)),
    ],
)
def test_auto_with_a_known_network(side: Side, network: str, cidrs: tuple[str, ...]) -> None:
    """By the first file of the directory that is a configuration and not Multus'; the directory is looked at again."""
    side.network("flannel", "00-multus.conf")
    side.network("flannel", "05-no.json")
    side.network(network)
    side.network("flannel", "20-later.conf")
    side.kubeadm()
    calico(side, "one", "10.51.0.0/16")
    side.config_map("cilium-config", ipam="cluster-pool", **{"cluster-pool-ipv4-cidr": "10.52.0.0/16"})
    side.coordinator("auto")
    side.await_pods(*cidrs)
    side.network("unheard-of", "01-first.conf")
    side.await_pods()


@case("V00002")
def test_auto_without_a_file(side: Side) -> None:
    (side.files / "00-multus.conf").write_text('{"name": "flannel"}')
    side.kubeadm()
    side.coordinator("auto")
    side.await_pods()


def calico(side: Side, name: str, cidr: str, **spec: object) -> None:
    body = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": {"cidr": cidr, **spec},
    }
    side.client.create(CALICO, body)


@case("V00003")
def test_calico_follows_its_pools(side: Side) -> None:
    side.kubeadm()
    calico(side, "one", "10.70.0.0/16")
    calico(side, "off", "10.71.0.0/16", disabled=True)
    side.coordinator("calico")
    side.await_pods("10.70.0.0/16")
    calico(side, "two", "fd70::/48")
    side.await_pods("10.70.0.0/16", "fd70::/48")
    side.client.patch(f"{CALICO}/off", {"spec": {"disabled": False}})
    until(lambda: len(side.status()["overlayPodCIDR"]) == 3, "the third is enabled")
    side.client.patch(f"{CALICO}/two", {"spec": {"disabled": True}})
    side.client.delete(f"{CALICO}/one")
    side.await_pods("10.71.0.0/16")
    side.client.delete(f"{CALICO}/off")
    side.await_pods()


@case("V00004")
def test_cilium_by_its_mode(side: Side) -> None:
    side.kubeadm()
    pool = {
        "apiVersion": "cilium.io/v2alpha1",
        "kind": "CiliumPodIPPool",
        "metadata": {"name": "one"},
        "spec": {"ipv4": {"cidrs": ["10.82.0.0/16"]}, "ipv6": {"cidrs": ["fd82::/64"]}},
    }
    side.client.create(CILIUM, pool)
    ranges = {"cluster-pool-ipv4-cidr": "10.80.0.0/16", "cluster-pool-ipv6-cidr": "fd80::/104"}
    side.config_map("cilium-config", ipam="cluster-pool", **ranges)
    side.coordinator("cilium")
    side.await_pods("10.80.0.0/16", "fd80::/104")
    side.config_map(
        "cilium-config", ipam="cluster-pool-v2beta", **{"cluster-pool-ipv4-cidr": "10.83.0.0/16 10.84.0.0/16"}
    )
    side.await_pods("10.83.0.0/16", "10.84.0.0/16")
    side.config_map("cilium-config", ipam="kubernetes")
    side.await_pods("10.50.0.0/16", "fd50::/56")
    side.config_map("cilium-config", ipam="multi-pool")
    side.await_pods("10.82.0.0/16", "fd82::/64")


@case("V00005")
def test_none(side: Side) -> None:
    side.network("flannel")
    side.kubeadm()
    side.coordinator("none")
    assert side.await_pods()["reason"] == ""


@case("V00006")
@case("V00011")
def test_without_a_source_it_is_not_ready_and_recovers(side: Side) -> None:
    side.coordinator("cluster")
    found = side.await_pods(phase="NotReady")
    assert found["serviceCIDR"] == []
    assert found["reason"]
    side.kubeadm()
    assert side.await_pods("10.50.0.0/16", "fd50::/56")["reason"] == ""
    side.client.delete(f"{SYSTEM}/configmaps/kubeadm-config")
    assert side.await_pods(phase="NotReady")["serviceCIDR"] == []


@case("V00006")
def test_what_was_synced_is_empty_when_it_is_not_ready(side: Side) -> None:
    """By each cause, one after the other; with each it recovers."""
    side.kubeadm()
    ranges = {"cluster-pool-ipv4-cidr": "10.85.0.0/16"}
    side.config_map("cilium-config", ipam="cluster-pool", **ranges)
    side.coordinator("cilium")
    side.await_pods("10.85.0.0/16")
    side.client.delete(f"{SYSTEM}/configmaps/cilium-config")
    assert "installed" in side.await_pods(phase="NotReady")["reason"]
    side.config_map("cilium-config", ipam="cluster-pool", **ranges)
    side.await_pods("10.85.0.0/16")
    side.config_map("cilium-config", ipam="crd", **ranges)
    assert "crd" in side.await_pods(phase="NotReady")["reason"]
    side.client.patch(PATH, {"spec": {"podCIDRType": "cluster"}})
    side.await_pods("10.50.0.0/16", "fd50::/56")
    side.client.patch(PATH, {"spec": {"podCIDRType": "auto"}})
    side.network("flannel")
    side.await_pods("10.50.0.0/16", "fd50::/56")
    away = side.files.with_name("away")
    side.files.rename(away)
    try:
        found = side.await_pods(phase="NotReady")
        assert found["serviceCIDR"] == []
        assert found["reason"]
    finally:
        away.rename(side.files)
    side.await_pods("10.50.0.0/16", "fd50::/56")
    for kind in ("cluster", "none"):
        side.client.patch(PATH, {"spec": {"podCIDRType": kind}})
        side.client.delete(f"{SYSTEM}/configmaps/kubeadm-config")
        found = side.await_pods(phase="NotReady")
        assert (found["serviceCIDR"], "kube-controller-manager" in found["reason"]) == ([], True)
        side.kubeadm()
        side.await_pods(*(("10.50.0.0/16", "fd50::/56") if kind == "cluster" else ()))


_V6 = "--cluster-cidr=10.91.0.0/16,nonsense,fd91::/56"


@case("V00009")
@pytest.mark.parametrize(
    ("container", "cidrs"),
    [
        ({"command": ["kube-controller-manager", "--cluster-cidr=10.91.0.0/16", "--v=2"]}, ("10.91.0.0/16",)),
        ({"command": ["kube-controller-manager"], "args": ["--v=2", _V6]}, ("10.91.0.0/16", "fd91::/56")),
        ({"args": ["--service-cluster-ip-range=10.93.0.0/16", _V6]}, ("10.91.0.0/16", "fd91::/56")),
        ({"command": [_V6], "args": ["--cluster-cidr=10.99.0.0/16"]}, ("10.91.0.0/16", "fd91::/56")),
    ],
)
def test_the_clusters_cidr(side: Side, container: Json, cidrs: tuple[str, ...]) -> None:
    manager = {
        "metadata": {"name": "kcm", "labels": {"component": "kube-controller-manager"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"} | container]},
    }
    side.client.create(f"{SYSTEM}/pods", manager)
    side.coordinator("cluster")
    side.await_pods(*cidrs)
    side.kubeadm(pods="10.92.0.0/16")
    side.await_pods("10.92.0.0/16")


@case("V00010")
def test_services_follow_their_objects(side: Side) -> None:
    side.kubeadm()
    side.coordinator("none")
    first: list[str] = side.await_pods()["serviceCIDR"]
    assert first == ["10.96.0.0/16"]
    extra = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.99.0.0/24"]},
    }
    side.client.create(SERVICES, extra)
    until(lambda: side.status()["serviceCIDR"] == [*first, "10.99.0.0/24"], "the new one")
    side.client.patch(f"{SERVICES}/more", {"metadata": {"finalizers": None}})
    side.client.delete(f"{SERVICES}/more")
    until(lambda: side.status()["serviceCIDR"] == first, "the old one alone")


def _definition(group: str, version: str, kind: str) -> Json:
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural},
            "scope": "Cluster",
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }
