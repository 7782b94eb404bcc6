"""The status of pools and subnets, and the SpiderEndpoint of a pod, as Spiderpool writes them: so that its tools, its users and, on
the way back, itself can read them.

Owns the format. Must not know when it is written, nor how. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from services.controller.mirror import Holder, MirroredLease
from shared.manifests.annotations import ROUTES, routes
from shared.manifests.ipam import (
    Allocation,
    AllocationDetail,
    EndpointStatus,
    IPPoolSpec,
    IPPoolStatus,
    RangeSpec,
    Route,
    SubnetStatus,
)
from shared.manifests.kinds import API_VERSION
from shared.manifests.meta import Json, OwnerReference
from shared.manifests.problem import Invalid
from shared.manifests.workload import Pod
from shared.net.ranges import IntervalSet, parse_address, parse_cidr

FINALIZER = "spiderpool.spidernet.io"
COUNT_MAX = 2**63 - 1
_CRON_JOB = re.compile(r"(.+)-\d{8}")
"""How the CronJob controller names its Jobs: by the minute for which they were scheduled."""
_POD_HASH = "pod-template-hash"


def total_of(spec: RangeSpec) -> IntervalSet | None:
    """ips − excludeIPs; None where the spec cannot be read."""
    try:
        family = parse_cidr(spec.subnet).family
        return IntervalSet.parse(spec.ips, family).subtract(IntervalSet.parse(spec.exclude_ips, family))
    except ValueError:
        return None


def pool_status(spec: IPPoolSpec, held: Mapping[str, Holder], records_max: int) -> Json:
    """`held`: addresses of the pool that are given. At most `records_max` are listed, the lowest; the counts are exact."""
    total = total_of(spec)
    listed = sorted(held, key=parse_address)[:records_max]
    records = {address: {"pod": _pod_name(held[address]), "podUid": held[address].uid} for address in listed}
    status = IPPoolStatus(
        allocated_ips=msgspec.json.encode(records).decode() if records else "",
        allocated_ip_count=len(held),
        total_ip_count=_count(total),
        allocated_ips_omitted=len(held) - len(listed) or None,
    )
    return _json(status)


def subnet_status(spec: RangeSpec, pools: Mapping[str, IPPoolSpec]) -> Json:
    """`pools` are those of the same CIDR. A pool that has nothing of the subnet is not listed."""
    total = total_of(spec)
    controlled: dict[str, dict[str, list[str]]] = {}
    allocated = 0
    for name in sorted(pools):
        of_pool = total_of(pools[name])
        shared = total.intersect(of_pool) if total is not None and of_pool is not None else None
        if shared:
            controlled[name] = {"ips": shared.texts(parse_cidr(spec.subnet).family)}
            allocated += shared.size()
    status = SubnetStatus(
        controlled_ip_pools=msgspec.json.encode(controlled).decode() if controlled else "",
        allocated_ip_count=min(allocated, COUNT_MAX),
        total_ip_count=_count(total),
    )
    return _json(status)


def endpoint(
    namespace: str, name: str, holder: Holder, pod: Pod | None, pools: Mapping[str, IPPoolSpec]
) -> Json:
    """The SpiderEndpoint of a pod that has addresses; `pod` is None where its object is not known."""
    kind, controller = top_controller(pod, name)
    status = EndpointStatus(
        current=Allocation(uid=holder.uid, node=holder.node, ips=_details(holder.leases, pod, pools)),
        owner_controller_type=kind,
        owner_controller_name=controller,
    )
    meta: Json = {"name": name, "namespace": namespace, "finalizers": [FINALIZER]}
    if holder.uid and kind != "StatefulSet":
        owner = OwnerReference(api_version="v1", kind="Pod", name=name, uid=holder.uid)
        meta["ownerReferences"] = [_json(owner)]
    return {
        "apiVersion": API_VERSION,
        "kind": "SpiderEndpoint",
        "metadata": meta,
        "status": {
            **_json(status),
            "current": {
                "uid": holder.uid,
                "node": holder.node,
                "ips": [{"vlan": 0, **_json(detail)} for detail in status.current.ips],
            },
        },
    }


def top_controller(pod: Pod | None, name: str) -> tuple[str, str]:
    """Kind and name of what a user made: the Deployment of a ReplicaSet, the CronJob of a Job, as their names tell."""
    owner = pod.metadata.controller if pod is not None else None
    if pod is None or owner is None:
        return "Pod", name
    if owner.kind == "ReplicaSet":
        suffix = f"-{pod.metadata.labels.get(_POD_HASH, '')}"
        if len(suffix) > 1 and owner.name.endswith(suffix):
            return "Deployment", owner.name.removesuffix(suffix)
    if owner.kind == "Job" and (found := _CRON_JOB.fullmatch(owner.name)) is not None:
        return "CronJob", found[1]
    return owner.kind, owner.name


def _details(
    leases: Iterable[MirroredLease], pod: Pod | None, pools: Mapping[str, IPPoolSpec]
) -> tuple[AllocationDetail, ...]:
    by_interface: dict[str, list[MirroredLease]] = {}
    for lease in leases:
        by_interface.setdefault(lease.interface, []).append(lease)
    return tuple(
        _detail(interface, by_interface[interface], _routes_of(pod), pools)
        for interface in sorted(by_interface, key=_place)
    )


def _place(interface: str) -> tuple[bool, int, str]:
    """eth0 first, then net1 … net10 in this order."""
    digits = interface[len(interface.rstrip("0123456789")) :]
    return interface != "eth0", int(digits or 0), interface


def _detail(
    interface: str, leases: list[MirroredLease], wished: tuple[Route, ...], pools: Mapping[str, IPPoolSpec]
) -> AllocationDetail:
    detail = AllocationDetail(interface=interface)
    found: list[Route] = []
    for lease in leases:
        family = parse_address(lease.address)[0]
        spec = pools.get(lease.pool, IPPoolSpec())
        text = f"{lease.address}/{lease.prefix_len}"
        members: Json = {
            "ipv4" if family == 4 else "ipv6": text,
            f"ipv{family}_pool": lease.pool,
            f"ipv{family}_gateway": spec.gateway or None,
        }
        if spec.gateway:
            members["clean_gateway"] = lease.clean_gateway
        detail = msgspec.structs.replace(detail, **members)
        found += spec.routes or ()
        found += [route for route in wished if _reaches(route, spec)]
    return msgspec.structs.replace(detail, routes=tuple(dict.fromkeys(found)))


def _routes_of(pod: Pod | None) -> tuple[Route, ...]:
    text = pod.metadata.annotations.get(ROUTES, "") if pod is not None else ""
    read = routes(text) if text else ()
    return () if isinstance(read, Invalid) else read


def _reaches(route: Route, spec: IPPoolSpec) -> bool:
    """A route of the pod is of the interface whose subnet has its gateway."""
    try:
        subnet = parse_cidr(spec.subnet)
        family, gateway = parse_address(route.gw)
    except ValueError:
        return False
    return family == subnet.family and gateway in subnet


def _pod_name(holder: Holder) -> str:
    return f"{holder.namespace}/{holder.name}" if holder.namespace else ""


def _count(total: IntervalSet | None) -> int:
    return min(total.size(), COUNT_MAX) if total is not None else 0


def _json(part: msgspec.Struct) -> Json:
    """As it is written: members that are not given are absent."""
    return {key: value for key, value in msgspec.to_builtins(part).items() if value is not None}
