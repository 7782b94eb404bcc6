"""Admission of SpiderReservedIP. Owns its defaults and rules; must not know where the other objects come from."""

from __future__ import annotations

from collections.abc import Sequence

from shared.admission import draft
from shared.admission.addressing import range_errors, version_errors
from shared.admission.pool import merge_ranges
from shared.admission.view import View
from shared.manifests.ipam import SpiderReservedIP
from shared.manifests.meta import Json
from shared.manifests.problem import FieldError, invalid
from shared.net.ranges import parse_address

UNSET = "is not generated correctly, 'spec.ips' may be empty or its first element invalid"


def mutate(raw: Json, view: View) -> Json:
    """The reservation with its version, which the first of its ranges decides, and merged ranges. Never fails. A
    terminating one gets its version only."""
    out = draft.draft_of(raw)
    spec = draft.section(out, "spec")
    ips = draft.texts(spec, "ips") if spec is not None else None
    if spec is None or not ips:
        return out
    family = _family_of(ips)
    if family is None:
        return out
    draft.default(spec, ipVersion=family)
    if not draft.terminating(raw):
        merge_ranges(spec, 6 if spec["ipVersion"] == 6 else 4)
    return out


def create_errors(reserved: SpiderReservedIP, view: View) -> list[FieldError]:
    out = version_errors(reserved.spec.ip_version, view.settings, UNSET)
    version = reserved.spec.ip_version
    family = version if version in (4, 6) else _family_of(reserved.spec.ips) or 4
    return out + range_errors(reserved.spec.ips, "spec.ips", family, None)


def _family_of(ips: Sequence[str]) -> int | None:
    """That of the first range, which decides the version."""
    try:
        return parse_address(ips[0].partition("-")[0])[0] if ips else None
    except ValueError:
        return None


def update_errors(reserved: SpiderReservedIP, old: SpiderReservedIP, view: View) -> list[FieldError]:
    if old.metadata.terminating:
        return [invalid("metadata.deletionTimestamp", "cannot update a terminating ReservedIP", "Forbidden")]
    out: list[FieldError] = []
    if old.spec.ip_version and reserved.spec.ip_version != old.spec.ip_version:
        out.append(invalid("spec.ipVersion", "is not changeable", "Forbidden"))
    return out + create_errors(reserved, view)
