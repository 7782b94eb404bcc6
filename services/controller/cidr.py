"""The CIDRs of pods and services, as the status of a SpiderCoordinator tells them, by each podCIDRType.

Owns where they are read in each kind of cluster, and what is said when they cannot be. Must not fetch anything. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import msgspec

from shared.manifests.meta import Json
from shared.manifests.network import CoordinatorStatus
from shared.manifests.yamltree import load
from shared.net.ranges import parse_cidr

SYNCED, NOT_READY = "Synced", "NotReady"
_CALICO_NAMES = ("calico", "k8s-pod-network")
NOT_OURS = "00-multus"
_SUBNET_LINE = re.compile(r"^[ \t]*(podSubnet|serviceSubnet):[ \t]*([^\s#]+)", re.MULTILINE)
CNI_SUFFIXES = (".conf", ".conflist")


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What was read. None: there is no such object, or it could not be read (`why_not`)."""

    kubeadm: Mapping[str, str] | None = None
    """`data` of ConfigMap kube-system/kubeadm-config."""
    controller_arguments: tuple[str, ...] | None = None
    """Command and arguments of the first container of a kube-controller-manager pod."""
    controller_problem: str = ""
    """Why pods could not be listed."""
    cni_network: str | None = ""
    """`name` in the first configuration of the CNI directory, empty without one, None where the directory cannot be read."""
    cilium: Mapping[str, str] | None = None
    """`data` of Cilium's ConfigMap."""
    calico_pools: tuple[Json, ...] | None = None
    cilium_pools: tuple[Json, ...] | None = None
    service_cidrs: tuple[Json, ...] | None = None
    """Objects of these kinds; None where the server does not serve them."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`event` is the reason of a warning event, empty without one; `message` its text."""

    status: CoordinatorStatus
    event: str = ""
    message: str = ""


class _NotReady(Exception):
    def __init__(self, reason: str, event: str = "", services: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.event = event
        self.services = services


def needs_controller_arguments(kubeadm: Mapping[str, str] | None) -> bool:
    """Whether ConfigMap kubeadm-config does not tell all."""
    pods, services = _kubeadm((kubeadm or {}).get("ClusterConfiguration", ""))
    return not (pods and services)


def coordinator_status(pod_cidr_type: str, sources: Sources) -> Outcome:
    """Spec of the reference: api-crds, "Status computation"."""
    try:
        kind = _resolved(pod_cidr_type, sources)
        pods, services = _cluster(sources)
        services = _service_cidrs(sources, services)
        overlay = _overlay(kind, pods, services, sources)
    except _NotReady as not_ready:
        reason = str(not_ready)
        status = CoordinatorStatus(phase=NOT_READY, reason=reason, service_cidr=not_ready.services)
        return Outcome(status=status, event=not_ready.event, message=reason)
    return Outcome(status=CoordinatorStatus(phase=SYNCED, overlay_pod_cidr=overlay, service_cidr=services))


def status_json(status: CoordinatorStatus) -> Json:
    """All members, empty ones included."""
    return {
        "phase": status.phase,
        "reason": status.reason,
        "overlayPodCIDR": list(status.overlay_pod_cidr),
        "serviceCIDR": list(status.service_cidr),
    }


def network_name(text: str) -> str:
    """`name` of a CNI configuration; empty for what is none."""
    try:
        value: Any = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    name = cast("Json", value).get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def _resolved(pod_cidr_type: str, sources: Sources) -> str:
    if pod_cidr_type != "auto":
        return pod_cidr_type
    if sources.cni_network is None:
        raise _NotReady(
            "the directory of CNI configurations cannot be read, so podCIDRType auto tells nothing"
        )
    if sources.cni_network in _CALICO_NAMES:
        return "calico"
    if sources.cni_network == "cilium":
        return "cilium"
    return "cluster" if sources.cni_network == "flannel" else "none"


def _cluster(sources: Sources) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Pod and service CIDRs that the cluster was made with."""
    pods, services = _kubeadm((sources.kubeadm or {}).get("ClusterConfiguration", ""))
    if pods and services:
        return pods, services
    arguments = sources.controller_arguments
    if sources.controller_problem:
        raise _NotReady(
            "neither ConfigMap kube-system/kubeadm-config nor a kube-controller-manager pod tells the cluster's"
            f" CIDRs: {sources.controller_problem}",
            "ClusterNotReady",
        )
    if arguments is None:
        raise _NotReady("No kube-controller-manager pod found, unable to get clusterCIDR")
    return (
        _flag(arguments, "--cluster-cidr=") or pods,
        _flag(arguments, "--service-cluster-ip-range=") or services,
    )


def _kubeadm(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`podSubnet` and `serviceSubnet`, below `networking` or wherever a line has them: the reference looks for the words alone."""
    networking: object = None
    for tree in load(text):
        if isinstance(tree.value, dict):
            networking = cast("Json", tree.value).get("networking")
            break
    members = cast("Json", networking) if isinstance(networking, dict) else {}
    words = {key: value.strip("\"'") for key, value in _SUBNET_LINE.findall(text)}
    pods, services = (str(members.get(key) or words.get(key, "")) for key in ("podSubnet", "serviceSubnet"))
    return _cidrs(pods), _cidrs(services)


def _flag(arguments: Iterable[str], flag: str) -> tuple[str, ...]:
    for argument in arguments:
        if argument.startswith(flag):
            return _cidrs(argument.removeprefix(flag))
    return ()


def _cidrs(text: str) -> tuple[str, ...]:
    """A comma separated list; what is no CIDR is dropped."""
    return _sound(part.strip() for part in text.split(","))


def _sound(texts: Iterable[str]) -> tuple[str, ...]:
    out: list[str] = []
    for text in texts:
        try:
            parse_cidr(text)
        except ValueError:
            continue
        out.append(text)
    return tuple(out)


def _service_cidrs(sources: Sources, of_cluster: tuple[str, ...]) -> tuple[str, ...]:
    if sources.service_cidrs is None:
        return of_cluster
    return _listed(sources.service_cidrs, _own_cidrs)


def _overlay(
    kind: str, pods: tuple[str, ...], services: tuple[str, ...], sources: Sources
) -> tuple[str, ...]:
    match kind:
        case "cluster":
            return pods
        case "calico":
            return _listed(_served(sources.calico_pools, "Calico's IPPools", services), _calico_cidrs)
        case "cilium":
            return _cilium(pods, services, sources)
        case _:
            return ()


def _cilium(pods: tuple[str, ...], services: tuple[str, ...], sources: Sources) -> tuple[str, ...]:
    config = sources.cilium
    if config is None:
        raise _NotReady("Cilium needs to be installed first", "CiliumNotReady", services)
    mode = config.get("ipam", "")
    if mode in ("cluster-pool", "cluster-pool-v2beta"):
        text = ",".join(config.get(f"cluster-pool-{family}-cidr", "") for family in ("ipv4", "ipv6"))
        return _cidrs(text.replace(" ", ","))
    if mode == "kubernetes":
        return pods
    if mode == "multi-pool":
        return _listed(_served(sources.cilium_pools, "CiliumPodIPPools", services), _cilium_cidrs)
    raise _NotReady(f"unsupported CIlium IPAM mode: {mode}", services=services)


def _served(objects: tuple[Json, ...] | None, kind: str, services: tuple[str, ...]) -> tuple[Json, ...]:
    if objects is None:
        raise _NotReady(f"the API server has no {kind}: is that CNI installed?", services=services)
    return objects


def _own_cidrs(spec: Json) -> list[Any]:
    return cast("list[Any]", spec.get("cidrs") or [])


def _calico_cidrs(spec: Json) -> list[Any]:
    return [] if spec.get("disabled") else [spec.get("cidr")]


def _cilium_cidrs(spec: Json) -> list[Any]:
    families = (cast("Json", spec.get(family) or {}) for family in ("ipv4", "ipv6"))
    return [cidr for family in families for cidr in _own_cidrs(family)]


def _listed(objects: Iterable[Json], cidrs: Callable[[Json], list[Any]]) -> tuple[str, ...]:
    """The CIDRs of objects that are not being deleted, those of the oldest first."""

    def age(one: Json) -> tuple[str, str]:
        meta = cast("Json", one.get("metadata") or {})
        return str(meta.get("creationTimestamp") or ""), str(meta.get("name") or "")

    found: list[str] = []
    for one in sorted(objects, key=age):
        if not cast("Json", one.get("metadata") or {}).get("deletionTimestamp"):
            found += [str(cidr) for cidr in cidrs(cast("Json", one.get("spec") or {}))]
    return _sound(found)
