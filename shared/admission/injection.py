"""Injection into new pods: networks by group, and the extended resources that their networks need.

Owns which networks and resources a pod gets (A: a group's networks and their RDMA resources, B: one resource a master link, C: slots
of the provider's sub-interfaces), in that order, each on the result of the one before. Must not know how a pod came here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from shared.admission import draft
from shared.admission.blocks import blocks_of
from shared.admission.multus import group_errors, target_name
from shared.admission.view import View
from shared.manifests.annotations import NETWORK_RESOURCE_INJECT, RDMA_RESOURCE_INJECT, path_of
from shared.manifests.meta import Json
from shared.manifests.network import (
    IBSriovConfig,
    IpoibConfig,
    MacvlanConfig,
    SpiderMultusConfig,
    SriovConfig,
    VlanConfig,
)
from shared.manifests.networks import DEFAULT_NETWORK, NETWORKS, NetworkRef, default_network, networks
from shared.manifests.problem import FieldError, Invalid, invalid
from shared.selection.precedence import rank_of

MASTER_NIC_RESOURCE = "spidernet.io/{master}-nic"


def inject(pod: Json, namespace: str, view: View) -> Json | tuple[FieldError, ...]:
    """The pod with what its annotations or those of its namespace ask for, unchanged where they ask for nothing; or why it cannot be.

    `pod` is not changed. Idempotent: what is declared already is not declared again."""
    settings = view.settings
    if not settings.pod_resource_inject.enabled:
        return pod
    out = draft.draft_of(pod)
    plugin = settings.agent.network_resource_plugin
    errors = _inject_group(out, namespace, view)
    if not errors and plugin.enabled and plugin.resource_advertisement.master_nic.rules:
        errors = _inject_masters(out, namespace, view)
    if (
        not errors
        and plugin.enabled
        and settings.iaas_network_provider.server_url
        and plugin.resource_advertisement.sub_eni.rules
    ):
        resource = plugin.resource_advertisement.sub_eni.rules[0].resource_name
        errors = _inject_slots(out, namespace, view, resource)
    return tuple(errors) or out


def injects(namespace: str, view: View) -> bool:
    """Whether pods of this namespace may be changed at all (`podResourceInject`)."""
    inject = view.settings.pod_resource_inject
    included = not inject.namespaces_include or namespace in inject.namespaces_include
    return inject.enabled and included and namespace not in inject.namespaces_exclude


def asked_group(pod: Json, namespace: str, view: View) -> tuple[str, str] | None:
    """Annotation and group: the pod's before its namespace's, RDMA before others; only the first that is there counts, also when
    it is empty."""
    mine = draft.existing(draft.existing(pod, "metadata") or {}, "annotations") or {}
    found = view.namespace(namespace)
    theirs = found.metadata.annotations if found is not None else {}
    for key in (RDMA_RESOURCE_INJECT, NETWORK_RESOURCE_INJECT):
        for marks in (mine, theirs):
            if isinstance(marks.get(key), str):
                return key, cast("str", marks[key])
    return None


def _inject_group(pod: Json, namespace: str, view: View) -> list[FieldError]:
    group = asked_group(pod, namespace, view)
    if group is None:
        return []
    key, value = group
    # Membership is the label that admission keeps in step with the annotation: what is in force, whoever wrote the object.
    members = [
        one
        for one in view.network_configs()
        if one.metadata.labels.get(key) == value
        and _first_of(one.metadata.namespace, target_name(one), view) is one
    ]
    if not members:
        sentence = f"no spidermultusconfigs with annotation: {key}:{value} found"
        return [invalid(path_of(key), sentence)]
    errors = [
        invalid(path_of(key), f"SpiderMultusConfig {_name(one)}: {error.field} {error.message}")
        for one in members
        for error in group_errors(one, key)
    ]
    if errors:
        return errors
    members.sort(key=lambda one: (_link_of(one), _name(one)))
    meta = draft.section(pod, "metadata")
    marks = draft.section(meta, "annotations") if meta is not None else None
    if marks is None:
        return [invalid("metadata.annotations", "must be a map", "TypeInvalid")]
    marks[NETWORKS] = ",".join(f"{one.metadata.namespace}/{target_name(one)}" for one in members)
    resources = [resource for one in members if (resource := _resource_of(one))]
    return _declare(pod, dict.fromkeys(resources, 1), ("limits",))


def _first_of(namespace: str, name: str, view: View) -> SpiderMultusConfig | None:
    """The configuration behind the network of this name: of two the older (precedence.py)."""
    found = [one for one in view.multus_configs(namespace) if target_name(one) == name]
    return min(found, key=lambda one: rank_of(one.metadata), default=None)


def _name(config: SpiderMultusConfig) -> str:
    return f"{config.metadata.namespace}/{config.metadata.name}"


def _link_of(config: SpiderMultusConfig) -> str:
    """What the members of a group are sorted by, so that every pod of a group has its rails in one order."""
    for block in blocks_of(config.spec).values():
        match block:
            case MacvlanConfig():
                return block.bond.name if block.bond is not None else next(iter(block.master), "")
            case SriovConfig():
                return block.resource_name or ""
            case _:
                return ""
    return ""


def _resource_of(config: SpiderMultusConfig) -> str:
    for block in blocks_of(config.spec).values():
        match block:
            case MacvlanConfig():
                return block.rdma_resource_name or ""
            case SriovConfig() | IBSriovConfig():
                return block.resource_name or ""
            case _:
                return ""
    return ""


def _inject_masters(pod: Json, namespace: str, view: View) -> list[FieldError]:
    """Pods go where the link is: `spidernet.io/<master>-nic` for every master of every referenced network."""
    found = _referenced(pod, namespace, view)
    if isinstance(found, Invalid):
        return list(found.errors)
    masters: list[str] = []
    for config in found:
        for block in blocks_of(config.spec).values():
            match block:
                case MacvlanConfig():
                    masters += block.master
                case IpoibConfig():
                    masters += [block.master] if block.master else []
                case _:
                    pass
    wanted = {MASTER_NIC_RESOURCE.format(master=master): 1 for master in masters}
    return _declare(pod, wanted, ("requests", "limits"))


def _inject_slots(pod: Json, namespace: str, view: View, resource: str) -> list[FieldError]:
    """One slot for each interface on a vlan network whose VLAN the provider chooses."""
    found = _referenced(pod, namespace, view)
    if isinstance(found, Invalid):
        return list(found.errors)
    slots = sum(
        isinstance(block, VlanConfig) and block.vlan_mode == "auto"
        for config in found
        for block in blocks_of(config.spec).values()
    )
    return _declare(pod, {resource: slots}, ("requests", "limits")) if slots else []


def _referenced(pod: Json, namespace: str, view: View) -> list[SpiderMultusConfig] | Invalid:
    """The configurations behind both annotations of Multus, one for each reference; definitions of others are left out."""
    marks = draft.existing(draft.existing(pod, "metadata") or {}, "annotations") or {}
    first = default_network(draft.text(marks, DEFAULT_NETWORK), namespace)
    further = networks(draft.text(marks, NETWORKS), namespace)
    if isinstance(first, Invalid):
        return first
    if isinstance(further, Invalid):
        return further
    refs: Sequence[NetworkRef] = (*((first,) if first is not None else ()), *further)
    found = (_first_of(ref.namespace, ref.name, view) for ref in refs)
    return [one for one in found if one is not None]


def _declare(pod: Json, wanted: dict[str, int], where: Iterable[str]) -> list[FieldError]:
    """Adds each resource to the first container unless a container declares it."""
    spec = draft.existing(pod, "spec") or {}
    listed = spec.get("containers")
    containers = (
        [cast("Json", one) for one in cast("list[Any]", listed) if isinstance(one, dict)]
        if isinstance(listed, list)
        else []
    )
    missing = {
        name: count for name, count in wanted.items() if not any(_has(one, name) for one in containers)
    }
    if not missing:
        return []
    if not containers:
        return [invalid("spec.containers", "must have at least one container", "Required")]
    resources = draft.section(containers[0], "resources")
    for key in where:
        amounts = draft.section(resources, key) if resources is not None else None
        if amounts is None:
            return [invalid("spec.containers[0].resources", "must be a map", "TypeInvalid")]
        amounts.update({name: str(count) for name, count in missing.items()})
    return []


def _has(container: Json, resource: str) -> bool:
    resources = draft.existing(container, "resources") or {}
    return any(resource in (draft.existing(resources, key) or {}) for key in ("limits", "requests"))
