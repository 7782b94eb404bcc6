"""Admission of SpiderMultusConfig: defaults, and the rules about names, coordinator and chained plugins.

Owns everything but the rules of the blocks of one CNI type (blocks.py). Must not know how a configuration is rendered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from shared.admission import blocks, coordinator, draft
from shared.admission.view import View
from shared.manifests.annotations import (
    CNI_VERSION,
    CR_NAME,
    NETWORK_RESOURCE_INJECT,
    RDMA_RESOURCE_INJECT,
    path_of,
)
from shared.manifests.document import SUBDOMAIN
from shared.manifests.meta import Json
from shared.manifests.network import BLOCK_KEYS, SpiderMultusConfig
from shared.manifests.problem import FieldError, entry, invalid
from shared.manifests.selector import value_error

CNI_VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0")


def mutate(raw: Json, view: View) -> Json:
    """The configuration with its defaults, and the injection annotations as labels. Never fails. A terminating one gets those of the
    schema only."""
    out = draft.draft_of(raw)
    meta, spec = draft.section(out, "metadata"), draft.section(out, "spec")
    if meta is None or spec is None:
        return out
    draft.default(spec, cniType="custom", enableCoordinator=True, disableIPAM=False)
    if draft.terminating(raw):
        return out
    draft.default(spec, chainCNIJsonData=[])
    if spec["cniType"] == "custom":
        spec["enableCoordinator"] = False
        spec.pop("coordinator", None)
        draft.default(spec, customCNI="")
    else:
        blocks.default(spec)
        _default_coordinator(spec)
    _label_membership(meta)
    return out


def _default_coordinator(spec: Json) -> None:
    """A whole block in every case, so that the object that comes back is left as it is."""
    block = draft.section(spec, "coordinator")
    if block is None:
        return  # not an object: validation says so
    draft.default(
        block,
        mode="auto",
        hijackCIDR=[],
        policyRoutes=[],
        vethLinkAddress="",
        podMACPrefix="",
        podDefaultRouteNIC="",
        podRPFilter=0,
        tunePodRoutes=True,
        txQueueLen=0,
        hostRuleTable=coordinator.HOST_RULE_TABLE,
    )
    coordinator.normalise(block)


def _label_membership(meta: Json) -> None:
    """Annotation and label of an injection group come and go together: the pods' webhook selects by the label."""
    annotations = draft.existing(meta, "annotations") or {}
    labels = draft.existing(meta, "labels")
    for key in (RDMA_RESOURCE_INJECT, NETWORK_RESOURCE_INJECT):
        if isinstance(annotations.get(key), str):
            draft.label(meta, key, annotations[key])
        elif labels is not None:
            labels.pop(key, None)


def create_errors(config: SpiderMultusConfig, view: View) -> list[FieldError]:
    return _name_errors(config) + _owner_errors(config, view) + _own_errors(config)


def _own_errors(config: SpiderMultusConfig) -> list[FieldError]:
    """What the configuration alone decides, but for its name."""
    out: list[FieldError] = []
    version = config.metadata.annotations.get(CNI_VERSION)
    if version is not None and version not in CNI_VERSIONS:
        out.append(invalid(path_of(CNI_VERSION), f"unsupported CNI version {version}", "NotSupported"))
    out += blocks.errors(config.spec)
    out += _injection_errors(config)
    if config.spec.coordinator is not None:
        out += coordinator.spec_errors(config.spec.coordinator, "spec.coordinator")
    for i, text in enumerate(config.spec.chain_cni_json_data or ()):
        sentence = plugin_error(text)
        if sentence:
            out.append(invalid(entry("spec.chainCNIJsonData", i), sentence))
    return out


def update_errors(config: SpiderMultusConfig, old: SpiderMultusConfig, view: View) -> list[FieldError]:
    before, after = old.metadata.annotations.get(CR_NAME), config.metadata.annotations.get(CR_NAME)
    out: list[FieldError] = []
    if after is not None and after != before:
        sentence = (
            f"is not changeable, it is {before}"
            if before is not None
            else "cannot be added to an existing object"
        )
        out.append(invalid(path_of(CR_NAME), sentence, "Invalid"))
    if target_name(config) != target_name(old):
        out += _owner_errors(config, view)
    return out + _name_errors(config) + _own_errors(config)


def conflict_warnings(config: SpiderMultusConfig, view: View) -> list[FieldError]:
    """Of a configuration that is updated: a name that is taken refuses nothing then, for it is so already."""
    return [invalid(one.field, one.message, "Unknown") for one in _owner_errors(config, view)]


def target_name(config: SpiderMultusConfig) -> str:
    """The name of the net-attach-def that the configuration leads to."""
    return config.metadata.annotations.get(CR_NAME) or config.metadata.name


def _name_errors(config: SpiderMultusConfig) -> list[FieldError]:
    name = config.metadata.annotations.get(CR_NAME)
    if name is None or (len(name) <= 253 and SUBDOMAIN.fullmatch(name)):
        return []
    return [invalid(path_of(CR_NAME), f"{name[:80]!r} is not a DNS-1123 subdomain of at most 253 characters")]


def _owner_errors(config: SpiderMultusConfig, view: View) -> list[FieldError]:
    """A net-attach-def is rendered from one configuration."""
    field = path_of(CR_NAME) if CR_NAME in config.metadata.annotations else "metadata.name"
    namespace, target = config.metadata.namespace, target_name(config)
    owners = {
        other.metadata.name
        for other in view.multus_configs(namespace)
        if other.metadata.name != config.metadata.name and target_name(other) == target
    }
    definition = view.network_definition(namespace, target)
    owner = definition.metadata.controller if definition is not None else None
    if owner is not None and owner.kind == "SpiderMultusConfig" and owner.name != config.metadata.name:
        owners.add(owner.name)
    return [
        invalid(
            field,
            f"the net-attach-def {namespace}/{target} already exists and is managed by "
            f"SpiderMultusConfig {namespace}/{one}.",
        )
        for one in sorted(owners)
    ]


def _injection_errors(config: SpiderMultusConfig) -> list[FieldError]:
    out: list[FieldError] = []
    annotations: Mapping[str, str] = config.metadata.annotations
    for key in (RDMA_RESOURCE_INJECT, NETWORK_RESOURCE_INJECT):
        if key in annotations:
            wrong = value_error(annotations[key])
            out += [invalid(path_of(key), wrong)] if wrong else []
            out += group_errors(config, key)
    return out


def group_errors(config: SpiderMultusConfig, key: str) -> list[FieldError]:
    """What a member of an injection group lacks: it must say which resource a pod of the group gets, and which pools."""
    cni_type = config.spec.cni_type or "custom"
    if cni_type in ("ovs", "custom"):
        return [invalid(path_of(key), f"the cniType {cni_type} does not support resource injection")]
    out: list[FieldError] = []
    resource, pools = blocks.resource_and_pools(config.spec)
    if key == RDMA_RESOURCE_INJECT and not resource:
        out.append(invalid(blocks.resource_path(cni_type), f"must be given, since {key} is set", "Required"))
    if not pools and (resource or key == RDMA_RESOURCE_INJECT):
        path = f"spec.{BLOCK_KEYS.get(cni_type, cni_type)}.ippools"
        out.append(invalid(path, f"must name at least one IPPool, since {key} is set", "Required"))
    return out


def plugin_error(text: str) -> str | None:
    """Why a text is not the configuration of one CNI plugin, or None."""
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return f"is not JSON: {error}"
    if not isinstance(value, dict):
        return "must be one JSON object, the configuration of a single plugin"
    type_ = cast("dict[str, Any]", value).get("type")
    return None if isinstance(type_, str) and type_ else "must have a `type`, the name of the plugin"
