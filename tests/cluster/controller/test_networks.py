"""NetworkAttachmentDefinitions and the SpiderCoordinator's status on a real API server."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.cluster.controller.conftest import OURS, Starting, pool, wait_for
from tests.support.kube import ApiServer, namespace
from tests.support.kube_client import ApiError

NADS = "/apis/k8s.cni.cncf.io/v1"


def config(name: str, master: str = "ens4", **meta: Any) -> dict[str, Any]:
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderMultusConfig",
        "metadata": {"name": name, **meta},
        "spec": {
            "cniType": "macvlan",
            "enableCoordinator": False,
            "macvlan": {"master": [master], "ippools": {"ipv4": ["rack"]}},
        },
    }


def found(server: ApiServer, path: str) -> dict[str, Any] | None:
    try:
        return server.client.get(path)
    except ApiError as error:
        assert error.status == 404
        return None


def test_a_definition_follows_its_config_and_comes_back_when_it_was_removed_or_changed(
    crds: ApiServer, starting: Starting
) -> None:
    place = namespace(crds)
    configs = f"{OURS}/namespaces/{place}/spidermultusconfigs"
    path = f"{NADS}/namespaces/{place}/network-attachment-definitions/net"
    notes = {"mine": "1", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    made = crds.client.create(configs, config("net", annotations=notes))
    starting()
    definition = wait_for(lambda: found(crds, path))
    text = json.loads(definition["spec"]["config"])
    assert [plugin["type"] for plugin in text["plugins"]] == ["macvlan"]
    assert text["plugins"][0]["master"] == "ens4"
    assert definition["metadata"]["annotations"] == notes
    owner = definition["metadata"]["ownerReferences"][0]
    assert owner["controller"]
    assert owner["uid"] == made["metadata"]["uid"]

    crds.client.delete(path)
    again = wait_for(lambda: found(crds, path))
    assert again["metadata"]["uid"] != definition["metadata"]["uid"]

    crds.client.patch(path, {"spec": {"config": "{}"}, "metadata": {"annotations": {"strange": "1"}}})
    wait_for(lambda: "macvlan" in found(crds, path)["spec"]["config"])
    assert found(crds, path)["metadata"]["annotations"] == notes

    crds.client.patch(f"{configs}/net", {"spec": {"macvlan": {"master": ["ens9"]}}})
    wait_for(lambda: "ens9" in found(crds, path)["spec"]["config"])


def test_one_that_nobody_controls_is_taken_over_and_anothers_is_not(
    crds: ApiServer, starting: Starting
) -> None:
    place = namespace(crds)
    definitions = f"{NADS}/namespaces/{place}/network-attachment-definitions"
    by_hand = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "hand", "labels": {"kept": "1"}},
        "spec": {"config": "{}"},
    }
    crds.client.create(definitions, by_hand)
    configs = f"{OURS}/namespaces/{place}/spidermultusconfigs"
    crds.client.create(configs, config("hand"))
    starting()
    wait_for(lambda: "macvlan" in found(crds, f"{definitions}/hand")["spec"]["config"])
    taken = found(crds, f"{definitions}/hand")
    assert taken["metadata"]["labels"] == {"kept": "1"}
    # Times of creation are whole seconds, and of two of one second the UID tells which is the older.
    time.sleep(1.1)
    crds.client.create(configs, config("second", "ens7", annotations={"multus.spidernet.io/cr-name": "hand"}))
    crds.client.create(configs, config("third"))
    wait_for(lambda: found(crds, f"{definitions}/third"))
    assert "ens4" in found(crds, f"{definitions}/hand")["spec"]["config"]


def test_the_coordinator_tells_the_clusters_cidrs_and_follows_them(
    crds: ApiServer, starting: Starting, tmp_path: Any
) -> None:
    directory = tmp_path / "net.d"
    directory.mkdir()
    (directory / "10-flannel.conflist").write_text('{"name": "flannel"}')
    kubeadm = {
        "metadata": {"name": "kubeadm-config"},
        "data": {
            "ClusterConfiguration": "networking:\n  podSubnet: 10.244.0.0/16\n  serviceSubnet: 10.96.0.0/16\n"
        },
    }
    maps = "/api/v1/namespaces/kube-system/configmaps"
    coordinator = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderCoordinator",
        "metadata": {"name": "default"},
        "spec": {"mode": "auto", "podCIDRType": "auto", "podRPFilter": 0},
    }
    path = f"{OURS}/spidercoordinators/default"

    def status() -> dict[str, Any]:
        return found(crds, path).get("status") or {}

    crds.client.create(f"{OURS}/spidercoordinators", coordinator)
    starting(cni_config_dir=str(directory))
    try:
        wait_for(lambda: status().get("phase") == "NotReady")
        assert "No kube-controller-manager pod found" in status()["reason"]

        crds.client.create(maps, kubeadm)
        wait_for(lambda: status().get("phase") == "Synced")
        assert status()["overlayPodCIDR"] == ["10.244.0.0/16"]
        assert status()["serviceCIDR"] == ["10.96.0.0/16"], "of the ServiceCIDR object"

        crds.client.patch(path, {"spec": {"podCIDRType": "none"}})
        wait_for(lambda: status()["overlayPodCIDR"] == [])
        events = wait_for(
            lambda: [
                one
                for one in crds.client.items("/api/v1/namespaces/default/events")
                if one["reason"] == "PodCIDRTypeChanged"
            ]
        )
        assert events[0]["message"] == "Pod CIDR type changed from auto to none"
        assert events[0]["source"]["component"] == "spiderpool"

        extra = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": "second"},
            "spec": {"cidrs": ["10.98.0.0/16"]},
        }
        crds.client.create("/apis/networking.k8s.io/v1/servicecidrs", extra)
        wait_for(lambda: status()["serviceCIDR"] == ["10.96.0.0/16", "10.98.0.0/16"])

        crds.client.patch(path, {"metadata": {"finalizers": ["spiderpool.spidernet.io"]}})
        crds.client.delete(path)
        wait_for(lambda: found(crds, path) is None)
    finally:
        crds.client.delete(f"{maps}/kubeadm-config")
        crds.client.patch(
            "/apis/networking.k8s.io/v1/servicecidrs/second", {"metadata": {"finalizers": None}}
        )
        crds.client.delete("/apis/networking.k8s.io/v1/servicecidrs/second")


def test_an_installation_begins_with_its_default_objects_and_leaves_those_that_are_there(
    crds: ApiServer, starting: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = pool("default-v4-ippool", ips=("10.6.0.5",))
    crds.client.create(f"{OURS}/spiderippools", there)
    for name, value in {
        "DEFAULT_COORDINATOR_NAME": "default",
        "DEFAULT_IPV4_IPPOOL_NAME": "default-v4-ippool",
        "DEFAULT_IPV4_IPPOOL_SUBNET": "10.7.0.0/16",
        "DEFAULT_IPV6_IPPOOL_NAME": "default-v6-ippool",
        "DEFAULT_IPV6_IPPOOL_SUBNET": "fd00:7::/64",
        "DEFAULT_IPV6_IPPOOL_IPRANGES": '["fd00:7::10-fd00:7::20"]',
    }.items():
        monkeypatch.setenv(f"SPIDERPOOL_INIT_{name}", value)
    starting()
    made = wait_for(lambda: found(crds, f"{OURS}/spiderippools/default-v6-ippool"))
    assert made["spec"]["default"] is True
    assert found(crds, f"{OURS}/spidercoordinators/default")
    assert found(crds, f"{OURS}/spiderippools/default-v4-ippool")["spec"]["ips"] == ["10.6.0.5"]
