"""What the kernel shows of a pod's namespace and of the node's links, as `Observed`.

Owns the reading. Two ways to the same type: a glance (four ioctls) answers for the common case of a fresh namespace,
a full observation (dumps) for every other. Must not know what is desired beyond the names it is asked about.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct

from services.agent import netlink
from services.agent.netns import InsideSockets, Netns
from services.agent.route_socket import RouteSocket
from services.agent.state import Observed, ObservedAddress, ObservedLink, ObservedRoute, ParentLink

_SIOCGIFFLAGS, _SIOCGIFMTU, _SIOCGIFHWADDR, _SIOCGIFINDEX = 0x8913, 0x8921, 0x8927, 0x8933
"""include/uapi/linux/sockios.h"""
_IFREQ = struct.Struct("16si20x")
_MODE_NAMES = {number: name for name, number in netlink.MACVLAN_MODES.items()}
_ABSENT = (errno.ENODEV, errno.ENXIO)


def ifindex(route: RouteSocket, ifname: str) -> int:
    """0 where the socket's namespace has no such link."""
    return _request(route, _SIOCGIFINDEX, ifname) or 0


def mtu_bytes(route: RouteSocket, ifname: str) -> int:
    """0 where the socket's namespace has no such link."""
    return _request(route, _SIOCGIFMTU, ifname) or 0


def mac(route: RouteSocket, ifname: str) -> bytes:
    """Empty where the socket's namespace has no such link."""
    answer = _answer(route, _SIOCGIFHWADDR, ifname)
    return b"" if answer is None else answer[18:24]


def parent(route: RouteSocket, ifname: str) -> ParentLink | None:
    """A node's link by ioctls alone; kind and MAC stay empty, and it is taken for the lowest."""
    index = ifindex(route, ifname)
    flags = _request(route, _SIOCGIFFLAGS, ifname)
    mtu = mtu_bytes(route, ifname)
    if not index or flags is None:
        return None
    return ParentLink(
        ifname=ifname, ifindex=index, lower_ifindex=index, mtu_bytes=mtu, up=bool(flags & netlink.IFF_UP)
    )


def glance(
    node: InsideSockets, pod: InsideSockets, parents: frozenset[str], ifnames: frozenset[str]
) -> Observed | None:
    """Everything a plan needs where the parents are there and none of `ifnames` is yet; otherwise None."""
    found: list[ParentLink] = []
    for name in parents:
        link = parent(node.route, name)
        if link is None:
            return None
        found.append(link)
    if any(ifindex(pod.route, ifname) for ifname in ifnames):
        return None
    lo_flags = _request(pod.route, _SIOCGIFFLAGS, "lo") or 0
    lo = ObservedLink(
        ifname="lo", ifindex=1, kind="", mac="", mtu_bytes=0, up=bool(lo_flags & netlink.IFF_UP)
    )
    off = frozenset(("default", "lo")) if pod.ipv6_off else frozenset[str]()
    return Observed(parents=tuple(found), links=(lo,), ipv6_disabled=off)


def observe(node: InsideSockets, pod: InsideSockets, netns: Netns, node_netns: Netns) -> Observed:
    """All links of the node, and all links, addresses and main-table routes of the pod.

    Raises OSError and DumpInterruptedError.
    """
    links = pod_links(pod, node_netns)
    names = {link.ifindex: link.ifname for link in links}
    return Observed(
        parents=_parents(node),
        links=links,
        addresses=pod_addresses(pod, names),
        routes=_routes(pod, names),
        ipv6_disabled=netns.ipv6_disabled(("default", *names.values())),
    )


def pod_links(pod: InsideSockets, node_netns: Netns) -> tuple[ObservedLink, ...]:
    """All links of the pod. The dump comes first: by it the pod's namespace learns a number for the node's."""
    dumped = [netlink.link_fields(reply.payload) for reply in pod.route.dump(netlink.dump_links())]
    node_id = _node_id(pod, node_netns)
    return tuple(_link(index, flags, found, node_id) for index, flags, found in dumped)


def _request(route: RouteSocket, request: int, ifname: str) -> int | None:
    """The integer that an interface ioctl fills in, or None where there is no such link."""
    answer = _answer(route, request, ifname)
    if answer is None:
        return None
    value: int = _IFREQ.unpack(answer)[1]
    # ifr_flags is a short at the same place; no other of these values is negative or above 31 bits.
    return value & 0xFFFF if request == _SIOCGIFFLAGS else value


def _answer(route: RouteSocket, request: int, ifname: str) -> bytes | None:
    # Interface ioctls work on a socket of any family (net/socket.c, sock_do_ioctl).
    try:
        return fcntl.ioctl(route, request, _IFREQ.pack(ifname.encode(), 0))
    except OSError as cause:
        if cause.errno in _ABSENT:
            return None
        raise


def _node_id(pod: InsideSockets, node_netns: Netns) -> int:
    reply = pod.route.ask(netlink.get_nsid(netns_fd=node_netns.fd))
    return netlink.number(netlink.attributes(reply.payload, 4).get(netlink.NETNSA_NSID), -1)


def _kind_and_mode(found: netlink.Attributes) -> tuple[str, str]:
    about = netlink.attributes(found.get(netlink.IFLA_LINKINFO, b""))
    kind = about.get(netlink.IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    if kind != "macvlan":
        return kind, ""
    specifics = netlink.attributes(about.get(netlink.IFLA_INFO_DATA, b""))
    return kind, _MODE_NAMES.get(netlink.number(specifics.get(netlink.IFLA_MACVLAN_MODE)), "other")


def _name(found: netlink.Attributes) -> str:
    return found.get(netlink.IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")


def _link(index: int, flags: int, found: netlink.Attributes, node_id: int) -> ObservedLink:
    kind, mode = _kind_and_mode(found)
    on_node = node_id >= 0 and netlink.number(found.get(netlink.IFLA_LINK_NETNSID), -1) == node_id
    return ObservedLink(
        ifname=_name(found),
        ifindex=index,
        kind=kind,
        mac=found.get(netlink.IFLA_ADDRESS, b"").hex(":"),
        mtu_bytes=netlink.number(found.get(netlink.IFLA_MTU)),
        up=bool(flags & netlink.IFF_UP),
        parent_ifindex=netlink.number(found.get(netlink.IFLA_LINK)) if on_node else 0,
        mode=mode,
    )


def _parents(node: InsideSockets) -> tuple[ParentLink, ...]:
    parents: list[ParentLink] = []
    for reply in node.route.dump(netlink.dump_links()):
        index, flags, found = netlink.link_fields(reply.payload)
        kind, _ = _kind_and_mode(found)
        stacked = kind == "macvlan" and netlink.IFLA_LINK_NETNSID not in found
        parents.append(
            ParentLink(
                ifname=_name(found),
                ifindex=index,
                lower_ifindex=netlink.number(found.get(netlink.IFLA_LINK)) if stacked else index,
                mtu_bytes=netlink.number(found.get(netlink.IFLA_MTU)),
                up=bool(flags & netlink.IFF_UP),
                kind=kind,
                mac=found.get(netlink.IFLA_ADDRESS, b"").hex(":"),
            )
        )
    return tuple(parents)


def pod_addresses(pod: InsideSockets, names: dict[int, str]) -> tuple[ObservedAddress, ...]:
    """The addresses of those links (index → name)."""
    addresses: list[ObservedAddress] = []
    for reply in pod.route.dump(netlink.dump_addresses()):
        family, prefix_length, flags, index, found = netlink.address_fields(reply.payload)
        raw = found.get(netlink.IFA_LOCAL) or found.get(netlink.IFA_ADDRESS)
        if raw is None or index not in names or family not in (netlink.AF_INET, netlink.AF_INET6):
            continue
        unsettled = flags & (netlink.IFA_F_TENTATIVE | netlink.IFA_F_DADFAILED)
        addresses.append(
            ObservedAddress(
                ifname=names[index],
                address=f"{socket.inet_ntop(family, raw)}/{prefix_length}",
                settled=bool(flags & netlink.IFA_F_PERMANENT) and not unsettled,
                link_local=len(raw) == 16 and raw[0] == 0xFE and raw[1] & 0xC0 == 0x80,
            )
        )
    return tuple(addresses)


def _routes(pod: InsideSockets, names: dict[int, str]) -> tuple[ObservedRoute, ...]:
    routes: list[ObservedRoute] = []
    for reply in pod.route.dump(netlink.dump_routes()):
        family, prefix_length, table, protocol, kind, flags, found = netlink.route_fields(reply.payload)
        index = netlink.number(found.get(netlink.RTA_OIF))
        if (
            family not in (netlink.AF_INET, netlink.AF_INET6)
            or table != netlink.RT_TABLE_MAIN
            or kind != netlink.RTN_UNICAST
            or protocol == netlink.RTPROT_KERNEL
            or flags & netlink.RTM_F_CLONED
            or index not in names
        ):
            continue
        gateway = found.get(netlink.RTA_GATEWAY)
        target = found.get(netlink.RTA_DST) or bytes(16 if family == netlink.AF_INET6 else 4)
        routes.append(
            ObservedRoute(
                ifname=names[index],
                dst=f"{socket.inet_ntop(family, target)}/{prefix_length}",
                gateway=socket.inet_ntop(family, gateway) if gateway else "",
            )
        )
    return tuple(routes)
