"""The objects that users, controllers and clusters make, for the cases of one run without a cluster.

Owns their making. Must not know how they come into force, nor what a case expects.
"""

from __future__ import annotations

import copy
import json
import secrets
from typing import Any

Json = dict[str, Any]
GROUP = "spiderpool.spidernet.io/v2beta1"
NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"
ZONE = "topology.example.com/zone"
NODES = ("node-1", "node-2")
SHOP = "shop"
"""The namespace of most cases."""
_HASH = "5d78c9869d"
_MINUTE = "28350000"


def _uid(name: str) -> str:
    return f"{name[:40]}-{secrets.token_hex(6)}"


def native(**changes: Any) -> Json:
    """The configuration of the node's only plugin, without pools of its own; it attaches all networks of a pod."""
    return {
        "cniVersion": "1.0.0",
        "name": "underlay",
        "type": "orbweaver",
        "cniType": "macvlan",
        "master": ["eth1"],
        "multiNetwork": "native",
    } | changes


def settings(values: Json) -> Json:
    """The ConfigMap of our settings."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "spiderpool-conf", "namespace": "kube-system"},
        "data": {"conf.yml": json.dumps(values)},
    }


def node(name: str, zone: str, *, ready: bool = True) -> Json:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    labels = {"kubernetes.io/hostname": name, ZONE: zone}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"conditions": conditions},
    }


def pool(name: str, subnet: str, ips: list[str], **spec: Any) -> Json:
    return {
        "apiVersion": GROUP,
        "kind": "SpiderIPPool",
        "metadata": {"name": name},
        "spec": {"subnet": subnet, "ips": ips} | spec,
    }


def network(name: str, namespace: str = "kube-system", **pools: list[str]) -> Json:
    """A macvlan network; `ipv4` and `ipv6` are its default pools."""
    return {
        "apiVersion": GROUP,
        "kind": "SpiderMultusConfig",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "cniType": "macvlan",
            "macvlan": {"master": ["eth1"], "ippools": pools},
            "enableCoordinator": False,
        },
    }


def namespace(name: str, labels: dict[str, str] | None = None, **annotations: list[str]) -> Json:
    """`default_ipv4_ippool` and `default_ipv6_ippool` become the annotations of these names."""
    texts = {
        f"ipam.spidernet.io/{key.replace('_', '-')}": json.dumps(value) for key, value in annotations.items()
    }
    metadata = {"name": name, "labels": labels or {}, "annotations": texts}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def pod(
    name: str,
    namespace: str,
    *,
    node: str = NODES[0],
    labels: dict[str, str] | None = None,
    owner: Json | None = None,
    networks: str = "",
    containers: int = 1,
    **ipam: Any,
) -> Json:
    """`ipam`: annotations below ipam.spidernet.io, `default_route_nic` for default-route-nic; other than texts are made JSON."""
    annotations = {
        f"ipam.spidernet.io/{key.replace('_', '-')}": value if isinstance(value, str) else json.dumps(value)
        for key, value in ipam.items()
    }
    if networks:
        annotations[NETWORKS] = networks
    metadata: Json = {
        "name": name,
        "namespace": namespace,
        "uid": _uid(name),
        "labels": dict(labels or {}),
        "annotations": annotations,
    }
    if owner is not None:
        metadata["ownerReferences"] = [_reference(owner)]
        if owner["kind"] == "Deployment":
            metadata["labels"]["pod-template-hash"] = _HASH
    spec = {
        "nodeName": node,
        "containers": [{"name": f"c{n}", "image": "example.com/main:1"} for n in range(containers)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _reference(owner: Json) -> Json:
    """To the controller of a pod: between it and a Deployment or CronJob stands one of their making."""
    made = {"Deployment": ("apps/v1", "ReplicaSet", _HASH), "CronJob": ("batch/v1", "Job", _MINUTE)}
    metadata = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True}
    if owner["kind"] not in made:
        return reference | {"name": metadata["name"], "uid": metadata["uid"]}
    version, kind, suffix = made[owner["kind"]]
    of = {"name": f"{metadata['name']}-{suffix}", "uid": f"{metadata['uid']}-{suffix}"}
    return reference | {"apiVersion": version, "kind": kind} | of


def owned(kind: str, name: str, namespace: str, **spec: Any) -> Json:
    """What owns pods, of kind Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob."""
    return {
        "apiVersion": "batch/v1" if kind in ("Job", "CronJob") else "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": _uid(name)},
        "spec": spec,
    }


def stateful_set(name: str, namespace: str, replicas: int, **spec: Any) -> Json:
    return owned("StatefulSet", name, namespace, replicas=replicas, **spec)


def again(manifest: Json, **ipam: Any) -> Json:
    """The pod of the same name that a controller makes after this one: a new UID, and other annotations where given."""
    other = copy.deepcopy(manifest)
    other["metadata"]["uid"] = _uid(other["metadata"]["name"])
    for key, value in ipam.items():
        text = value if isinstance(value, str) else json.dumps(value)
        other["metadata"]["annotations"][f"ipam.spidernet.io/{key.replace('_', '-')}"] = text
    return other
