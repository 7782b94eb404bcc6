"""What has to change in a pod's network namespace: desired interfaces and observed facts in, ops out.

Owns the decision about every link, address and route that we set. Pure: a plan is data that can be printed, compared
and tested without a kernel. Must not know how an op is carried out.

ADD executes the plan, CHECK demands that it is empty, DEL plans for nothing desired: three verbs, one function.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

import msgspec

from services.agent.op import (
    AddAddress,
    AddRoute,
    Announce,
    CreateMacvlan,
    DeleteLink,
    EnableIpv6,
    Op,
    SetMtu,
    SetUp,
)
from services.agent.state import (
    DesiredInterface,
    Observed,
    ObservedAddress,
    ObservedLink,
    ObservedRoute,
    OwnedLink,
    ParentLink,
)

_Entry = TypeVar("_Entry", ObservedAddress, ObservedRoute)
_REMEMBERED = 1024
"""Texts whose meaning is kept: the gateways and subnets of a node's pools come again with each pod."""
IPV6_MTU_MIN_BYTES = 1280
"""RFC 8200 §5; Linux silently switches IPv6 off on a link below it."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ops in the order of execution; empty where observed is as desired."""

    ops: tuple[Op, ...] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Nothing can be planned: `name` is a row of the error table, the sentence says what was found."""

    name: str
    sentence: str


def plan(
    desired: tuple[DesiredInterface, ...],
    observed: Observed,
    *,
    owned: Iterable[OwnedLink] = (),
    spare_extra: bool = False,
) -> Plan | Refused:
    """What makes `observed` into `desired`: deletions, links, settings, addresses, routes.

    A link counts as ours if it is a macvlan with our MAC: one that a killed earlier try left is finished, or rebuilt
    where its parent or mode differ. `owned` links that are not desired are deleted, found by MAC under whatever name.
    A link of ours with addresses that we did not ask for (a lease of before), or with another route in the place of
    ours, is rebuilt too: taking a primary IPv4 address takes routes and other addresses with it. With `spare_extra` it
    is not (a CHECK must not fail because the pod added an address). A macvlan of another MAC that has an address of this very
    interface was made by an agent whose journal was lost: it is rebuilt. Other links that are not ours, and their routes, are
    never touched.
    """
    deletions: list[Op] = []
    creations: list[Op] = []
    settings: list[Op] = []
    addresses: list[Op] = []
    routes: list[Op] = []

    links = {link.ifname: link for link in observed.links}
    wanted = {interface.mac.lower() for interface in desired}
    for owner in owned:
        if owner.mac.lower() in wanted:
            continue
        deletions += [
            DeleteLink(ifname=link.ifname, mac=link.mac)
            for link in observed.links
            if _is_ours(link, owner.mac)
        ]

    lo = links.get("lo")
    if desired and lo is not None and not lo.up:
        settings.append(SetUp(ifname="lo"))

    for interface in desired:
        parent = _usable_parent(interface, observed)
        if isinstance(parent, Refused):
            return parent
        mtu_bytes = interface.mtu_bytes or parent.mtu_bytes
        link = links.get(interface.ifname)
        if link is not None and not spare_extra and _is_forgotten(interface, link, observed):
            deletions.append(DeleteLink(ifname=link.ifname, mac=link.mac))
            link = None
        if link is not None and not _is_ours(link, interface.mac):
            kind = link.kind or "device"
            return Refused(
                name="link_exists",
                sentence=f"the pod already has a link {link.ifname!r} ({kind}, {link.mac or 'no MAC'}) that is not ours",
            )
        if link is not None and _must_be_rebuilt(interface, link, parent, observed, spare_extra=spare_extra):
            deletions.append(DeleteLink(ifname=link.ifname, mac=link.mac))
            link = None
        if link is None:
            creations.append(
                CreateMacvlan(
                    ifname=interface.ifname,
                    parent=interface.parent,
                    parent_ifindex=parent.ifindex,
                    mac=interface.mac,
                    mtu_bytes=interface.mtu_bytes,
                    mode=interface.mode,
                )
            )
        else:
            if link.mtu_bytes != mtu_bytes:
                settings.append(SetMtu(ifname=link.ifname, mtu_bytes=mtu_bytes, was_bytes=link.mtu_bytes))
            if not link.up:
                settings.append(SetUp(ifname=link.ifname))

        settings += _ipv6(interface, observed.ipv6_disabled, fresh=link is None)
        there = () if link is None else tuple(e.address for e in _on(link.ifname, observed.addresses))
        addresses += [
            AddAddress(ifname=interface.ifname, address=text)
            for entry in interface.addresses
            if (text := _address_text(entry.address)) not in there
        ]
        routes += _routes(interface, () if link is None else _on(link.ifname, observed.routes))
    if any(isinstance(op, EnableIpv6) for op in settings) and "lo" in observed.ipv6_disabled:
        settings.append(EnableIpv6(ifname="lo"))
    return Plan(ops=(*deletions, *creations, *settings, *addresses, *routes))


def announcements(desired: tuple[DesiredInterface, ...]) -> tuple[Announce, ...]:
    """What an ADD sends when the plan is carried out, empty or not: an earlier try may have died before it."""
    return tuple(
        Announce(ifname=interface.ifname, mac=interface.mac, address=str(_split(entry.address)[0]))
        for interface in desired
        for entry in interface.addresses
    )


def _is_ours(link: ObservedLink, mac: str) -> bool:
    return link.kind == "macvlan" and link.mac.lower() == mac.lower()


def _is_forgotten(interface: DesiredInterface, link: ObservedLink, observed: Observed) -> bool:
    wanted = {_address_text(entry.address) for entry in interface.addresses}
    return (
        link.kind == "macvlan"
        and not _is_ours(link, interface.mac)
        and any(entry.address in wanted for entry in _on(link.ifname, observed.addresses))
    )


def _usable_parent(interface: DesiredInterface, observed: Observed) -> ParentLink | Refused:
    parent = next((link for link in observed.parents if link.ifname == interface.parent), None)
    if parent is None:
        there = ", ".join(sorted(link.ifname for link in observed.parents)) or "none"
        return Refused(
            name="parent_missing",
            sentence=f"the node has no link {interface.parent!r} for {interface.ifname!r}; its links: {there}",
        )
    if not parent.up:
        return Refused(
            name="parent_missing",
            sentence=f"the node's link {parent.ifname!r} is down; set it up before pods are attached to it",
        )
    if interface.mtu_bytes > parent.mtu_bytes:
        return Refused(
            name="config_invalid",
            sentence=f"mtu {interface.mtu_bytes} of {interface.ifname!r} is above {parent.mtu_bytes}, that of its parent {parent.ifname!r}",
        )
    mtu_bytes = interface.mtu_bytes or parent.mtu_bytes
    if mtu_bytes < IPV6_MTU_MIN_BYTES and _wants_ipv6(interface):
        return Refused(
            name="config_invalid",
            sentence=f"mtu {mtu_bytes} of {interface.ifname!r} is below {IPV6_MTU_MIN_BYTES}, the least for IPv6",
        )
    return parent


def _wants_ipv6(interface: DesiredInterface) -> bool:
    return any(":" in entry.address for entry in interface.addresses)


def _ipv6(interface: DesiredInterface, disabled: frozenset[str], *, fresh: bool) -> list[Op]:
    """Per link, not for the whole namespace: other links of the pod keep what their owner chose."""
    if not _wants_ipv6(interface) or not disabled:
        return []
    found = "default" if fresh else interface.ifname
    return [EnableIpv6(ifname=interface.ifname)] if found in disabled else []


def _must_be_rebuilt(
    interface: DesiredInterface,
    link: ObservedLink,
    parent: ParentLink,
    observed: Observed,
    *,
    spare_extra: bool,
) -> bool:
    """Whether our link is beyond repair in place."""
    return (
        link.parent_ifindex != parent.lower_ifindex
        or link.mode != interface.mode
        or _spoiled(interface, _on(link.ifname, observed.addresses), spare_extra=spare_extra)
        or (not spare_extra and _barred(interface, _on(link.ifname, observed.routes)))
    )


def _spoiled(interface: DesiredInterface, present: tuple[ObservedAddress, ...], *, spare_extra: bool) -> bool:
    """Whether the link has a wanted address that never became usable, or a lasting one that is not wanted."""
    wanted = {_address_text(entry.address) for entry in interface.addresses}
    return any(
        not entry.settled if entry.address in wanted else entry.settled and not spare_extra
        for entry in present
        if not entry.link_local
    )


def _barred(interface: DesiredInterface, present: tuple[ObservedRoute, ...]) -> bool:
    """Whether a missing route of ours has its place taken by another on the link, as by a router advertisement."""
    there = {(route.dst, route.gateway) for route in present}
    missing = {dst for dst, gateway in _wanted_routes(interface) if (dst, gateway) not in there}
    return any(route.dst in missing for route in present)


def _routes(interface: DesiredInterface, present: tuple[ObservedRoute, ...]) -> list[Op]:
    there = {(route.dst, route.gateway) for route in present}
    subnets = [_subnet(entry.address) for entry in interface.addresses]
    return [
        AddRoute(
            ifname=interface.ifname,
            dst=dst,
            gateway=gateway,
            on_link=bool(gateway) and not _reachable(gateway, subnets),
        )
        for dst, gateway in _wanted_routes(interface)
        if (dst, gateway) not in there
    ]


def _wanted_routes(interface: DesiredInterface) -> tuple[tuple[str, str], ...]:
    """`(destination, gateway)`, each once, without those that the kernel makes by itself for a subnet."""
    wanted: list[tuple[str, str]] = []
    if interface.default_route:
        for entry in interface.addresses:
            if entry.gateway:
                wanted.append(("::/0" if ":" in entry.gateway else "0.0.0.0/0", str(_ip(entry.gateway))))
    for route in interface.routes:
        wanted.append((_network_text(route.dst), str(_ip(route.gw)) if route.gw else ""))
    connected = {(_network_text(entry.address), "") for entry in interface.addresses}
    return tuple(entry for entry in dict.fromkeys(wanted) if entry not in connected)


def _reachable(gateway: str, subnets: list[tuple[int, int, int]]) -> bool:
    """Whether a subnet of the link holds the gateway; a link-local IPv6 gateway always is on the link."""
    ip = _ip(gateway)
    return (ip.version == 6 and ip.is_link_local) or any(
        version == ip.version and int(ip) >> host_bits == network for version, host_bits, network in subnets
    )


@lru_cache(_REMEMBERED)
def _subnet(text: str) -> tuple[int, int, int]:
    ip, prefix_length = _split(text)
    host_bits = ip.max_prefixlen - prefix_length
    return ip.version, host_bits, int(ip) >> host_bits


def _split(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    address, slash, prefix_length = text.partition("/")
    ip = _ip(address)
    return ip, int(prefix_length) if slash else ip.max_prefixlen


@lru_cache(_REMEMBERED)
def _ip(text: str) -> IPv4Address | IPv6Address:
    return IPv6Address(text) if ":" in text else IPv4Address(text)


@lru_cache(_REMEMBERED)
def _address_text(text: str) -> str:
    ip, prefix_length = _split(text)
    return f"{ip}/{prefix_length}"


@lru_cache(_REMEMBERED)
def _network_text(text: str) -> str:
    ip, prefix_length = _split(text)
    host_bits = ip.max_prefixlen - prefix_length
    network = int(ip) >> host_bits << host_bits
    return f"{IPv6Address(network) if ip.version == 6 else IPv4Address(network)}/{prefix_length}"


def _on(ifname: str, entries: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    return tuple(entry for entry in entries if entry.ifname == ifname)
