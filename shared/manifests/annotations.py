"""The annotations of pods and namespaces about addresses, as typed values.

Owns their syntax: text in, a value or `Invalid` out, the same object for the same text (cached: the allocator reads them on
every attach). Must not know which pools exist, nor what the values lead to. The networks annotation is in networks.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from shared.limits import IFNAME_MAX_BYTES
from shared.manifests import wildcard
from shared.manifests.document import SUBDOMAIN
from shared.manifests.ipam import Route
from shared.manifests.lenient import Reader
from shared.manifests.problem import FieldError, Invalid, entry, invalid, member
from shared.net.ranges import parse_address, parse_cidr

PREFIX = "ipam.spidernet.io"
IPPOOL = f"{PREFIX}/ippool"
IPPOOLS = f"{PREFIX}/ippools"
SUBNET = f"{PREFIX}/subnet"
SUBNETS = f"{PREFIX}/subnets"
IP_NUMBER = f"{PREFIX}/ippool-ip-number"
RECLAIM = f"{PREFIX}/ippool-reclaim"
ROUTES = f"{PREFIX}/routes"
DEFAULT_ROUTE_NIC = f"{PREFIX}/default-route-nic"
DEFAULT_IPV4_IPPOOL = f"{PREFIX}/default-ipv4-ippool"
DEFAULT_IPV6_IPPOOL = f"{PREFIX}/default-ipv6-ippool"
RDMA_RESOURCE_INJECT = "cni.spidernet.io/rdma-resource-inject"
NETWORK_RESOURCE_INJECT = "cni.spidernet.io/network-resource-inject"
TRACEPARENT = "orbweaver.io/traceparent"
"""Of a pod that admission changed: the span of its admission (W3C), to which its attach is linked."""
CR_NAME = "multus.spidernet.io/cr-name"
"""Of a SpiderMultusConfig: the name under which pods know its network, if that is not its own."""
CNI_VERSION = "multus.spidernet.io/cni-version"
CONFIG_NAME = "cni.spidernet.io/cniconfig-name"
NATIVE = "orbweaver.io/native"
"""With "true" a SpiderMultusConfig is one plugin of ours, which makes the link, gives the address and does what the coordinator does."""


CACHE = 8192


def path_of(annotation: str) -> str:
    """The field path of an annotation: `metadata.annotations[ipam.spidernet.io/ippool]`."""
    return entry("metadata.annotations", annotation)


class PoolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Names or patterns of pools by family, as listed. At least one family is not empty."""

    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()


class NicPools(msgspec.Struct, frozen=True, kw_only=True):
    """One item of `ippools`. `interface` is empty in all items or in none."""

    interface: str = ""
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    clean_gateway: bool = False


class NicSubnet(msgspec.Struct, frozen=True, kw_only=True):
    """One item of `subnet` or `subnets`: the first name of each family list, which alone counts; "" is none."""

    interface: str
    ipv4: str = ""
    ipv6: str = ""


class IPNumber(msgspec.Struct, frozen=True, kw_only=True):
    """`flexible`: the pool has replicas + `count` addresses; otherwise exactly `count`."""

    flexible: bool
    count: int


def _pool_names(reader: Reader, value: object, path: str) -> tuple[str, ...]:
    """A list of pool names or patterns; a plain name may not stand twice."""
    names = reader.texts(value, path)
    seen: set[str] = set()
    for name in names:
        if not name.strip():
            reader.wrong("an IPPool name is empty", path)
        elif wildcard.is_pattern(name):
            sentence = wildcard.pattern_error(name)
            if sentence:
                reader.wrong(sentence, path)
        elif name in seen:
            reader.wrong(f"duplicate IPPool {name}", path)
        elif len(name) > 253 or not SUBDOMAIN.fullmatch(name):
            reader.wrong(f"{name[:80]!r} cannot be the name of an IPPool", path)
        seen.add(name)
    return tuple(dict.fromkeys(names))


def interface_error(name: str) -> str | None:
    """Why a text cannot name a link (dev_valid_name, net/core/dev.c), or None."""
    if len(name.encode(errors="replace")) > IFNAME_MAX_BYTES:
        return f"the interface name {name[:40]!r} is longer than {IFNAME_MAX_BYTES} bytes"
    if name in ("", ".", "..") or "/" in name or ":" in name or any(c.isspace() for c in name):
        return f"{name!r} cannot be the name of an interface"
    return None


def _interface(reader: Reader, name: str, seen: set[str], path: str) -> None:
    """Notes what is wrong with a named interface."""
    sentence = interface_error(name)
    if sentence:
        reader.wrong(sentence, path)
    if name in seen:
        reader.wrong(f"duplicate interface {name}", path)
    seen.add(name)


@lru_cache(maxsize=CACHE)
def ippool(text: str) -> PoolRequest | Invalid:
    """`ipam.spidernet.io/ippool`. One that names no pool is wrong input: nothing could be allocated for it."""
    reader = Reader(path_of(IPPOOL))
    members = reader.object(reader.json(text))
    request = PoolRequest(
        ipv4=_pool_names(reader, members.get("ipv4"), "ipv4"),
        ipv6=_pool_names(reader, members.get("ipv6"), "ipv6"),
    )
    if not reader.errors and not request.ipv4 and not request.ipv6:
        reader.wrong("no IPPool is named; give `ipv4` or `ipv6` a list of names")
    return Invalid(errors=tuple(reader.errors)) if reader.errors else request


@lru_cache(maxsize=CACHE)
def ippools(text: str) -> tuple[NicPools, ...] | Invalid:
    """`ipam.spidernet.io/ippools`, in order: without names, item 0 is eth0 and item i the i-th further network."""
    reader = Reader(path_of(IPPOOLS))
    value = reader.json(text)
    out: list[NicPools] = []
    seen: set[str] = set()
    for path, members in reader.objects(value):
        item = NicPools(
            interface=reader.text(members, "interface", path),
            ipv4=_pool_names(reader, members.get("ipv4"), member(path, "ipv4")),
            ipv6=_pool_names(reader, members.get("ipv6"), member(path, "ipv6")),
            clean_gateway=reader.flag(members, "cleangateway", path),
        )
        if item.interface:
            _interface(reader, item.interface, seen, path)
        out.append(item)
    if isinstance(value, list) and not out:
        reader.wrong("value requires at least one item")
    if out and not reader.errors and not any(item.ipv4 or item.ipv6 for item in out):
        reader.wrong("no IPPool is named; give `ipv4` or `ipv6` of an item a list of names")
    if 0 < sum(1 for item in out if item.interface) < len(out):
        reader.wrong("NIC should be either all specified or all unspecified")
    return Invalid(errors=tuple(reader.errors)) if reader.errors else tuple(out)


def _subnet_item(reader: Reader, members: dict[str, object], path: str, interface: str) -> NicSubnet:
    ipv4 = reader.texts(members.get("ipv4"), member(path, "ipv4"))
    ipv6 = reader.texts(members.get("ipv6"), member(path, "ipv6"))
    item = NicSubnet(interface=interface, ipv4=ipv4[0] if ipv4 else "", ipv6=ipv6[0] if ipv6 else "")
    for name in (item.ipv4, item.ipv6):
        if wildcard.is_pattern(name):
            reader.wrong(f"wildcards such as {name[:80]!r} are not supported for subnets", path)
        elif name and (len(name) > 253 or not SUBDOMAIN.fullmatch(name)):
            reader.wrong(f"{name[:80]!r} cannot be the name of a SpiderSubnet", path)
    if not item.ipv4 and not item.ipv6 and not reader.errors:
        reader.wrong("no subnet is named; give `ipv4` or `ipv6` a list with one name", path)
    return item


@lru_cache(maxsize=CACHE)
def subnet(text: str) -> NicSubnet | Invalid:
    """`ipam.spidernet.io/subnet`; the interface is eth0 if not given."""
    reader = Reader(path_of(SUBNET))
    members = reader.object(reader.json(text))
    interface = reader.text(members, "interface") or "eth0"
    _interface(reader, interface, set(), "")
    item = _subnet_item(reader, members, "", interface)
    return Invalid(errors=tuple(reader.errors)) if reader.errors else item


@lru_cache(maxsize=CACHE)
def subnets(text: str) -> tuple[NicSubnet, ...] | Invalid:
    """`ipam.spidernet.io/subnets`, one item per interface; a subnet may serve one interface only."""
    reader = Reader(path_of(SUBNETS))
    value = reader.json(text)
    out: list[NicSubnet] = []
    interfaces: set[str] = set()
    names: set[str] = set()
    for path, members in reader.objects(value):
        interface = reader.text(members, "interface", path)
        _interface(reader, interface, interfaces, path)
        item = _subnet_item(reader, members, path, interface)
        for name in filter(None, {item.ipv4, item.ipv6}):
            if name in names:
                reader.wrong(f"the subnet {name} is named for two interfaces", path)
            names.add(name)
        out.append(item)
    if isinstance(value, list) and not out:
        reader.wrong("value requires at least one item")
    return Invalid(errors=tuple(reader.errors)) if reader.errors else tuple(out)


@lru_cache(maxsize=CACHE)
def routes(text: str) -> tuple[Route, ...] | Invalid:
    """`ipam.spidernet.io/routes`: destination and gateway of one family each."""
    reader = Reader(path_of(ROUTES))
    out: list[Route] = []
    for path, members in reader.objects(reader.json(text)):
        route = Route(dst=reader.text(members, "dst", path), gw=reader.text(members, "gw", path))
        try:
            network = parse_cidr(route.dst)
            family, _ = parse_address(route.gw)
        except ValueError as error:
            reader.wrong(f"invalid route: {error}", path)
        else:
            if family != network.family:
                reader.wrong(f"invalid route: {route.dst} and {route.gw} are of different families", path)
        out.append(route)
    return Invalid(errors=tuple(reader.errors)) if reader.errors else tuple(out)


def default_route_nic(text: str) -> str | Invalid:
    """`ipam.spidernet.io/default-route-nic`: the name of an interface of the pod; empty is none chosen."""
    sentence = interface_error(text) if text else None
    return Invalid(errors=(invalid(path_of(DEFAULT_ROUTE_NIC), sentence),)) if sentence else text


def ip_number(text: str) -> IPNumber | Invalid:
    """`ipam.spidernet.io/ippool-ip-number`: `+N` or `N`."""
    flexible = text.startswith("+")
    digits = text[1:] if flexible else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        sentence = f"{text[:40]!r} must equal or greater than 0, with one leading + for a flexible number"
        return Invalid(errors=(invalid(path_of(IP_NUMBER), sentence),))
    return IPNumber(flexible=flexible, count=int(digits))


_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


def reclaim(text: str) -> bool | Invalid:
    """`ipam.spidernet.io/ippool-reclaim`: the spellings of Go's strconv.ParseBool."""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    return Invalid(errors=(invalid(path_of(RECLAIM), f'{text[:40]!r} must be "true" or "false"'),))


@lru_cache(maxsize=CACHE)
def default_pools(text: str, annotation: str) -> tuple[str, ...] | Invalid:
    """A namespace's `default-ipv4-ippool` or `default-ipv6-ippool`: a JSON array of names or patterns, possibly empty."""
    reader = Reader(path_of(annotation))
    names = _pool_names(reader, reader.json(text), "")
    return Invalid(errors=tuple(reader.errors)) if reader.errors else names


def namespace_defaults(annotations: Mapping[str, str]) -> PoolRequest | Invalid:
    """Both families of a namespace's default pools; empty where it has none."""
    found: dict[str, tuple[str, ...]] = {}
    errors: list[FieldError] = []
    for annotation in (DEFAULT_IPV4_IPPOOL, DEFAULT_IPV6_IPPOOL):
        text = annotations.get(annotation, "")
        value = default_pools(text, annotation) if text else ()
        if isinstance(value, Invalid):
            errors += value.errors
        else:
            found[annotation] = value
    if errors:
        return Invalid(errors=tuple(errors))
    return PoolRequest(ipv4=found[DEFAULT_IPV4_IPPOOL], ipv6=found[DEFAULT_IPV6_IPPOOL])
