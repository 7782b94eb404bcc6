"""What an attach of a new pod would be told now: the rules of selection, asked before the pod has a node.

Owns which of the pod's interfaces are ours to judge, and which of the answers no later object can cure: those refuse the pod, the
others are warnings. The sentences are those of an attach and of `orbweaver explain`. Must not know what is free beyond what the
pools' status tells.
"""

from __future__ import annotations

from shared.admission.view import View
from shared.contracts.ipam import InterfaceRequest
from shared.manifests.annotations import DEFAULT_ROUTE_NIC, IPPOOL, IPPOOLS, ippools, path_of
from shared.manifests.networks import DEFAULT_NETWORK, NETWORKS
from shared.manifests.problem import Code, FieldError, Invalid, invalid
from shared.manifests.workload import Pod
from shared.selection.cluster import Cluster, PodFact
from shared.selection.network import check_annotations, network_unknown, with_further, with_pools
from shared.selection.rule import (
    Refusal,
    Selection,
    exhausted,
    other_family,
    select,
)

Findings = tuple[list[FieldError], list[FieldError]]
"""Errors and warnings."""


def preview(pod: Pod, view: View) -> Findings:
    """Of a pod whose annotations can be read, each by itself."""
    cluster, asker = view.cluster, _asker(pod)
    marks = asker.annotations
    errors: list[FieldError] = []
    warnings: list[FieldError] = []
    requests = _requests(cluster, asker, view, warnings)
    if isinstance(requests, Refusal):
        return [_finding(asker, requests)], warnings
    nic = check_annotations(asker, {request.ifname for request in requests})
    if nic is not None:
        errors.append(invalid(path_of(DEFAULT_ROUTE_NIC), nic.message))
    if not requests:
        return errors, warnings
    selection = select(cluster, asker, None, requests)
    refusal = selection.refusal
    if refusal is not None and (refusal.error == "annotation_invalid" or _never_fits(cluster, selection)):
        errors.append(_finding(asker, refusal))
    elif refusal is not None:
        warnings.append(_finding(asker, refusal, "Unknown"))
    warnings += [] if refusal is not None else _of_other_family(cluster, selection, marks)
    return errors, warnings + _exhausted(view, selection, asker)


def _asker(pod: Pod) -> PodFact:
    meta = pod.metadata
    return PodFact(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        node="",
        labels=meta.labels,
        annotations=meta.annotations,
        dead="",
        controlled=meta.controller is not None,
        config_hash="",
    )


def _finding(asker: PodFact, refusal: Refusal, code: Code = "Invalid") -> FieldError:
    """Where the pod says what it wants. A refusal that names its annotation itself is about that one."""
    keys = (IPPOOLS, IPPOOL, NETWORKS, DEFAULT_NETWORK)
    for key in keys:
        field = path_of(key)
        if refusal.message.startswith(f"{field}: "):
            return invalid(field, refusal.message.removeprefix(f"{field}: "), code)
    return invalid(
        path_of(next((key for key in keys if key in asker.annotations), NETWORKS)), refusal.message, code
    )


def _requests(
    cluster: Cluster, asker: PodFact, view: View, warnings: list[FieldError]
) -> tuple[InterfaceRequest, ...] | Refusal:
    """The interfaces that we would be asked for, as far as it can be seen: those on networks of ours, and those that annotations of
    ours name. Which plugin eth0 has otherwise, nobody tells."""
    asked = with_further(cluster, asker, (InterfaceRequest(ifname="eth0"),))
    if isinstance(asked, Refusal):
        return asked
    listed = _listed(asker)
    out: list[InterfaceRequest] = []
    for request in asked:
        if not request.network:
            if IPPOOL in asker.annotations or request.ifname in listed:
                out.append(request)
            continue
        field = path_of(DEFAULT_NETWORK if request is asked[0] else NETWORKS)
        if request.network not in cluster.networks:
            namespace, _, name = request.network.partition("/")
            if view.network_definition(namespace, name) is None:
                warnings.append(invalid(field, network_unknown(request).message, "Unknown"))
            continue
        network = cluster.networks[request.network]
        if network.disable_ipam or network.cni_type == "custom":
            continue  # under Multus its addresses come from elsewhere, or from nowhere
        whole = with_pools(cluster, request)
        if not isinstance(whole, Refusal):
            out.append(whole)
    if listed and not any(request.ifname in listed for request in out):
        out.append(InterfaceRequest(ifname=listed[0]))
    # an interface that `ippools` leaves out may be another plugin's: warned of elsewhere
    return tuple(request for request in out if not listed or request.ifname in listed)


def _listed(asker: PodFact) -> tuple[str, ...]:
    """The interfaces that `ippools` names; the first is eth0 where it names none."""
    items = ippools(asker.annotations[IPPOOLS]) if IPPOOLS in asker.annotations else ()
    if isinstance(items, Invalid) or not items:
        return ()
    return tuple(item.interface for item in items) if items[0].interface else ("eth0",)


def _never_fits(cluster: Cluster, selection: Selection) -> bool:
    """Every pool that was looked at last is of the other family, which never changes."""
    last = selection.verdicts[-1] if selection.verdicts else None
    if last is None or selection.refusal is None or selection.refusal.error != "no_pool":
        return False
    same = [one for one in selection.verdicts if (one.ifname, one.family) == (last.ifname, last.family)]
    return all(
        one.reason and one.pool in cluster.pools and one.reason == other_family(cluster.pools[one.pool])
        for one in same
    )


def _of_other_family(cluster: Cluster, selection: Selection, marks: dict[str, str]) -> list[FieldError]:
    field = path_of(IPPOOLS if IPPOOLS in marks else IPPOOL)
    return [
        invalid(
            field,
            f"SpiderIPPool {one.pool} {one.reason}: no IPv{one.family} of {one.ifname} comes from it",
            "Unknown",
        )
        for one in selection.verdicts
        if one.pool in cluster.pools and one.reason == other_family(cluster.pools[one.pool])
    ]


def _exhausted(view: View, selection: Selection, asker: PodFact) -> list[FieldError]:
    out: list[FieldError] = []
    for want in selection.wants:
        for family, pools in want.pools.items():
            if all(_is_full(view, pool.name) for pool in pools):
                out.append(_finding(asker, exhausted(want, family, pools), "Unknown"))
    return out


def _is_full(view: View, name: str) -> bool:
    """As the pool's status tells; where it tells nothing, the pool is not full."""
    pool = view.pool(name)
    if pool is None or pool.status.total_ip_count is None or pool.status.allocated_ip_count is None:
        return False
    return pool.status.allocated_ip_count >= pool.status.total_ip_count
