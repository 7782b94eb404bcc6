"""Admission of SpiderIPPool.

Owns its defaults and rules. Must not know where the other objects come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from shared.admission import draft
from shared.admission.addressing import (
    JOINTLY,
    changed_errors,
    family_of,
    merged,
    network_of,
    new_errors,
    some,
    spec_errors,
    total,
    union_of,
)
from shared.admission.status import controlled, recorded
from shared.admission.verdict import FINALIZER
from shared.admission.view import View
from shared.manifests.annotations import PREFIX
from shared.manifests.ipam import RangeSpec, SpiderIPPool, SpiderSubnet
from shared.manifests.kinds import API_VERSION
from shared.manifests.meta import Json
from shared.manifests.problem import FieldError, entry, invalid
from shared.manifests.selector import is_empty, selector_errors, value_error
from shared.net.ranges import IntervalSet, Network, parse_address, parse_range
from shared.selection.precedence import rank_of

CIDR_LABEL = f"{PREFIX}/ippool-cidr"
OWNER_SUBNET_LABEL = f"{PREFIX}/owner-spider-subnet"
OWNER_APPLICATION_LABEL = f"{PREFIX}/owner-application-name"
AUTO_POOL_KEYS = frozenset(
    f"{PREFIX}/{key}" for key in ("app-api-group", "app-api-version", "app-kind", "app-namespace", "app-name")
)
IN_USE_SHOWN_MAX = 16


def mutate(raw: Json, view: View) -> Json:
    """The pool with its defaults: finalizer, ipVersion, label, owner, merged ranges. Never fails. A terminating one gets those of
    the schema and its version only."""
    out = draft.draft_of(raw)
    meta, spec = draft.section(out, "metadata"), draft.section(out, "spec")
    if meta is None or spec is None:
        return out
    leaving = draft.terminating(raw)
    if not leaving:
        draft.finalize(meta, FINALIZER)
    draft.default(spec, default=False, disable=False)
    network = network_of(draft.text(spec, "subnet"))
    if network is None:
        return out
    draft.default(spec, ipVersion=network.family)
    if leaving:
        return out
    draft.label_cidr(meta, CIDR_LABEL, str(network))
    if view.settings.enable_spider_subnet:
        _inherit(meta, spec, view)
    merge_ranges(spec, network.family, network)
    return out


def merge_ranges(spec: Json, family: int, subnet: Network | None = None) -> None:
    """Brings `ips` and `excludeIPs` to their canonical form where they have more than one range."""
    for key in ("ips", "excludeIPs"):
        together = merged(draft.texts(spec, key) or (), family, subnet)
        if together is not None:
            spec[key] = together


def _inherit(meta: Json, spec: Json, view: View) -> None:
    """Puts the pool under the subnet of its CIDR, if there is one; a pool without one is an orphan, which is allowed."""
    cidr = draft.text(spec, "subnet")
    found = [one for one in view.subnets() if one.spec.subnet == cidr and not one.metadata.terminating]
    subnet = min(found, key=lambda one: rank_of(one.metadata), default=None)
    if subnet is None or not _own(meta, subnet):
        return
    if value_error(subnet.metadata.name) is None:
        draft.label(meta, OWNER_SUBNET_LABEL, subnet.metadata.name)
    if not draft.text(spec, "gateway") and subnet.spec.gateway:
        draft.default(spec, gateway=subnet.spec.gateway)
    if "routes" not in spec and subnet.spec.routes is not None:
        spec["routes"] = [msgspec.to_builtins(route) for route in subnet.spec.routes]


def _own(meta: Json, subnet: SpiderSubnet) -> bool:
    """Makes the subnet the controller. False where nothing is left to inherit: it is so already, or something else is."""
    draft.default(meta, ownerReferences=[])
    owners = meta["ownerReferences"]
    if not isinstance(owners, list):
        return False
    references = cast("list[object]", owners)
    for owner in references:
        members = cast("Json", owner) if isinstance(owner, dict) else {}
        if members.get("controller") is True:
            same = members.get("kind") == "SpiderSubnet" and members.get("name") == subnet.metadata.name
            # a long name makes no label value (63 characters): the reference alone says it then
            labelled = value_error(subnet.metadata.name) is not None or (
                draft.label_of(meta, OWNER_SUBNET_LABEL) == subnet.metadata.name
            )
            return same and not labelled
    reference: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "SpiderSubnet",
        "name": subnet.metadata.name,
        "uid": subnet.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    references.append(reference)
    return True


def create_errors(pool: SpiderIPPool, view: View) -> list[FieldError]:
    name = pool.metadata.name
    out = new_errors("IPPool", name, view.pool(name) is not None, pool.spec, view.settings)
    out += _cidr_overlaps(pool, view)
    return out + _common_errors(pool, None, view)


def update_errors(pool: SpiderIPPool, old: SpiderIPPool, view: View) -> list[FieldError]:
    """An overlap that was there before refuses nothing: how else could it be mended in steps, or the pool be disabled meanwhile?"""
    refused = terminating_errors(pool, "IPPool")
    if refused is not None:
        return refused
    out = changed_errors(pool.spec, old.spec, view.settings)
    out += _common_errors(pool, old, view)
    return out + _in_use_errors(pool, old, view)


def conflict_warnings(pool: SpiderIPPool, old: SpiderIPPool, view: View) -> list[FieldError]:
    """Of a pool that is updated: the overlaps that stay."""
    if pool.metadata.terminating:
        return []
    added = set(_range_overlaps(pool, old, view))
    stay = [*_cidr_overlaps(pool, view), *_range_overlaps(pool, None, view)]
    return [invalid(error.field, error.message, "Unknown") for error in stay if error not in added]


def delete_errors(pool: SpiderIPPool, view: View) -> list[FieldError]:
    """Deletion is free, since it only marks the pool, unless the installation asks for protection."""
    if not view.settings.enable_validating_resources_deleted_webhook:
        return []
    leased = view.allocated(pool.metadata.name)
    count = len(leased) if leased is not None else pool.status.allocated_ip_count or 0
    return deletion_errors(count, "an IPPool")


def deletion_errors(count: int, what: str) -> list[FieldError]:
    if count <= 0:
        return []
    sentence = f"cannot delete {what} with allocated IPs({count})"
    return [invalid("status.allocatedIPCount", sentence, "Forbidden")]


def terminating_errors(pool: SpiderIPPool | SpiderSubnet, what: str) -> list[FieldError] | None:
    """The whole answer for an object that is being deleted: only taking off the finalizer is allowed. None if it is not."""
    if not pool.metadata.terminating:
        return None
    if FINALIZER not in pool.metadata.finalizers:
        return []
    return [invalid("metadata.deletionTimestamp", f"cannot update a terminating {what}", "Forbidden")]


def _common_errors(pool: SpiderIPPool, old: SpiderIPPool | None, view: View) -> list[FieldError]:
    out = spec_errors(pool.spec)
    out += _range_overlaps(pool, old, view)
    out += _affinity_errors(pool)
    return out + _containment_errors(pool, view)


def _others(pool: SpiderIPPool, network: Network, view: View) -> list[SpiderIPPool]:
    return [other for other in view.pools_overlapping(network) if other.metadata.name != pool.metadata.name]


def _cidr_overlaps(pool: SpiderIPPool, view: View) -> list[FieldError]:
    """Two pools have one subnet, or subnets that do not touch."""
    mine = network_of(pool.spec.subnet)
    if mine is None:
        return []
    return [
        invalid(
            "spec.subnet",
            f"overlap with IPPool {other.metadata.name} which 'spec.subnet' is {other.spec.subnet}",
        )
        for other in _others(pool, mine, view)
        if network_of(other.spec.subnet) != mine
    ]


def _range_overlaps(pool: SpiderIPPool, old: SpiderIPPool | None, view: View) -> list[FieldError]:
    """No address may be in two pools of one subnet. With one that the stored pool excludes already, only addresses count that `old`
    does not have."""
    mine, family = total(pool.spec), family_of(pool.spec)
    network = network_of(pool.spec.subnet)
    rivals = view.rivals(pool.metadata.name) if old is not None else frozenset[str]()
    added = mine.subtract(total(old.spec)) if old is not None else mine
    out: list[FieldError] = []
    for other in _others(pool, network, view) if network is not None else ():
        if network_of(other.spec.subnet) != network:
            continue
        both = (added if other.metadata.name in rivals else mine).intersect(total(other.spec))
        if both:
            sentence = (
                f"overlap with IPPool {other.metadata.name} in IP ranges {some(both, family)}, {JOINTLY}"
            )
            out.append(invalid(_culprit(pool.spec, both), sentence))
    return out


def _culprit(spec: RangeSpec, addresses: IntervalSet) -> str:
    """The range of `ips` that brings in some of the addresses, if it is one; else the list."""
    family = family_of(spec)
    found: list[int] = []
    for i, text in enumerate(spec.ips):
        try:
            if IntervalSet([parse_range(text, family)]).intersect(addresses):
                found.append(i)
        except ValueError:
            continue
    return entry("spec.ips", found[0]) if len(found) == 1 else "spec.ips"


def _affinity_errors(pool: SpiderIPPool) -> list[FieldError]:
    path = "spec.podAffinity"
    selector = pool.spec.pod_affinity
    if selector is None:
        return []
    if is_empty(selector):
        sentence = "requires at least one of matchLabels and matchExpressions"
        return [invalid(path, sentence)]
    out = selector_errors(selector, path)
    if OWNER_APPLICATION_LABEL in pool.metadata.labels:
        if selector.match_expressions:
            out.append(invalid(f"{path}.matchExpressions", "are not allowed for an auto-created IPPool"))
        for key in selector.match_labels.keys() - AUTO_POOL_KEYS:
            out.append(
                invalid(entry(f"{path}.matchLabels", key), "is not allowed for an auto-created IPPool")
            )
    return out


def _containment_errors(pool: SpiderIPPool, view: View) -> list[FieldError]:
    """A pool under a SpiderSubnet takes its addresses from there; an auto pool exactly those given to it."""
    owner = pool.metadata.controller
    mine, family = total(pool.spec), family_of(pool.spec)
    if not view.settings.enable_spider_subnet or owner is None or owner.kind != "SpiderSubnet" or not mine:
        return []
    subnet = view.subnet(owner.name)
    if subnet is None:
        return []
    outside = mine.subtract(total(subnet.spec))
    out: list[FieldError] = []
    if outside:
        sentence = f"add some IP ranges {some(outside, family)} that are not contained in controller Subnet {owner.name}"
        out.append(invalid(_culprit(pool.spec, outside), f"{sentence}, {JOINTLY}"))
    if OWNER_APPLICATION_LABEL in pool.metadata.labels:
        given = controlled(subnet).get(pool.metadata.name, IntervalSet())
        if given != mine:
            sentence = (
                f"AutoPool.Spec.IPs {some(mine, family)} must equal the ControlledIPPools entry of "
                f"Subnet {owner.name} {some(given, family)}"
            )
            out.append(invalid("spec.ips", sentence))
    return out


def _in_use_errors(pool: SpiderIPPool, old: SpiderIPPool, view: View) -> list[FieldError]:
    """No leased address may leave the pool. The leases themselves count; the status that mirrors them only where nobody knows."""
    known = view.allocated(pool.metadata.name)
    leased: Mapping[str, str] = known if known is not None else recorded(old)
    if not leased or (pool.spec.ips == old.spec.ips and pool.spec.exclude_ips == old.spec.exclude_ips):
        return []
    after = total(pool.spec)
    excluded = union_of(pool.spec.exclude_ips, family_of(pool.spec))
    out: list[FieldError] = []
    for text, pod in sorted(leased.items()):
        try:
            _, address = parse_address(text)
        except ValueError:
            continue
        if address in after:
            continue
        field = "spec.excludeIPs" if address in excluded else "spec.ips"
        sentence = f"remove an IP address {text} that is being used by Pod {pod}, {JOINTLY}"
        out.append(invalid(field, sentence, "Forbidden"))
    if len(out) > IN_USE_SHOWN_MAX:
        rest = f"and {len(out) - IN_USE_SHOWN_MAX} more IP addresses that are being used"
        return [*out[:IN_USE_SHOWN_MAX], invalid("spec.ips", rest, "Forbidden")]
    return out
