"""Rules about versions, subnets, ranges, gateways and routes: what pools, subnets and reservations have in common.

Owns the interval arithmetic of specs (cached by their texts, since every admission compares with all other pools) and the
sentences. Must not know other objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from shared.manifests.ipam import RangeSpec, Route
from shared.manifests.problem import FieldError, entry, invalid, member
from shared.manifests.settings import Settings
from shared.net.ranges import (
    Family,
    IntervalSet,
    Network,
    format_address,
    parse_address,
    parse_cidr,
    parse_range,
)

_UNSET = "is not generated correctly, 'spec.subnet' may be invalid"
JOINTLY = "total IP addresses are jointly determined by 'spec.ips' and 'spec.excludeIPs'"


@lru_cache(maxsize=65536)
def network_of(text: str) -> Network | None:
    """The network of a CIDR, None if the text is none."""
    try:
        return parse_cidr(text)
    except ValueError:
        return None


@lru_cache(maxsize=16384)
def _total(ips: tuple[str, ...], exclude_ips: tuple[str, ...], family: int) -> IntervalSet:
    return union_of(ips, family).subtract(union_of(exclude_ips, family))


def union_of(texts: Sequence[str], family: int) -> IntervalSet:
    """The addresses of all ranges that can be read."""
    found: list[tuple[int, int]] = []
    for text in texts:
        try:
            found.append(parse_range(text, family))
        except ValueError:
            continue  # reported where the object itself is judged
    return IntervalSet(found)


def total(spec: RangeSpec) -> IntervalSet:
    """Union of `ips` minus union of `excludeIPs`; a range that cannot be read counts for nothing."""
    return _total(spec.ips, spec.exclude_ips, family_of(spec))


def family_of(spec: RangeSpec) -> Family:
    """The written version, else (or where that is none) the subnet's, else 4."""
    if spec.ip_version == 6:
        return 6
    network = None if spec.ip_version == 4 else network_of(spec.subnet)
    return network.family if network else 4


def merged(texts: Sequence[str], family: int, subnet: Network | None = None) -> list[str] | None:
    """The canonical form of two or more ranges; None where they are left alone: one range, or one that will be refused (the
    refusal then points at it as it was written)."""
    if len(texts) < 2 or range_errors(texts, "", family, subnet):
        return None
    return union_of(texts, family).texts(family)


def version_errors(version: int, settings: Settings, unset: str) -> list[FieldError]:
    """`unset` is the sentence for a version that could not be derived."""
    path = "spec.ipVersion"
    if version == 0:
        return [invalid(path, unset, "Required")]
    if version not in (4, 6):
        return [invalid(path, f'Unsupported value: {version}: supported values: "4", "6"', "NotSupported")]
    if not settings.family_enabled(version):
        return [invalid(path, f"IPv{version} is disabled", "Forbidden")]
    return []


def subnet_errors(spec: RangeSpec) -> list[FieldError]:
    """The CIDR must be of the version and canonical: host bits zero, IPv6 compressed and in lower case."""
    path = "spec.subnet"
    if not spec.subnet:
        return [invalid(path, "must be given, a CIDR such as 10.6.0.0/16", "Required")]
    try:
        network = parse_cidr(spec.subnet)
    except ValueError as error:
        return [invalid(path, str(error))]
    if spec.ip_version in (4, 6) and network.family != spec.ip_version:
        return [
            invalid(path, f"invalid CIDR in IPv{spec.ip_version} {spec.subnet!r}: it is IPv{network.family}")
        ]
    if str(network) != spec.subnet:
        return [invalid(path, f"unformatted subnet {spec.subnet}, please change it to {network}")]
    return []


def range_errors(texts: Sequence[str], path: str, family: int, subnet: Network | None) -> list[FieldError]:
    """Each range that cannot be read, or that leaves the subnet where one is given."""
    out: list[FieldError] = []
    for i, text in enumerate(texts):
        try:
            first, last = parse_range(text, family)
        except ValueError as error:
            out.append(invalid(entry(path, i), str(error)))
            continue
        if subnet is not None and (first not in subnet or last not in subnet):
            out.append(invalid(entry(path, i), f"not match base subnet: {text} is not contained in {subnet}"))
    return out


def gateway_errors(spec: RangeSpec, subnet: Network) -> list[FieldError]:
    """Inside the subnet, and never an address that could be allocated."""
    if not spec.gateway:
        return []
    path = "spec.gateway"
    try:
        family, address = parse_address(spec.gateway)
    except ValueError as error:
        return [invalid(path, f"invalid gateway: {error}")]
    if family != subnet.family or address not in subnet:
        return [invalid(path, f"gateway {spec.gateway} is not contained in the subnet {subnet}")]
    if address in total(spec):
        where = f"conflicts with 'spec.ips', which contain {format_address(address, family)}"
        return [invalid(path, f"gateway {where}; add it to 'spec.excludeIPs'")]
    return []


def route_errors(routes: Sequence[Route], subnet: Network) -> list[FieldError]:
    """No default route, no destination twice, destinations of the subnet's family, gateways inside the subnet."""
    out: list[FieldError] = []
    seen: set[Network] = set()
    for i, route in enumerate(routes):
        path = entry("spec.routes", i)
        out += _destination_errors(route, member(path, "dst"), subnet, seen)
        try:
            family, gateway = parse_address(route.gw)
        except ValueError as error:
            out.append(invalid(member(path, "gw"), f"invalid gateway: {error}"))
            continue
        if family != subnet.family or gateway not in subnet:
            sentence = f"the gateway {route.gw} is not contained in the subnet {subnet}"
            out.append(invalid(member(path, "gw"), sentence))
    return out


def _destination_errors(route: Route, path: str, subnet: Network, seen: set[Network]) -> list[FieldError]:
    try:
        destination = parse_cidr(route.dst)
    except ValueError as error:
        return [invalid(path, str(error))]
    if destination.family != subnet.family:
        return [
            invalid(path, f"invalid CIDR in IPv{subnet.family} {route.dst!r}: it is IPv{destination.family}")
        ]
    if destination.prefix_len == 0:
        return [invalid(path, "default routes are not allowed here, use 'spec.gateway'")]
    if destination in seen:
        return [invalid(path, f"duplicate route to {destination}", "Duplicate")]
    seen.add(destination)
    return []


def spec_errors(spec: RangeSpec) -> list[FieldError]:
    """Everything about ranges, gateway and routes that one spec alone decides."""
    subnet = network_of(spec.subnet)
    # a version that is not the subnet's is said by subnet_errors; all else is judged by the subnet
    family = family_of(spec) if subnet is None else subnet.family
    out = range_errors(spec.ips, "spec.ips", family, subnet)
    out += range_errors(spec.exclude_ips, "spec.excludeIPs", family, subnet)
    if subnet is not None:
        out += gateway_errors(spec, subnet)
        out += route_errors(spec.routes or (), subnet)
    return out


def new_errors(what: str, name: str, exists: bool, spec: RangeSpec, settings: Settings) -> list[FieldError]:
    """Of a pool or subnet that is to be made, what concerns neither its addresses nor others."""
    out: list[FieldError] = []
    if exists:
        out.append(invalid("metadata.name", f"{what} {name} already exists", "AlreadyExists"))
    out += version_errors(spec.ip_version, settings, _UNSET)
    return out + subnet_errors(spec)


def changed_errors(spec: RangeSpec, old: RangeSpec, settings: Settings) -> list[FieldError]:
    """Of one that is there: what may not change, and whether its family is still on."""
    return _unchanged_errors(spec, old) + version_errors(spec.ip_version, settings, _UNSET)


def _unchanged_errors(spec: RangeSpec, old: RangeSpec) -> list[FieldError]:
    out: list[FieldError] = []
    if old.ip_version and spec.ip_version != old.ip_version:
        out.append(invalid("spec.ipVersion", "is not changeable", "Forbidden"))
    if spec.subnet != old.subnet:
        out.append(invalid("spec.subnet", f"is not changeable, it is {old.subnet}", "Forbidden"))
    return out


def some(intervals: IntervalSet, family: int) -> str:
    """At most eight ranges for a sentence."""
    texts = intervals.texts(family)
    more = f" and {len(texts) - 8} more" if len(texts) > 8 else ""
    return f"[{' '.join(texts[:8])}{more}]"
