"""Our packing of netlink messages against pyroute2's encoder, and our parser against its decoder."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from services.agent import netlink

MACS = st.binary(min_size=6, max_size=6)
IFNAMES = st.text("abcdefghijklmnop0123456789.-", min_size=1, max_size=15)
INDEXES = st.integers(1, 2**31 - 1)
MTUS = st.one_of(st.just(0), st.integers(68, 65535))
ADDRESSES = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1).map(lambda n: IPv4Address(n).packed), st.integers(0, 32)),
    st.tuples(st.integers(0, 2**128 - 1).map(lambda n: IPv6Address(n).packed), st.integers(0, 128)),
)


def decoded(kind: type, message: bytes) -> object:
    parsed = kind(message)
    parsed.decode()
    return parsed


def text(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


@given(
    ifname=IFNAMES,
    index=INDEXES,
    mac=MACS,
    mtu=MTUS,
    mode=st.sampled_from([*netlink.MACVLAN_MODES]),
    chosen=st.sampled_from([0, 1 << 29]),
)
def test_create_macvlan(ifname: str, index: int, mac: bytes, mtu: int, mode: str, chosen: int) -> None:
    message = netlink.create_macvlan(
        ifname=ifname, parent_ifindex=index, mac=mac, mtu_bytes=mtu, mode=mode, netns_fd=7, ifindex=chosen
    )
    oracle = ifinfmsg()
    oracle["header"]["type"] = netlink.RTM_NEWLINK
    oracle["header"]["flags"] = 0x601
    oracle["index"] = chosen
    oracle["flags"] = oracle["change"] = 1
    oracle["attrs"] = [
        ("IFLA_IFNAME", ifname),
        ("IFLA_LINK", index),
        *([("IFLA_MTU", mtu)] if mtu else []),
        ("IFLA_ADDRESS", mac.hex(":")),
        ("IFLA_NET_NS_FD", 7),
        (
            "IFLA_LINKINFO",
            {
                "attrs": [
                    ("IFLA_INFO_KIND", "macvlan"),
                    ("IFLA_INFO_DATA", {"attrs": [("IFLA_MACVLAN_MODE", mode)]}),
                ]
            },
        ),
    ]
    assert message == _encoded(oracle)
    parsed = decoded(ifinfmsg, message)
    assert parsed.get_attr("IFLA_IFNAME") == ifname
    assert parsed.get_attr("IFLA_ADDRESS") == mac.hex(":")
    assert parsed.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA").get_attr("IFLA_MACVLAN_MODE") == mode


@given(index=INDEXES, address=ADDRESSES, delete=st.booleans())
def test_addresses(index: int, address: tuple[bytes, int], delete: bool) -> None:
    packed, prefix_length = address
    build = netlink.delete_address if delete else netlink.add_address
    message = build(ifindex=index, address=packed, prefix_length=prefix_length)
    parsed = decoded(ifaddrmsg, message)
    assert (parsed["index"], parsed["prefixlen"]) == (index, prefix_length)
    assert parsed["family"] == (socket.AF_INET if len(packed) == 4 else socket.AF_INET6)
    assert parsed["flags"] == (0 if len(packed) == 4 else netlink.IFA_F_NODAD)
    assert parsed.get_attr("IFA_LOCAL") == parsed.get_attr("IFA_ADDRESS") == text(packed)
    oracle = ifaddrmsg()
    oracle["header"]["type"], oracle["header"]["flags"] = parsed["header"]["type"], parsed["header"]["flags"]
    for field in ("index", "prefixlen", "family", "flags"):
        oracle[field] = parsed[field]
    oracle["attrs"] = [("IFA_LOCAL", text(packed)), ("IFA_ADDRESS", text(packed))]
    if len(packed) == 4 and prefix_length < 31:
        last = int.from_bytes(packed, "big") | (2 ** (32 - prefix_length) - 1)
        oracle["attrs"] += [("IFA_BROADCAST", str(IPv4Address(last)))]
    assert message == _encoded(oracle)
    # Our own parser reads what we pack.
    family, length, flags, found_index, found = netlink.address_fields(message[16:])
    assert (family, length, flags, found_index) == (
        parsed["family"],
        prefix_length,
        parsed["flags"],
        index,
    )
    assert found[netlink.IFA_LOCAL] == packed


@given(
    index=INDEXES, target=ADDRESSES, with_gateway=st.booleans(), on_link=st.booleans(), delete=st.booleans()
)
def test_routes(
    index: int, target: tuple[bytes, int], with_gateway: bool, on_link: bool, delete: bool
) -> None:
    packed, prefix_length = target
    gateway = bytes([1]) * len(packed) if with_gateway else b""
    build = netlink.delete_route if delete else netlink.add_route
    message = build(
        ifindex=index, target=packed, prefix_length=prefix_length, gateway=gateway, on_link=on_link
    )
    oracle = rtmsg()
    oracle["header"]["type"] = netlink.RTM_DELROUTE if delete else netlink.RTM_NEWROUTE
    oracle["header"]["flags"] = 0x1 if delete else 0x601
    oracle["family"] = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    oracle["dst_len"], oracle["table"], oracle["proto"], oracle["type"] = prefix_length, 254, 4, 1
    oracle["scope"] = 253 if len(packed) == 4 and not gateway else 0
    oracle["flags"] = netlink.RTNH_F_ONLINK if on_link else 0
    oracle["attrs"] = [
        *([("RTA_DST", text(packed))] if prefix_length else []),
        *([("RTA_GATEWAY", text(gateway))] if gateway else []),
        ("RTA_OIF", index),
    ]
    assert message == _encoded(oracle)


@given(index=INDEXES, up=st.sampled_from([None, True, False]), mtu=MTUS)
def test_set_and_delete_link(index: int, up: bool | None, mtu: int) -> None:
    parsed = decoded(ifinfmsg, netlink.set_link(ifindex=index, up=up, mtu_bytes=mtu))
    assert (parsed["index"], parsed["flags"], parsed["change"]) == (
        index,
        int(up is True),
        int(up is not None),
    )
    assert parsed.get_attr("IFLA_MTU") == (mtu or None)
    gone = decoded(ifinfmsg, netlink.delete_link(ifindex=index))
    assert (gone["header"]["type"], gone["index"]) == (netlink.RTM_DELLINK, index)


@given(st.lists(st.binary(max_size=40).map(lambda body: struct.pack("=IHHII", 16 + len(body) // 4 * 4, 20, 1, 0, 0) + body[: len(body) // 4 * 4]), min_size=1, max_size=10), st.integers(1, 2**31))  # fmt: skip
def test_a_batch_numbers_its_messages_and_asks_for_the_last_answer(messages: list[bytes], first: int) -> None:
    found = [*netlink.replies(bytes(netlink.batch(messages, first)))]
    assert [reply.sequence for reply in found] == [*range(first, first + len(messages))]
    assert [bool(reply.flags & netlink.NLM_F_ACK) for reply in found] == [False] * (len(messages) - 1) + [
        True
    ]
    assert [reply.payload for reply in found] == [message[16:] for message in messages]


@given(st.binary(max_size=200))
def test_the_parser_is_total(noise: bytes) -> None:
    netlink.attributes(noise)
    try:
        for reply in netlink.replies(noise):
            assert len(reply.payload) <= len(noise)
    except ValueError as refused:
        assert "netlink message of" in str(refused)


@pytest.mark.parametrize(
    ("flags", "payload", "expected"),
    [
        (0x100, struct.pack("=iIHHII", 0, 40, 16, 5, 7, 0), (0, "")),
        (
            0x300,
            struct.pack("=iIHHII", -22, 40, 16, 5, 7, 0) + struct.pack("=HH8s", 12, 1, b"No way.\0"),
            (22, "No way."),
        ),
        (
            0x200,
            struct.pack("=iIHHII4s", -17, 20, 16, 5, 7, 0, b"orig") + struct.pack("=HH4s", 7, 1, b"Ow\0"),
            (17, "Ow"),
        ),
    ],
)
def test_errors_carry_the_kernels_words(flags: int, payload: bytes, expected: tuple[int, str]) -> None:
    assert netlink.error(netlink.Reply(netlink.NLMSG_ERROR, flags, 7, payload)) == expected


def _encoded(message: object) -> bytes:
    message.encode()
    return bytes(message.data)
