"""The objects that an installation begins with: default coordinator, subnets, pools, and the network of the present CNI.

Owns the names of the environment variables (those of Spiderpool's init job, so that its chart's values serve) and the objects that
follow. Must not know whether they are there already, nor read an environment. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.manifests.annotations import CR_NAME
from shared.manifests.kinds import API_VERSION
from shared.manifests.meta import Json

PREFIX = "SPIDERPOOL_INIT_"
_PRESENT_NAMES = {"k8s-pod-network": "calico"}
"""Objects that bear another name than the network of the CNI they stand for."""
_COORDINATOR: Mapping[str, tuple[str, str]] = {
    "MODE": ("mode", "text"),
    "POD_CIDR_TYPE": ("podCIDRType", "text"),
    "TUNE_POD_ROUTES": ("tunePodRoutes", "json"),
    "HIJACK_CIDR": ("hijackCIDR", "json"),
    "POLICY_ROUTES": ("policyRoutes", "json"),
    "VETH_LINK_ADDRESS": ("vethLinkAddress", "text"),
    "VETH_MTU": ("vethMTU", "json"),
}


def default_objects(environment: Mapping[str, str], present_network: str) -> list[Json]:
    """In the order of creation. `present_network` is the name in the CNI configuration of the host. An empty name leaves an object
    out. Raises ValueError that names the variable."""
    return [
        *_coordinator(environment),
        *_addresses(environment),
        *_network(environment, present_network),
    ]


def _coordinator(environment: Mapping[str, str]) -> list[Json]:
    name = _text(environment, "DEFAULT_COORDINATOR_NAME")
    if not name:
        return []
    spec: Json = {"podCIDRType": "auto", "podRPFilter": 0}
    for variable, (member, form) in _COORDINATOR.items():
        text = _text(environment, f"DEFAULT_COORDINATOR_{variable}")
        if text:
            spec[member] = text if form == "text" else _json(f"DEFAULT_COORDINATOR_{variable}", text)
    return [_object("SpiderCoordinator", name, spec)]


def _addresses(environment: Mapping[str, str]) -> list[Json]:
    names = [_text(environment, f"DEFAULT_IPV{family}_IPPOOL_NAME") for family in (4, 6)]
    if names[0] and names[0] == names[1]:
        raise ValueError(
            f"{PREFIX}DEFAULT_IPV4_IPPOOL_NAME and {PREFIX}DEFAULT_IPV6_IPPOOL_NAME are both {names[0]}"
        )
    subnets: list[Json] = []
    pools: list[Json] = []
    for family, name in zip((4, 6), names, strict=True):
        prefix = f"DEFAULT_IPV{family}_"
        cidr = _text(environment, f"{prefix}IPPOOL_SUBNET")
        subnet_name = _text(environment, f"{prefix}SUBNET_NAME")
        if not cidr or not (name or subnet_name):
            continue
        ranges = _text(environment, f"{prefix}IPPOOL_IPRANGES")
        spec: Json = {
            "ipVersion": family,
            "subnet": cidr,
            "ips": _json(f"{prefix}IPPOOL_IPRANGES", ranges) if ranges else [],
        }
        if gateway := _text(environment, f"{prefix}IPPOOL_GATEWAY"):
            spec["gateway"] = gateway
        if subnet_name:
            subnets.append(_object("SpiderSubnet", subnet_name, spec))
        if name:
            pools.append(_object("SpiderIPPool", name, {**spec, "default": True}))
    return [*subnets, *pools]


def _network(environment: Mapping[str, str], present_network: str) -> list[Json]:
    namespace = _text(environment, "DEFAULT_CNI_NAMESPACE")
    if _text(environment, "ENABLE_MULTUS_CONFIG") != "true" or not namespace:
        return []
    found = _text(environment, "DEFAULT_CNI_NAME") or present_network or "default"
    name = _PRESENT_NAMES.get(found, found)
    # custom for every type: the plugin's own configuration is on the host already
    made = _object("SpiderMultusConfig", name, {"cniType": "custom", "enableCoordinator": False})
    made["metadata"]["namespace"] = namespace
    if name != found:
        made["metadata"]["annotations"] = {CR_NAME: found}
    return [made]


def _text(environment: Mapping[str, str], name: str) -> str:
    return environment.get(f"{PREFIX}{name}", "").strip()


def _json(name: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        raise ValueError(f"{PREFIX}{name} is not JSON: {text[:80]}") from None


def _object(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
