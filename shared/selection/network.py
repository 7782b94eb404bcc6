"""Which interfaces an attach is about, and which network is behind each. Pure.

Owns how the pod's annotations become interfaces (the first is the caller's, each further network adds one) and what a network
gives an interface that names no pools itself. Must not know what is free, or how a link is made.
"""

from __future__ import annotations

from collections.abc import Set

import msgspec

from shared import limits
from shared.contracts.ipam import Allocate, InterfaceRequest
from shared.manifests.annotations import (
    DEFAULT_ROUTE_NIC,
    IPPOOLS,
    ROUTES,
    default_route_nic,
    ippools,
    path_of,
    routes,
)
from shared.manifests.networks import (
    DEFAULT_NETWORK,
    NETWORKS,
    NetworkRef,
    default_network,
    interface_of,
    networks,
)
from shared.manifests.problem import Invalid
from shared.selection.cluster import Cluster, PodFact
from shared.selection.rule import Refusal


def requests_of(
    facts: Cluster, pod: PodFact | None, command: Allocate
) -> tuple[InterfaceRequest, ...] | Refusal:
    """What the command asks for, all networks of the pod included where it says so, with the pools of each network."""
    asked = with_further(facts, pod, command.interfaces) if command.further_networks else command.interfaces
    if isinstance(asked, Refusal):
        return asked
    out: list[InterfaceRequest] = []
    for request in asked:
        network = facts.networks.get(request.network)
        if network is not None and network.cni_type not in limits.CNI_TYPES_SERVED:
            # the asker would make the link itself: without it, an address would be taken for nothing
            sentence = f"SpiderMultusConfig {request.network}: cniType {network.cni_type} is not served in this version"
            return Refusal("not_in_this_version", sentence)
        found = with_pools(facts, request)
        if isinstance(found, Refusal):
            return found
        out.append(found)
    return tuple(out)


def interfaces_of(pod: PodFact) -> frozenset[str]:
    """All interfaces that the pod's annotations show, eth0 included. One that cannot be read shows none: who needs it refuses it."""
    read = networks(pod.annotations.get(NETWORKS, ""), pod.namespace)
    further = () if isinstance(read, Invalid) else read
    text = pod.annotations.get(IPPOOLS, "")
    items = ippools(text) if text else ()
    named = () if isinstance(items, Invalid) else tuple(item.interface for item in items)
    unnamed = named.count("") - 1
    return frozenset(
        ("eth0", *filter(None, named), *(interface_of(further, i) for i in range(max(len(further), unnamed))))
    )


def with_further(
    facts: Cluster, pod: PodFact | None, asked: tuple[InterfaceRequest, ...]
) -> tuple[InterfaceRequest, ...] | Refusal:
    """The annotations' elements may also ask for addresses or a MAC: a network of ours gives neither by wish, as under Multus."""
    marks = pod.annotations if pod is not None else {}
    namespace = pod.namespace if pod is not None else ""
    first = default_network(marks.get(DEFAULT_NETWORK, ""), facts.installation_namespace)
    if isinstance(first, Invalid):
        return Refusal("annotation_invalid", first.message)
    further = networks(marks.get(NETWORKS, ""), namespace)
    if isinstance(further, Invalid):
        return Refusal("annotation_invalid", further.message)
    requests = list(asked)
    if first is not None:
        requests[0] = InterfaceRequest(ifname=asked[0].ifname, network=_name(first))
    requests += [
        InterfaceRequest(ifname=interface_of(further, position), network=_name(ref))
        for position, ref in enumerate(further)
    ]
    if len(requests) > limits.INTERFACES_PER_POD_MAX:
        message = f"{path_of(NETWORKS)}: {len(requests)} interfaces, at most {limits.INTERFACES_PER_POD_MAX} are served"
        return Refusal("annotation_invalid", message)
    seen: set[str] = set()
    for request in requests:
        if request.ifname in seen:
            message = (
                f"{path_of(NETWORKS)}: network {request.network} would be a second interface {request.ifname}"
            )
            return Refusal("annotation_invalid", message)
        seen.add(request.ifname)
    return tuple(requests)


def _name(ref: NetworkRef) -> str:
    return f"{ref.namespace}/{ref.name}"


def with_pools(facts: Cluster, request: InterfaceRequest) -> InterfaceRequest | Refusal:
    if not request.network:
        return request
    network = facts.networks.get(request.network)
    if network is None:
        return network_unknown(request)
    if network.disable_ipam:
        return Refusal(
            "not_in_this_version", f"SpiderMultusConfig {request.network}: disableIPAM is not served yet"
        )
    if request.ipv4 or request.ipv6:
        return request
    return msgspec.structs.replace(request, ipv4=network.ipv4, ipv6=network.ipv6)


def network_unknown(request: InterfaceRequest) -> Refusal:
    return Refusal(
        "network_unknown", f"SpiderMultusConfig {request.network} of {request.ifname} is not found"
    )


def check_annotations(pod: PodFact | None, ifnames: Set[str]) -> Refusal | None:
    """What is wrong with the pod's annotations beside its pools: routes and the default-route NIC.

    `ifnames` are the interfaces that it has or is about to have."""
    if pod is None:
        return None
    nic = default_route_nic(pod.annotations.get(DEFAULT_ROUTE_NIC, ""))
    for parsed in (
        routes(pod.annotations[ROUTES]) if pod.annotations.get(ROUTES) else (),
        nic,
    ):
        if isinstance(parsed, Invalid):
            return Refusal("annotation_invalid", f"pod {pod.namespace}/{pod.name}: {parsed.message}")
    if nic and nic not in ifnames and nic not in (names := interfaces_of(pod)):
        known = ", ".join(sorted({*ifnames, *names}))
        return Refusal(
            "annotation_invalid",
            f"pod {pod.namespace}/{pod.name}: podDefaultRouteNIC: {nic} don't exist in pod; it has {known}",
        )
    return None
