"""The objects that a fresh installation begins with, as the init job of Spiderpool's chart makes them: the default coordinator,
subnets and pools, and a network for the CNI that the cluster has already.

Owns which variables of the environment ask for what, and the objects. Must not know whether they exist: whoever creates them
leaves what is there alone. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from shared.manifests.meta import Json
from shared.manifests.problem import FieldError, Invalid, invalid

API_VERSION = "spiderpool.spidernet.io/v2beta1"
PREFIX = "SPIDERPOOL_INIT_"
CALICO = "k8s-pod-network"
"""The name of Calico's own configuration, which says nothing to a person; its object is called calico."""


def initial_objects(
    variables: Mapping[str, str], *, namespace: str, subnets_enabled: bool, present_cni: str = ""
) -> tuple[Json, ...] | Invalid:
    """In the order in which they are to be created. `variables` are the environment (`SPIDERPOOL_INIT_…`), `namespace` is the
    installation's, `present_cni` the name inside the first CNI configuration of the node, empty where there is none.

    An empty or absent name leaves an object out."""
    work = _Initial(variables)
    objects: list[Json] = []
    coordinator = work.text("DEFAULT_COORDINATOR_NAME")
    if coordinator:
        objects.append(_object("SpiderCoordinator", coordinator, work.coordinator()))
    for kind, name in (("SpiderSubnet", "SUBNET_NAME"), ("SpiderIPPool", "IPPOOL_NAME")):
        if kind == "SpiderSubnet" and not subnets_enabled:
            continue
        names = [work.text(f"DEFAULT_IPV{family}_{name}") for family in (4, 6)]
        if names[0] and names[0] == names[1]:
            work.wrong(f"DEFAULT_IPV6_{name}", f"is {names[1]!r}, which is the name of the one for IPv4 too")
        for family, own in zip((4, 6), names, strict=True):
            if own:
                spec = work.ranges(family)
                objects.append(
                    _object(kind, own, {**spec, "default": True} if kind == "SpiderIPPool" else spec)
                )
    if work.switch("ENABLE_MULTUS_CONFIG"):
        name = work.text("DEFAULT_CNI_NAME") or present_cni or "default"
        objects.append(_network(name, work.text("DEFAULT_CNI_NAMESPACE") or namespace))
    return Invalid(errors=tuple(work.errors)) if work.errors else tuple(objects)


def _object(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _network(cni: str, namespace: str) -> Json:
    """Always of type custom: it names a network that is there already, and says nothing of how it is made."""
    metadata: Json = {"name": cni, "namespace": namespace}
    if cni == CALICO:
        metadata |= {"name": "calico", "annotations": {"multus.spidernet.io/cr-name": CALICO}}
    return {
        "apiVersion": API_VERSION,
        "kind": "SpiderMultusConfig",
        "metadata": metadata,
        "spec": {"cniType": "custom", "enableCoordinator": False},
    }


class _Initial:
    """Reads variables, and gathers what is wrong with them."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.errors: list[FieldError] = []

    def wrong(self, name: str, message: str) -> None:
        self.errors.append(invalid(f"{PREFIX}{name}", message))

    def text(self, name: str) -> str:
        return self._variables.get(f"{PREFIX}{name}", "").strip()

    def switch(self, name: str) -> bool:
        text = self.text(name).lower()
        if text not in ("", "true", "false", "1", "0"):
            self.wrong(name, f"is {text!r}, which is neither true nor false")
        return text in ("true", "1")

    def items(self, name: str) -> list[Any]:
        text = self.text(name)
        try:
            value: object = msgspec.json.decode(text) if text else []
        except msgspec.MsgspecError:
            value = None
        if not isinstance(value, list):
            self.wrong(name, f"is {text!r}, which is not a JSON array")
            return []
        return cast("list[Any]", value)

    def coordinator(self) -> Json:
        """Only what is asked for: the rest has its default at admission."""
        spec: Json = {}
        for key, name in (
            ("mode", "MODE"),
            ("podCIDRType", "POD_CIDR_TYPE"),
            ("vethLinkAddress", "VETH_LINK_ADDRESS"),
        ):
            if text := self.text(f"DEFAULT_COORDINATOR_{name}"):
                spec[key] = text
        for key, name in (
            ("detectGateway", "DETECT_GATEWAY"),
            ("detectIPConflict", "DETECT_IP_CONFLICT"),
            ("tunePodRoutes", "TUNE_POD_ROUTES"),
        ):
            if self.text(f"DEFAULT_COORDINATOR_{name}"):
                spec[key] = self.switch(f"DEFAULT_COORDINATOR_{name}")
        for key, name in (("hijackCIDR", "HIJACK_CIDR"), ("policyRoutes", "POLICY_ROUTES")):
            if items := self.items(f"DEFAULT_COORDINATOR_{name}"):
                spec[key] = items
        mtu = self.text("DEFAULT_COORDINATOR_VETH_MTU")
        if mtu and not (mtu.isascii() and mtu.isdecimal()):
            self.wrong("DEFAULT_COORDINATOR_VETH_MTU", f"is {mtu!r}, which is not a number")
        elif mtu:
            spec["vethMTU"] = int(mtu)
        return spec

    def ranges(self, family: int) -> Json:
        """What a subnet and the pool of a family have in common."""
        prefix = f"DEFAULT_IPV{family}_IPPOOL"
        subnet = self.text(f"{prefix}_SUBNET")
        if not subnet:
            self.wrong(f"{prefix}_SUBNET", "is empty, and a pool or subnet of this family is asked for")
        spec: Json = {"ipVersion": family, "subnet": subnet}
        if ranges := self.items(f"{prefix}_IPRANGES"):
            spec["ips"] = ranges
        if gateway := self.text(f"{prefix}_GATEWAY"):
            spec["gateway"] = gateway
        return spec
