"""The two announcement frames, read by scapy as the oracle."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from services.agent import announce

MACS = st.binary(min_size=6, max_size=6)


@given(MACS, st.integers(0, 2**32 - 1))
def test_gratuitous_arp(mac: bytes, number: int) -> None:
    address = IPv4Address(number)
    expected = Ether(src=mac.hex(":"), dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1,
        hwsrc=mac.hex(":"),
        psrc=str(address),
        hwdst="00:00:00:00:00:00",
        pdst=str(address),
        hwlen=6,
        plen=4,
    )
    assert announce.gratuitous_arp(mac, address.packed) == bytes(expected)


@given(MACS, st.integers(1, 2**128 - 1))
def test_neighbour_advertisement(mac: bytes, number: int) -> None:
    address = IPv6Address(number)
    expected = (
        Ether(src=mac.hex(":"), dst="33:33:00:00:00:01")
        / IPv6(src=str(address), dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt=str(address), R=0, S=0, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=mac.hex(":"))
    )
    assert announce.neighbour_advertisement(mac, address.packed) == bytes(expected)
