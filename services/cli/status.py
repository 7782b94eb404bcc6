"""The status of our kinds, composed from leases: SpiderIPPool's, SpiderSubnet's, and SpiderEndpoint whole. Pure.

Owns the form that Spiderpool's users and scripts read. Must not know where leases and objects come from.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from shared.contracts.query import LeaseView
from shared.manifests.kinds import API_VERSION
from shared.net.ranges import INT64_MAX, IntervalSet, parse_address, parse_cidr

Json = dict[str, Any]
FINALIZER = "spiderpool.spidernet.io"
ROUTES_ANNOTATION = "ipam.spidernet.io/routes"
_UIDS = uuid.UUID("d1b0e7f2-3c55-5a1e-8f0c-9a7e2f64c0b3")
"""The name space of the UIDs of composed SpiderEndpoints; changing it would change every one."""
_OWNERS_MAX = 8
"""Pod → ReplicaSet → Deployment is 3; a cycle of owner references must still end."""


def total_ips(spec: Json) -> IntervalSet:
    """`ips` without `excludeIPs`. Raises ValueError on a range that admission would have refused."""
    family = 6 if ":" in str(spec.get("subnet", "")) else 4
    included = IntervalSet.parse(spec.get("ips") or (), family)
    return included.subtract(IntervalSet.parse(spec.get("excludeIPs") or (), family))


def with_pool_status(pool: Json, leases: Iterable[LeaseView]) -> Json:
    """The SpiderIPPool with its status; `leases` may hold those of other pools. A resting address is allocated to nobody."""
    name = _meta(pool).get("name")
    allocated = {
        lease.address: {
            "pod": f"{lease.pod_namespace}/{lease.pod_name}".strip("/"),
            "podUid": lease.pod_uid or lease.container_id,
        }
        for lease in leases
        if lease.pool == name and lease.state != "resting"
    }
    status: Json = {}
    if allocated:
        status["allocatedIPs"] = msgspec.json.encode(dict(sorted(allocated.items()))).decode()
    status["allocatedIPCount"] = len(allocated)
    status["totalIPCount"] = min(total_ips(_spec(pool)).size(), INT64_MAX)
    return {**pool, "status": status}


def with_subnet_status(subnet: Json, pools: Iterable[Json]) -> Json:
    """The SpiderSubnet with its status: the pools of the same CIDR and what of its addresses they hold."""
    own = total_ips(_spec(subnet))
    controlled: dict[str, Json] = {}
    held = 0
    for pool in pools:
        if _spec(pool).get("subnet") != _spec(subnet).get("subnet"):
            continue
        theirs = total_ips(_spec(pool))
        shared = own.intersect(theirs)
        if shared:
            family = 6 if ":" in str(_spec(subnet).get("subnet", "")) else 4
            controlled[str(_meta(pool).get("name"))] = {"ips": shared.texts(family)}
            held += shared.size()
    status: Json = {}
    if controlled:
        status["controlledIPPools"] = msgspec.json.encode(dict(sorted(controlled.items()))).decode()
    status["allocatedIPCount"] = min(held, INT64_MAX)
    status["totalIPCount"] = min(own.size(), INT64_MAX)
    return {**subnet, "status": status}


def endpoints(
    leases: Iterable[LeaseView],
    pools: Mapping[str, Json],
    pods: Mapping[tuple[str, str], Json],
    owners: Mapping[tuple[str, str, str], Json],
) -> list[Json]:
    """One SpiderEndpoint for each pod that holds leases. `pods` is keyed by (namespace, name), `owners` by (Kind, namespace,
    name). A pod that no manifest names is a Pod that owns itself."""
    held: dict[tuple[str, str, str], list[LeaseView]] = {}
    for lease in leases:
        if lease.pod_name and lease.state != "resting":
            held.setdefault((lease.pod_namespace, lease.pod_name, lease.pod_uid), []).append(lease)
    return [
        _endpoint(namespace, name, uid, of_pod, pools, pods.get((namespace, name)), owners)
        for (namespace, name, uid), of_pod in sorted(held.items())
    ]


def _endpoint(
    namespace: str,
    name: str,
    uid: str,
    leases: Sequence[LeaseView],
    pools: Mapping[str, Json],
    pod: Json | None,
    owners: Mapping[tuple[str, str, str], Json],
) -> Json:
    kind, owner = _top_owner(namespace, name, pod, owners)
    meta: Json = {
        "name": name,
        "namespace": namespace,
        # Nobody stores this object: what is asked for twice must have the same identity, and another when it changes.
        "uid": str(uuid.uuid5(_UIDS, f"{namespace}/{name}#{uid}")),
        "resourceVersion": str(max(lease.generation for lease in leases)),
        "finalizers": [FINALIZER],
    }
    if pod is not None and (created := _meta(pod).get("creationTimestamp")):
        meta["creationTimestamp"] = created
    if kind not in ("StatefulSet", "VirtualMachineInstance"):
        # The record of a static pod survives the pod, so the pod does not own it.
        meta["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid, "blockOwnerDeletion": True}
        ]
    by_interface: dict[str, list[LeaseView]] = {}
    for lease in leases:
        by_interface.setdefault(lease.interface, []).append(lease)
    routes = _pod_routes(pod)
    return {
        "apiVersion": API_VERSION,
        "kind": "SpiderEndpoint",
        "metadata": meta,
        "status": {
            "current": {
                "uid": uid,
                "node": leases[0].node,
                "ips": [_detail(i, by_interface[i], pools, routes) for i in sorted(by_interface, key=_place)],
            },
            "ownerControllerType": kind,
            "ownerControllerName": owner,
        },
    }


def _detail(
    interface: str, leases: Sequence[LeaseView], pools: Mapping[str, Json], pod_routes: Sequence[Json]
) -> Json:
    detail: Json = {"interface": interface}
    routes: list[Json] = []
    clean_gateway = False
    for lease in sorted(leases, key=lambda one: ":" in one.address):
        key = "ipv6" if ":" in lease.address else "ipv4"
        pool = _spec(pools.get(lease.pool, {}))
        prefix_len = lease.prefix_len or _prefix_len(pool)
        detail[key] = f"{lease.address}/{prefix_len}"
        detail[f"{key}Pool"] = lease.pool
        gateway = lease.gateway or pool.get("gateway") or ""
        if gateway:
            detail[f"{key}Gateway"] = gateway
            clean_gateway = clean_gateway or lease.clean_gateway
        routes += pool.get("routes") or []
        routes += [r for r in pod_routes if _fits(str(r.get("gw", "")), str(pool.get("subnet", "")))]
    if any(k.endswith("Gateway") for k in detail):
        detail["cleanGateway"] = clean_gateway
    if routes:
        detail["routes"] = routes
    return detail


def _top_owner(
    namespace: str, name: str, pod: Json | None, owners: Mapping[tuple[str, str, str], Json]
) -> tuple[str, str]:
    kind, current = "Pod", pod
    for _ in range(_OWNERS_MAX):
        references = cast("list[Json]", _meta(current or {}).get("ownerReferences") or [])
        above = next((r for r in references if r.get("controller")), None)
        if above is None:
            break
        kind, name = str(above.get("kind")), str(above.get("name"))
        current = owners.get((kind, namespace, name))
    return kind, name


def _pod_routes(pod: Json | None) -> list[Json]:
    annotations = cast("Json", _meta(pod or {}).get("annotations") or {})
    try:
        return msgspec.json.decode(annotations.get(ROUTES_ANNOTATION) or "[]", type=list[dict[str, Any]])
    except msgspec.MsgspecError:
        return []  # the attach refused it and told why; here it only means: no routes


def _fits(gateway: str, subnet: str) -> bool:
    try:
        family, value = parse_address(gateway)
        network = parse_cidr(subnet)
    except ValueError:
        return False
    return family == network.family and value in network


def _prefix_len(pool: Json) -> str:
    return str(pool.get("subnet", "/")).partition("/")[2]


def _place(interface: str) -> tuple[bool, list[tuple[int, str]]]:
    """eth0 first, whose addresses are the pod's in every table; then the others, net2 before net10."""
    parts = re.split(r"(\d+)", interface)
    return interface != "eth0", [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _meta(raw: Json) -> Json:
    return cast("Json", raw.get("metadata") or {})


def _spec(raw: Json) -> Json:
    return cast("Json", raw.get("spec") or {})
