"""Objects that tests give to a cluster: pods that do nothing, in every form of owner.

Owns their manifests. Must not know who applies them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.support.kube_image import BUSYBOX

GROUP = "spiderpool.spidernet.io/v2beta1"
NETWORKS = "k8s.v1.cni.cncf.io/networks"
IPPOOL = "ipam.spidernet.io/ippool"


def pod_spec(**changes: Any) -> dict[str, Any]:
    """One container that waits to be told to end, and then ends at once."""
    container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never"}
    return {"terminationGracePeriodSeconds": 5, "containers": [container], **changes}


def pod(name: str, annotations: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": texts(annotations)},
        "spec": pod_spec(**spec),
    }


def deployment(
    name: str, replicas: int, annotations: Mapping[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    return _owner("Deployment", name, replicas, annotations, spec)


def stateful_set(
    name: str, replicas: int, annotations: Mapping[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    whole = _owner("StatefulSet", name, replicas, annotations, spec)
    whole["spec"] |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    return whole


def daemon_set(name: str, annotations: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    whole = _owner("DaemonSet", name, 0, annotations, spec)
    del whole["spec"]["replicas"]
    return whole


def pool(
    name: str, subnet: str, *ips: str, gateway: str = "", default: bool = True, **spec: Any
) -> dict[str, Any]:
    """A SpiderIPPool."""
    whole = {"subnet": subnet, "ips": list(ips), "default": default, **spec}
    if gateway:
        whole["gateway"] = gateway
    return {"apiVersion": GROUP, "kind": "SpiderIPPool", "metadata": {"name": name}, "spec": whole}


def macvlan_network(name: str, parent: str = "eth1", **pools: list[str]) -> dict[str, Any]:
    """A SpiderMultusConfig; `pools` by family: `ipv4=["a"]`."""
    return {
        "apiVersion": GROUP,
        "kind": "SpiderMultusConfig",
        "metadata": {"name": name},
        "spec": {
            "cniType": "macvlan",
            "macvlan": {"master": [parent], "ippools": pools},
            "enableCoordinator": False,
        },
    }


def texts(annotations: Mapping[str, Any] | None) -> dict[str, str]:
    """Annotations are text: what is not becomes JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in (annotations or {}).items()
    }


def _owner(
    kind: str, name: str, replicas: int, annotations: Mapping[str, Any] | None, spec: Mapping[str, Any]
) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels, "annotations": texts(annotations)}, "spec": pod_spec(**spec)}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }
