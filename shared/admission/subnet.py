"""Admission of SpiderSubnet.

Owns its defaults and rules. Must not know where the other objects come from.
"""

from __future__ import annotations

from shared.admission import draft
from shared.admission.addressing import (
    changed_errors,
    family_of,
    network_of,
    new_errors,
    some,
    spec_errors,
    total,
)
from shared.admission.pool import deletion_errors, merge_ranges, terminating_errors
from shared.admission.status import controlled
from shared.admission.verdict import FINALIZER
from shared.admission.view import View
from shared.manifests.annotations import PREFIX
from shared.manifests.ipam import SpiderSubnet
from shared.manifests.meta import Json
from shared.manifests.problem import FieldError, invalid

CIDR_LABEL = f"{PREFIX}/subnet-cidr"


def mutate(raw: Json, view: View) -> Json:
    """The subnet with its defaults: finalizer, ipVersion, label, merged ranges. Never fails. A terminating one gets its version
    only."""
    out = draft.draft_of(raw)
    meta, spec = draft.section(out, "metadata"), draft.section(out, "spec")
    if meta is None or spec is None:
        return out
    leaving = draft.terminating(raw)
    if not leaving:
        draft.finalize(meta, FINALIZER)
    network = network_of(draft.text(spec, "subnet"))
    if network is None:
        return out
    draft.default(spec, ipVersion=network.family)
    if leaving:
        return out
    draft.label_cidr(meta, CIDR_LABEL, str(network))
    merge_ranges(spec, network.family, network)
    return out


def create_errors(subnet: SpiderSubnet, view: View) -> list[FieldError]:
    name = subnet.metadata.name
    out = new_errors("Subnet", name, view.subnet(name) is not None, subnet.spec, view.settings)
    out += _subnet_overlaps(subnet, view)
    out += _pool_conflicts(subnet, view)
    return out + spec_errors(subnet.spec)


def update_errors(subnet: SpiderSubnet, old: SpiderSubnet, view: View) -> list[FieldError]:
    refused = terminating_errors(subnet, "Subnet")
    if refused is not None:
        return refused
    out = changed_errors(subnet.spec, old.spec, view.settings)
    out += spec_errors(subnet.spec)
    return out + _in_use_errors(subnet, old, view)


def delete_errors(subnet: SpiderSubnet, view: View) -> list[FieldError]:
    if not view.settings.enable_validating_resources_deleted_webhook:
        return []
    return deletion_errors(subnet.status.allocated_ip_count or 0, "an Subnet")


def _subnet_overlaps(subnet: SpiderSubnet, view: View) -> list[FieldError]:
    mine = network_of(subnet.spec.subnet)
    out: list[FieldError] = []
    for other in view.subnets():
        theirs = network_of(other.spec.subnet)
        if other.metadata.name == subnet.metadata.name or mine is None or theirs is None:
            continue
        if theirs.overlaps(mine):
            name, cidr = other.metadata.name, other.spec.subnet
            out.append(invalid("spec.subnet", f"overlap with Subnet {name} which 'spec.subnet' is {cidr}"))
    return out


def _pool_conflicts(subnet: SpiderSubnet, view: View) -> list[FieldError]:
    """Pools that exist already: another overlapping CIDR is refused, those of the same CIDR must fit."""
    mine, addresses = network_of(subnet.spec.subnet), total(subnet.spec)
    out: list[FieldError] = []
    for pool in view.pools_overlapping(mine) if mine is not None else ():
        name = pool.metadata.name
        if network_of(pool.spec.subnet) != mine:
            sentence = f"overlap with SpiderIPPool '{name}' resource 'spec.subnet' {pool.spec.subnet}"
            out.append(invalid("spec.subnet", sentence))
            continue
        outside = total(pool.spec).subtract(addresses)
        if outside and mine is not None:
            sentence = (
                f"SpiderIPPool '{name}' owns some IP addresses that SpiderSubnet '{subnet.metadata.name}' "
                f"can't control: {some(outside, mine.family)}"
            )
            out.append(invalid("spec.ips", sentence))
    return out


def _in_use_errors(subnet: SpiderSubnet, old: SpiderSubnet, view: View) -> list[FieldError]:
    """No address that a pool holds may leave the subnet: as the status says, and as the pools themselves say."""
    after, family = total(subnet.spec), family_of(subnet.spec)
    held = controlled(old)
    for pool in view.pools():
        owner = pool.metadata.controller
        if owner is not None and owner.kind == "SpiderSubnet" and owner.name == subnet.metadata.name:
            held.setdefault(pool.metadata.name, total(pool.spec).intersect(total(old.spec)))
    out: list[FieldError] = []
    for name, addresses in sorted(held.items()):
        outside = addresses.subtract(after)
        if outside:
            sentence = (
                f"remove some IP ranges {some(outside, family)} that is being used by IPPool {name}, "
                "total IP addresses of a Subnet are jointly determined by 'spec.ips' and 'spec.excludeIPs'"
            )
            out.append(invalid("spec.ips", sentence, "Forbidden"))
    return out
