"""Admission of Pods, of what makes them, and of Namespaces: are their annotations such that an attach can succeed?

Owns the rules about annotations; mistakes that are only seen at attach elsewhere are refused here. What a later object may
cure (a pool that does not exist yet) is a warning. Must not decide which pool is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from shared.admission.preview import preview
from shared.admission.view import View
from shared.manifests import annotation_key, wildcard
from shared.manifests import annotations as notes
from shared.manifests.annotations import NicPools, PoolRequest, path_of
from shared.manifests.meta import OwnerReference
from shared.manifests.networks import DEFAULT_NETWORK, NETWORKS, default_network, interface_of, networks
from shared.manifests.problem import FieldError, Invalid, invalid
from shared.manifests.settings import CONFIG_MAP
from shared.manifests.workload import CronJob, Namespace, Pod, PodTemplate, Workload
from shared.selection.rule import other_family, pool_unknown

_PARSERS: dict[str, Callable[[str], object]] = {
    notes.IPPOOL: notes.ippool,
    notes.IPPOOLS: notes.ippools,
    notes.ROUTES: notes.routes,
    notes.DEFAULT_ROUTE_NIC: notes.default_route_nic,
    notes.IP_NUMBER: notes.ip_number,
    notes.RECLAIM: notes.reclaim,
}
_SUBNET_PARSERS: dict[str, Callable[[str], object]] = {
    notes.SUBNET: notes.subnet,
    notes.SUBNETS: notes.subnets,
}
_NAMESPACE_KEYS = (notes.DEFAULT_IPV4_IPPOOL, notes.DEFAULT_IPV6_IPPOOL)
SUBNET_FIELDS = frozenset(path_of(key) for key in _SUBNET_PARSERS)
"""Annotations of automatic pools."""
ANNOTATION_FIELDS = SUBNET_FIELDS | {
    path_of(key) for key in (*_PARSERS, *_NAMESPACE_KEYS, NETWORKS, DEFAULT_NETWORK)
}
"""Where a mistake is one of an annotation that is read at an attach, and not one of the object's form."""
INJECTION_KEYS = (notes.RDMA_RESOURCE_INJECT, notes.NETWORK_RESOURCE_INJECT)
_POD_KEYS = (*_PARSERS, *_SUBNET_PARSERS, NETWORKS, DEFAULT_NETWORK, *INJECTION_KEYS)
AUTO_POOL_OFF = "it's invalid to use '{prefix}/subnets' or '{prefix}/subnet' annotation when Auto-Pool feature is disabled"


def pod_findings(pod: Pod, old: Pod | None, view: View) -> tuple[list[FieldError], list[FieldError]]:
    """Errors and warnings. On an update only annotations that change are looked at: others touch pods too."""
    before = old.metadata.annotations if old is not None else {}
    changed = {key: text for key, text in pod.metadata.annotations.items() if before.get(key) != text}
    errors: list[FieldError] = []
    warnings = annotation_key.findings("Pod", changed)
    for key, parser in _PARSERS.items():
        if key in changed:
            value = parser(changed[key])
            if isinstance(value, Invalid):
                errors += value.errors
            elif isinstance(value, PoolRequest):
                _look_up(value, path_of(key), view, warnings)
            elif key == notes.IPPOOLS:
                for item in value if isinstance(value, tuple) else ():  # pyright: ignore[reportUnknownVariableType]
                    if isinstance(item, NicPools):
                        request = PoolRequest(ipv4=item.ipv4, ipv6=item.ipv6)
                        _look_up(request, path_of(key), view, warnings)
    errors += _subnet_errors(pod, changed, view)
    errors += _network_errors(pod, changed, warnings)
    warnings += _injection_warnings(changed, view)
    if errors or not any(key in changed for key in _POD_KEYS):
        return errors, warnings
    more, hints = preview(pod, view)
    return more, warnings + hints


def _injection_warnings(changed: Mapping[str, str], view: View) -> list[FieldError]:
    if view.settings.pod_resource_inject.enabled:
        return []
    sentence = f"has no effect: podResourceInject.enabled is not set in ConfigMap {CONFIG_MAP}"
    return [invalid(path_of(key), sentence, "Unknown") for key in INJECTION_KEYS if key in changed]


def template_findings(
    workload: Workload | CronJob, old: Workload | CronJob | None, view: View
) -> list[FieldError]:
    """What would be wrong with the pods of a workload, as warnings: the pods themselves are refused."""
    template, path = _template(workload)
    owner = OwnerReference(kind=workload.kind, name=workload.metadata.name, controller=True)
    meta = msgspec.structs.replace(
        template.metadata, namespace=workload.metadata.namespace, owner_references=(owner,)
    )
    before = Pod(metadata=_template(old)[0].metadata) if old is not None else None
    beside = old.metadata.annotations if old is not None else {}
    own = {key: text for key, text in workload.metadata.annotations.items() if beside.get(key) != text}
    errors, warnings = pod_findings(Pod(metadata=meta), before, view)
    return [
        invalid(f"{path}.{one.field}", f"its pods will not start: {one.message}", one.code) for one in errors
    ] + [
        *(invalid(f"{path}.{one.field}", one.message, one.code) for one in warnings),
        *annotation_key.misplaced(workload.kind, path, own, template.metadata.annotations),
    ]


def _template(workload: Workload | CronJob) -> tuple[PodTemplate, str]:
    if isinstance(workload, CronJob):
        return workload.spec.job_template.spec.template, "spec.jobTemplate.spec.template"
    return workload.spec.template, "spec.template"


def namespace_findings(
    namespace: Namespace, old: Namespace | None, view: View
) -> tuple[list[FieldError], list[FieldError]]:
    before = old.metadata.annotations if old is not None else {}
    changed = {key: text for key, text in namespace.metadata.annotations.items() if before.get(key) != text}
    errors: list[FieldError] = []
    warnings = annotation_key.findings("Namespace", changed)
    for key, family in zip(_NAMESPACE_KEYS, (4, 6), strict=True):
        if key not in changed or not changed[key]:
            continue
        names = notes.default_pools(changed[key], key)
        if isinstance(names, Invalid):
            errors += names.errors
            continue
        request = PoolRequest(ipv4=names) if family == 4 else PoolRequest(ipv6=names)
        _look_up(request, path_of(key), view, warnings)
        errors += [
            invalid(
                path_of(key),
                f"SpiderIPPool {pool.name} {other_family(pool)}, and stands among those of IPv{family}",
            )
            for name in names
            if (pool := view.cluster.pools.get(name)) is not None and pool.family != family
        ]
    return errors, warnings


def _look_up(request: PoolRequest, path: str, view: View, warnings: list[FieldError]) -> None:
    """What is named and not there may still come."""
    for family, names in ((4, request.ipv4), (6, request.ipv6)):
        if names and not view.settings.family_enabled(family):
            warnings.append(invalid(path, f"IPv{family} is disabled, so its IPPools are left out", "Unknown"))
        for name in names:
            if wildcard.is_pattern(name):
                hits = [
                    one
                    for one in view.pools()
                    if one.spec.ip_version == family and wildcard.matches(name, one.metadata.name)
                ]
                if not hits:
                    warnings.append(
                        invalid(path, f"the pattern {name!r} matches no IPv{family} IPPool now", "Unknown")
                    )
                continue
            if view.pool(name) is None:
                warnings.append(invalid(path, pool_unknown(name), "Unknown"))


def _subnet_errors(pod: Pod, changed: Mapping[str, str], view: View) -> list[FieldError]:
    """`subnet` and `subnets` need the feature, auto pools and an owner; without the feature they are ignored."""
    out: list[FieldError] = []
    if not view.settings.enable_spider_subnet:
        return out
    for key, parser in _SUBNET_PARSERS.items():
        if key not in changed:
            continue
        value = parser(changed[key])
        if isinstance(value, Invalid):
            out += value.errors
        if not view.settings.enable_auto_pool_for_application:
            out.append(invalid(path_of(key), AUTO_POOL_OFF.format(prefix=notes.PREFIX), "Forbidden"))
        elif pod.metadata.controller is None:
            out.append(
                invalid(path_of(key), "SpiderSubnet feature doesn't support no-controller pod", "Forbidden")
            )
    return [error if error.code != "Forbidden" else invalid(error.field, error.message) for error in out]


def _network_errors(pod: Pod, changed: Mapping[str, str], warnings: list[FieldError]) -> list[FieldError]:
    """Both annotations of Multus; every interface should have its item where `ippools` names interfaces."""
    out: list[FieldError] = []
    namespace = pod.metadata.namespace
    if DEFAULT_NETWORK in changed:
        ref = default_network(changed[DEFAULT_NETWORK], namespace)
        out += ref.errors if isinstance(ref, Invalid) else ()
    if NETWORKS not in changed:
        return out
    refs = networks(changed[NETWORKS], namespace)
    if isinstance(refs, Invalid):
        return [*out, *refs.errors]
    wanted = notes.ippools(pod.metadata.annotations.get(notes.IPPOOLS, "[]"))
    if isinstance(wanted, Invalid) or not wanted[0].interface:
        return out
    named = {item.interface for item in wanted}
    for i in range(len(refs)):
        name = interface_of(refs, i)
        if name not in named:
            sentence = f"interface {name} must be specified if its network takes addresses from here"
            warnings.append(invalid(path_of(notes.IPPOOLS), sentence, "Unknown"))
    return out
