"""The objects of a cluster that Spiderpool serves, in its own form: its API, chart and Go types say it, not ours.

Must not know a cluster, nor who stores them.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterable, Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import yaml

from tests.support.kube_workload import GROUP

NAMESPACE = "kube-system"
CONFIGURATION = "spiderpool-conf"
WEBHOOKS = "spiderpool-controller"
FINALIZER = "spiderpool.spidernet.io"
_CRDS = Path(__file__).parents[2] / "deploy" / "crds"
CONF = """\
ipamUnixSocketPath: /var/run/spidernet/spiderpool.sock
enableIPv4: true
enableIPv6: true
enableStatefulSet: true
enableKubevirtStaticIP: true
enableCleanOutdatedEndpoint: false
enableSpiderSubnet: true
enableAutoPoolForApplication: true
enableIPConflictDetection: false
enableGatewayDetection: false
enableValidatingResourcesDeletedWebhook: false
clusterSubnetDefaultFlexibleIPNumber: 1
tuneSysctlConfig: true
podResourceInject:
  enabled: false
  namespacesExclude: ["kube-system","spiderpool","metallb-system","istio-system"]
  namespacesInclude: []
iaasNetworkProvider:
  serverUrl: ""
  httpRequestTimeout: "50s"
agent:
  networkResourcePlugin:
    enabled: false
    kubeletRootDir: /var/lib/kubelet
    devicePluginAffinity:
      nodeSelector: {}
    resourceAdvertisement:
      subENI:
        rules: []
      masterNIC:
        rules: []
"""


Json = dict[str, Any]


def cidr_label(cidr: str) -> str:
    return cidr.replace(".", "-", 3).replace(":", "-", 7).replace("/", "-", 1)


def definitions() -> list[Json]:
    """Its CRDs, and Multus': ours without what we added."""
    found: list[Json] = []
    for path in sorted(_CRDS.glob("**/*.yaml")):
        if path.name == "kustomization.yaml":
            continue
        definition = yaml.safe_load(path.read_text())
        definition["metadata"].setdefault("annotations", {})["controller-gen.kubebuilder.io/version"] = (
            "v0.16.4"
        )
        _strip(definition)
        found.append(definition)
    return found


def _strip(part: Any) -> None:
    if isinstance(part, dict):
        part.pop("x-kubernetes-validations", None)
        part.pop("allocatedIPsOmitted", None)
        for value in part.values():
            _strip(value)
    elif isinstance(part, list):
        for value in part:
            _strip(value)


def as_admitted(pool: Json) -> Json:
    """As its webhook leaves a pool."""
    admitted = copy.deepcopy(pool)
    subnet = admitted["spec"]["subnet"]
    labels = {"ipam.spidernet.io/ippool-cidr": cidr_label(subnet)}
    admitted["metadata"] |= {"finalizers": [FINALIZER], "labels": labels}
    admitted["spec"] = {"disable": False, **admitted["spec"], "ipVersion": 6 if ":" in subnet else 4}
    return admitted


COORDINATOR: Json = {
    "apiVersion": GROUP,
    "kind": "SpiderCoordinator",
    "metadata": {"name": "default", "finalizers": [FINALIZER]},
    "spec": {
        "mode": "auto",
        "podCIDRType": "none",
        "hijackCIDR": ["169.254.0.0/16"],
        "tunePodRoutes": True,
        "hostRuleTable": 500,
        "podRPFilter": 0,
        "txQueueLen": 0,
        "vethMTU": 1500,
    },
}


def network(name: str, block: Json) -> Json:
    return {
        "apiVersion": GROUP,
        "kind": "SpiderMultusConfig",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "cniType": "macvlan",
            "macvlan": {"mtu": 0, "vlanID": 0, "rdmaResourceName": "", **block},
            "enableCoordinator": False,
            "disableIPAM": False,
            "chainCNIJsonData": [],
        },
    }


def rendered(made: Json, block: Json) -> Json:
    """As its controller renders a network into Multus' kind."""
    meta = made["metadata"]
    ipam: Json = {"type": "spiderpool"}
    ipam |= {f"default_{family}_ippool": names for family, names in block["ippools"].items()}
    plugin = {"type": "macvlan", "master": block["master"][0], "mode": "bridge", "mtu": 0, "ipam": ipam}
    config = {"cniVersion": "0.3.1", "name": meta["name"], "plugins": [plugin]}
    owner = {
        "apiVersion": GROUP,
        "kind": "SpiderMultusConfig",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": meta["name"], "namespace": NAMESPACE, "ownerReferences": [owner]},
        "spec": {"config": json.dumps(config, separators=(",", ":"))},
    }


def webhooks(authority: str) -> Iterable[Json]:
    """They refuse everything while its controller does not answer."""
    bundle = base64.b64encode(authority.encode()).decode()
    for kind, verb in (
        ("ValidatingWebhookConfiguration", "validate"),
        ("MutatingWebhookConfiguration", "mutate"),
    ):
        yield {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": WEBHOOKS},
            "webhooks": [
                {
                    "name": f"{plural.removesuffix('s')}.spiderpool.spidernet.io",
                    "admissionReviewVersions": ["v1"],
                    "failurePolicy": "Fail",
                    "sideEffects": "None",
                    "clientConfig": {
                        "caBundle": bundle,
                        "service": {
                            "name": WEBHOOKS,
                            "namespace": NAMESPACE,
                            "port": 5722,
                            "path": f"/{verb}-spiderpool-spidernet-io-v2beta1-{plural.removesuffix('s')}",
                        },
                    },
                    "rules": [
                        {
                            "apiGroups": ["spiderpool.spidernet.io"],
                            "apiVersions": ["v2beta1"],
                            "operations": ["CREATE", "UPDATE"],
                            "resources": [plural],
                        }
                    ],
                }
                for plural in ("spiderippools", "spidercoordinators", "spidermultusconfigs")
            ],
        }


def details(shown: Mapping[str, list[str]], pools: Mapping[str, Json]) -> list[Json]:
    details: list[Json] = []
    for interface, addresses in shown.items():
        detail: Json = {"interface": interface, "vlan": 0}
        for address in addresses:
            version = ip_interface(address).version
            name, spec = next(
                (name, pool["spec"])
                for name, pool in pools.items()
                if any(_has(text, address) for text in pool["spec"]["ips"])
            )
            detail |= {f"ipv{version}": address, f"ipv{version}Pool": name}
            if gateway := spec.get("gateway"):
                detail |= {f"ipv{version}Gateway": gateway, "cleanGateway": False}
        details.append(detail)
    return details


def endpoint(pod: Json, details: list[Json]) -> Json:
    """It outlives a pod of a StatefulSet, which will have it again."""
    meta = pod["metadata"]
    kind, name = _top_controller(pod)
    owner = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    owners = {"ownerReferences": [owner]} if kind != "StatefulSet" else {}
    return {
        "apiVersion": GROUP,
        "kind": "SpiderEndpoint",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "finalizers": [FINALIZER],
            **owners,
        },
        "status": {
            "current": {"uid": meta["uid"], "node": pod["spec"]["nodeName"], "ips": details},
            "ownerControllerType": kind,
            "ownerControllerName": name,
        },
    }


def _top_controller(pod: Json) -> tuple[str, str]:
    owners = pod["metadata"].get("ownerReferences", [])
    if not owners:
        return "Pod", pod["metadata"]["name"]
    kind, name = owners[0]["kind"], owners[0]["name"]
    return ("Deployment", name.rpartition("-")[0]) if kind == "ReplicaSet" else (kind, name)


def _ends(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(ip_interface(first).ip), int(ip_interface(last or first).ip)


def size_of(text: str) -> int:
    first, last = _ends(text)
    return last - first + 1


def _has(text: str, address: str) -> bool:
    one = ip_interface(address)
    first, last = _ends(text)
    return (":" in text) == (one.version == 6) and first <= int(one.ip) <= last
