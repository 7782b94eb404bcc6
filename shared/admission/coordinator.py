"""Admission of SpiderCoordinator, and of the same block inside a SpiderMultusConfig.

Owns its defaults and rules. No finalizer is added: nothing needs to happen before a coordinator goes. Must not know other objects.
"""

from __future__ import annotations

import re
from typing import Any, cast

from shared.admission import draft
from shared.admission.view import View
from shared.manifests.annotations import interface_error
from shared.manifests.meta import Json
from shared.manifests.network import CoordinatorSpec, SpiderCoordinator
from shared.manifests.problem import FieldError, entry, invalid, member
from shared.net.ranges import WIDTH_BITS, format_address, parse_address, parse_cidr

MODES = ("auto", "underlay", "overlay", "disabled")
POD_CIDR_TYPES = ("auto", "cluster", "calico", "cilium", "none")
VETH_MTU_BYTES = 1500
HOST_RULE_TABLE = 500
_MAC_PREFIX = re.compile(r"([0-9a-fA-F]{2})[:-][0-9a-fA-F]{2}")


def mutate(raw: Json, view: View) -> Json:
    """The coordinator with its defaults; bare addresses become networks of one address. Never fails."""
    out = draft.draft_of(raw)
    spec = draft.section(out, "spec")
    if spec is None:
        return out
    draft.default(
        spec,
        mode="auto",
        tunePodRoutes=True,
        hostRuleTable=HOST_RULE_TABLE,
        podRPFilter=0,
        txQueueLen=0,
        podMACPrefix="",
        podDefaultRouteNIC="",
        vethLinkAddress="",
        vethMTU=VETH_MTU_BYTES,
    )
    if not draft.terminating(raw):
        normalise(spec)
    return out


def normalise(spec: Json) -> None:
    """Writes bare addresses of hijackCIDR and policyRoutes as networks."""
    hijacked = draft.texts(spec, "hijackCIDR")
    if hijacked is not None:
        spec["hijackCIDR"] = [as_network(text) for text in hijacked]
    routes = spec.get("policyRoutes")
    for route in cast("list[object]", routes) if isinstance(routes, list) else []:
        if isinstance(route, dict):
            members = cast("dict[str, Any]", route)
            if isinstance(members.get("dst"), str):
                members["dst"] = as_network(members["dst"])


def as_network(text: str) -> str:
    """`10.0.0.1` → `10.0.0.1/32`; anything else stays as it is."""
    try:
        family, value = parse_address(text)
    except ValueError:
        return text
    return f"{format_address(value, family)}/{WIDTH_BITS[family]}"


def errors(coordinator: SpiderCoordinator, view: View) -> list[FieldError]:
    """CREATE and UPDATE alike."""
    out: list[FieldError] = []
    if coordinator.spec.pod_cidr_type is None:
        out.append(
            invalid("spec.podCIDRType", f"must be given, one of {', '.join(POD_CIDR_TYPES)}", "Required")
        )
    if coordinator.spec.pod_rp_filter is None:
        out.append(invalid("spec.podRPFilter", "must be given: negative, 0, 1 or 2", "Required"))
    return out + spec_errors(coordinator.spec, "spec")


def spec_errors(spec: CoordinatorSpec, path: str) -> list[FieldError]:
    """The rules that hold in both kinds."""
    out = _choice(spec.mode, MODES, member(path, "mode"))
    out += _choice(spec.pod_cidr_type, POD_CIDR_TYPES, member(path, "podCIDRType"))
    out += _mac_prefix_errors(spec.pod_mac_prefix or "", member(path, "podMACPrefix"))
    out += _network_errors(spec, path)
    if spec.pod_rp_filter is not None and spec.pod_rp_filter > 2:
        sentence = f'Unsupported value: {spec.pod_rp_filter}: supported values: "-1", "0", "1", "2"'
        out.append(invalid(member(path, "podRPFilter"), sentence, "NotSupported"))
    if spec.tx_queue_len is not None and spec.tx_queue_len < 0:
        out.append(invalid(member(path, "txQueueLen"), "must be greater than or equal to 0"))
    if spec.veth_mtu_bytes is not None and spec.veth_mtu_bytes < 1:
        out.append(invalid(member(path, "vethMTU"), "vethMTU must be greater than 0"))
    if spec.veth_link_address:
        try:
            parse_address(spec.veth_link_address)
        except ValueError as error:
            out.append(invalid(member(path, "vethLinkAddress"), str(error)))
    sentence = interface_error(spec.pod_default_route_nic) if spec.pod_default_route_nic else None
    if sentence:
        out.append(invalid(member(path, "podDefaultRouteNIC"), sentence))
    return out


def _choice(value: str | None, choices: tuple[str, ...], path: str) -> list[FieldError]:
    if value is None or value in choices:
        return []
    supported = ", ".join(f'"{one}"' for one in choices)
    return [invalid(path, f'Unsupported value: "{value}": supported values: {supported}', "NotSupported")]


def _mac_prefix_errors(prefix: str, path: str) -> list[FieldError]:
    if not prefix:
        return []
    found = _MAC_PREFIX.fullmatch(prefix)
    if found is None:
        return [
            invalid(path, f"{prefix[:40]!r} is not a valid MAC prefix; it is two hex bytes such as 0a:1b")
        ]
    if int(found[1], 16) & 1:
        return [invalid(path, f"{prefix} is not a unicast MAC: the lowest bit of the first byte must be 0")]
    return []


def _network_errors(spec: CoordinatorSpec, path: str) -> list[FieldError]:
    out: list[FieldError] = []
    for i, text in enumerate(spec.hijack_cidr or ()):
        try:
            parse_cidr(as_network(text))
        except ValueError:
            out.append(
                invalid(entry(member(path, "hijackCIDR"), i), f"{text[:80]!r} is neither an IP nor a CIDR")
            )
    for i, route in enumerate(spec.policy_routes or ()):
        here = entry(member(path, "policyRoutes"), i)
        family = 0
        try:
            family = parse_cidr(as_network(route.dst)).family
        except ValueError:
            out.append(invalid(member(here, "dst"), f"{route.dst[:80]!r} is neither an IP nor a CIDR"))
        try:
            gateway_family, _ = parse_address(route.gw)
        except ValueError as error:
            out.append(invalid(member(here, "gw"), str(error)))
            continue
        if family and gateway_family != family:
            sentence = f"{route.dst} and {route.gw} are of different families"
            out.append(invalid(member(here, "gw"), sentence))
    return out
