"""Route netlink as bytes: the few messages this agent sends, and a parser for the dumps it reads.

Owns message layout. Pure: packs and unpacks, opens nothing. Must not know pods, plans or what a message is for.
Written by hand because a general encoder costs more than the kernel's own work on the path of an attach.
Sources: include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h, RFC 3549.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNSID, RTM_GETNSID = 88, 90

IFF_UP = 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_LINKINFO = 1, 3, 4, 5, 18
IFLA_GROUP, IFLA_NET_NS_FD, IFLA_LINK_NETNSID = 27, 28, 37
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_MACVLAN_MODE = 1
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_TENTATIVE, IFA_F_PERMANENT = 0x02, 0x08, 0x40, 0x80
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN = 254
RTPROT_KERNEL, RTPROT_STATIC = 2, 4
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTN_UNICAST = 1
RTNH_F_ONLINK = 4
RTM_F_CLONED = 0x200
NETNSA_NSID, NETNSA_FD = 1, 3
NLMSGERR_ATTR_MSG = 1

AF_INET, AF_INET6 = 2, 10
"""The kernel's numbers; the socket module would be an import of a shell module."""

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_I32 = struct.Struct("=i")
_CREATE = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

Attributes = dict[int, bytes]


def _attribute(kind: int, payload: bytes) -> bytes:
    return _ATTRIBUTE.pack(len(payload) + 4, kind) + payload + _PADDING[len(payload) & 3]


def _message(kind: int, flags: int, payload: bytes) -> bytes:
    return _HEADER.pack(16 + len(payload), kind, flags, 0, 0) + payload


def create_macvlan(
    *,
    ifname: str,
    parent_ifindex: int,
    mac: bytes,
    mtu_bytes: int,
    mode: str,
    netns_fd: int,
    ifindex: int = 0,
) -> bytes:
    """RTM_NEWLINK that makes the link inside the namespace `netns_fd`, named, addressed and up.

    One message instead of create, move, rename, up: a move waits for RCU grace periods (some 18 ms).
    `mtu_bytes` 0 leaves the parent's (drivers/net/macvlan.c, macvlan_common_newlink). `ifindex` 0 lets the kernel choose.
    """
    kind_and_mode = _attribute(IFLA_INFO_KIND, b"macvlan\0") + _attribute(
        IFLA_INFO_DATA, _attribute(IFLA_MACVLAN_MODE, _U32.pack(MACVLAN_MODES[mode]))
    )
    return _message(
        RTM_NEWLINK,
        _CREATE,
        _LINK.pack(0, 0, ifindex, IFF_UP, IFF_UP)
        + _attribute(IFLA_IFNAME, ifname.encode() + b"\0")
        + _attribute(IFLA_LINK, _U32.pack(parent_ifindex))
        + (_attribute(IFLA_MTU, _U32.pack(mtu_bytes)) if mtu_bytes else b"")
        + _attribute(IFLA_ADDRESS, mac)
        + _attribute(IFLA_NET_NS_FD, _U32.pack(netns_fd))
        + _attribute(IFLA_LINKINFO, kind_and_mode),
    )


def set_link(*, ifindex: int, up: bool | None = None, mtu_bytes: int = 0, group: int = 0) -> bytes:
    """RTM_NEWLINK on an existing link: administrative state, MTU, group, or some of them."""
    return _message(
        RTM_NEWLINK,
        NLM_F_REQUEST,
        _LINK.pack(0, 0, ifindex, IFF_UP if up else 0, 0 if up is None else IFF_UP)
        + (_attribute(IFLA_MTU, _U32.pack(mtu_bytes)) if mtu_bytes else b"")
        + (_attribute(IFLA_GROUP, _U32.pack(group)) if group else b""),
    )


def delete_group(*, group: int) -> bytes:
    """RTM_DELLINK of all links of the group (net/core/rtnetlink.c, rtnl_group_dellink): one grace period for all of them."""
    return _message(
        RTM_DELLINK, NLM_F_REQUEST, _LINK.pack(0, 0, 0, 0, 0) + _attribute(IFLA_GROUP, _U32.pack(group))
    )


def delete_link(*, ifindex: int) -> bytes:
    return _message(RTM_DELLINK, NLM_F_REQUEST, _LINK.pack(0, 0, ifindex, 0, 0))


def add_address(*, ifindex: int, address: bytes, prefix_length: int) -> bytes:
    """RTM_NEWADDR; IPv6 without duplicate address detection, which would hold the address back for 1–2 s."""
    return _address(RTM_NEWADDR, _CREATE, ifindex, address, prefix_length)


def delete_address(*, ifindex: int, address: bytes, prefix_length: int) -> bytes:
    return _address(RTM_DELADDR, NLM_F_REQUEST, ifindex, address, prefix_length)


def _address(kind: int, flags: int, ifindex: int, address: bytes, prefix_length: int) -> bytes:
    if len(address) == 16:
        return _message(
            kind,
            flags,
            _ADDRESS.pack(AF_INET6, prefix_length, IFA_F_NODAD, RT_SCOPE_UNIVERSE, ifindex)
            + _attribute(IFA_LOCAL, address)
            + _attribute(IFA_ADDRESS, address),
        )
    broadcast = b""
    if prefix_length < 31:  # RFC 3021: a /31 has none
        host_bits = (1 << (32 - prefix_length)) - 1
        broadcast = _attribute(IFA_BROADCAST, (int.from_bytes(address, "big") | host_bits).to_bytes(4, "big"))
    return _message(
        kind,
        flags,
        _ADDRESS.pack(AF_INET, prefix_length, 0, RT_SCOPE_UNIVERSE, ifindex)
        + _attribute(IFA_LOCAL, address)
        + _attribute(IFA_ADDRESS, address)
        + broadcast,
    )


def add_route(*, ifindex: int, target: bytes, prefix_length: int, gateway: bytes, on_link: bool) -> bytes:
    """RTM_NEWROUTE in the main table. Empty `gateway`: the target is on the link itself.

    `on_link` lets the gateway lie outside every subnet of the link (RTNH_F_ONLINK, IPv6 since Linux 4.16).
    """
    return _route(RTM_NEWROUTE, _CREATE, ifindex, target, prefix_length, gateway, on_link)


def delete_route(*, ifindex: int, target: bytes, prefix_length: int, gateway: bytes, on_link: bool) -> bytes:
    return _route(RTM_DELROUTE, NLM_F_REQUEST, ifindex, target, prefix_length, gateway, on_link)


def _route(
    kind: int, flags: int, ifindex: int, target: bytes, prefix_length: int, gateway: bytes, on_link: bool
) -> bytes:
    # An IPv6 route has no scope; an IPv4 one without a gateway must be of scope link.
    scope = RT_SCOPE_UNIVERSE if gateway or len(target) == 16 else RT_SCOPE_LINK
    return _message(
        kind,
        flags,
        _ROUTE.pack(
            AF_INET6 if len(target) == 16 else AF_INET,
            prefix_length,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_STATIC,
            scope,
            RTN_UNICAST,
            RTNH_F_ONLINK if on_link else 0,
        )
        + (_attribute(RTA_DST, target) if prefix_length else b"")
        + (_attribute(RTA_GATEWAY, gateway) if gateway else b"")
        + _attribute(RTA_OIF, _U32.pack(ifindex)),
    )


def dump_links() -> bytes:
    return _message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, _LINK.pack(0, 0, 0, 0, 0))


def dump_addresses() -> bytes:
    return _message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0))


def dump_routes() -> bytes:
    return _message(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))


def get_nsid(*, netns_fd: int) -> bytes:
    """RTM_GETNSID: by which number the asking namespace knows another one (IFLA_LINK_NETNSID names it so)."""
    return _message(
        RTM_GETNSID, NLM_F_REQUEST, struct.pack("=Bxxx", 0) + _attribute(NETNSA_FD, _U32.pack(netns_fd))
    )


def batch(messages: Sequence[bytes], first_sequence: int) -> bytearray:
    """Joins messages for one send, numbers them, and asks for an acknowledgement of the last only.

    A message that fails is answered whether it asks or not (net/netlink/af_netlink.c, netlink_rcv_skb), and the
    rest is still carried out: so the last one's answer means that all answers are there.
    """
    joined = bytearray()
    start = 0
    for offset, message in enumerate(messages):
        start = len(joined)
        joined += message
        _U32.pack_into(joined, start + 8, first_sequence + offset)
    joined[start + 6] |= NLM_F_ACK
    return joined


def numbered(message: bytes, sequence: int) -> bytes:
    """The same message with its sequence number, for one that is sent alone and answered by its objects."""
    return message[:8] + _U32.pack(sequence) + message[12:]


class Reply:
    """One received message: header fields, and the payload that its kind gives a meaning to."""

    __slots__ = ("flags", "kind", "payload", "sequence")

    def __init__(self, kind: int, flags: int, sequence: int, payload: bytes) -> None:
        self.kind = kind
        self.flags = flags
        self.sequence = sequence
        self.payload = payload


def replies(buffer: bytes) -> Iterator[Reply]:
    """The messages of one datagram. Raises ValueError on a length that does not fit."""
    at = 0
    while at + 16 <= len(buffer):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(buffer, at)
        if length < 16 or at + length > len(buffer):
            raise ValueError(f"netlink message of {length} bytes at {at} of {len(buffer)}")
        yield Reply(kind, flags, sequence, buffer[at + 16 : at + length])
        at += (length + 3) & ~3


def attributes(payload: bytes, at: int = 0) -> Attributes:
    """Attributes by kind (nested and byte-order flags taken off); the last of a kind wins."""
    found: Attributes = {}
    while at + 4 <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = payload[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def error(reply: Reply) -> tuple[int, str]:
    """`(errno, the kernel's own words)` of an NLMSG_ERROR; errno 0 is an acknowledgement.

    The words come with NETLINK_EXT_ACK and may be empty.
    """
    (code,) = _I32.unpack_from(reply.payload)
    if not reply.flags & NLM_F_ACK_TLVS:
        return -code, ""
    (original_bytes,) = _U32.unpack_from(reply.payload, 4)
    start = 20 if reply.flags & NLM_F_CAPPED else 4 + ((original_bytes + 3) & ~3)
    words = attributes(reply.payload, start).get(NLMSGERR_ATTR_MSG, b"")
    return -code, words.rstrip(b"\0").decode(errors="replace")


def number(attribute: bytes | None, default: int = 0) -> int:
    """A 32-bit attribute, or `default` where it is absent or short."""
    return _I32.unpack_from(attribute)[0] if attribute is not None and len(attribute) >= 4 else default


def link_fields(payload: bytes) -> tuple[int, int, Attributes]:
    """`(ifindex, IFF flags, attributes)` of an RTM_NEWLINK."""
    _, _, ifindex, flags, _ = _LINK.unpack_from(payload)
    return ifindex, flags, attributes(payload, 16)


def address_fields(payload: bytes) -> tuple[int, int, int, int, Attributes]:
    """`(family, prefix length, IFA flags, ifindex, attributes)` of an RTM_NEWADDR."""
    family, prefix_length, flags, _, ifindex = _ADDRESS.unpack_from(payload)
    found = attributes(payload, 8)
    return family, prefix_length, number(found.get(IFA_FLAGS), flags), ifindex, found


def route_fields(payload: bytes) -> tuple[int, int, int, int, int, int, Attributes]:
    """`(family, prefix length, table, protocol, type, flags, attributes)` of an RTM_NEWROUTE."""
    family, prefix_length, _, _, table, protocol, _, kind, flags = _ROUTE.unpack_from(payload)
    found = attributes(payload, 12)
    return family, prefix_length, number(found.get(RTA_TABLE), table), protocol, kind, flags, found
