"""Announcements of a new address to the neighbours: the frames, and the closing of the sockets that sent them.

Owns both frames and the threads that close packet sockets. Must not know plans or namespaces.
Sources: RFC 5227 §3 (ARP announcement), RFC 4861 §7.2.6 and §4.4 (unsolicited neighbour advertisement), RFC 2464 §7.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading

_ARP = struct.Struct("!6s6sH HHBBH 6s4s6s4s")
_ETHERNET = struct.Struct("!6s6sH")
_IPV6 = struct.Struct("!IHBB16s16s")
_ADVERTISEMENT = struct.Struct("!BBHI16sBB6s")

_ETH_P_ARP, _ETH_P_IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
_ICMPV6 = 58
_NEIGHBOUR_ADVERTISEMENT = 136
_OVERRIDE = 0x20000000
_TARGET_LINK_LAYER = 2


def gratuitous_arp(mac: bytes, address: bytes) -> bytes:
    """A broadcast ARP request for the own address: sender and target address the same, target MAC zero."""
    return _ARP.pack(_BROADCAST, mac, _ETH_P_ARP, 1, 0x0800, 6, 4, 1, mac, address, bytes(6), address)


def neighbour_advertisement(mac: bytes, address: bytes) -> bytes:
    """An unsolicited advertisement to all nodes: override, not solicited, target link-layer option."""
    body = _ADVERTISEMENT.pack(_NEIGHBOUR_ADVERTISEMENT, 0, 0, _OVERRIDE, address, _TARGET_LINK_LAYER, 1, mac)
    pseudo_header = address + _ALL_NODES + struct.pack("!II", len(body), _ICMPV6)
    checksum = _internet_checksum(pseudo_header + body)
    body = body[:2] + checksum.to_bytes(2, "big") + body[4:]
    # Hop limit 255: receivers drop neighbour discovery with any other (RFC 4861 §7.1.2).
    header = _IPV6.pack(6 << 28, len(body), _ICMPV6, 255, address, _ALL_NODES)
    return _ETHERNET.pack(_ALL_NODES_MAC, mac, _ETH_P_IPV6) + header + body


def send(packet: socket.socket, ifname: str, mac: bytes, address: bytes) -> None:
    """Sends the announcement that fits the family of `address`. Raises OSError."""
    if len(address) == 4:
        packet.sendto(gratuitous_arp(mac, address), (ifname, _ETH_P_ARP))
    else:
        packet.sendto(neighbour_advertisement(mac, address), (ifname, _ETH_P_IPV6))


def _internet_checksum(content: bytes) -> int:
    """RFC 1071; `content` has even length."""
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class PacketCloser:
    """Closes packet sockets on threads of its own.

    net/packet/af_packet.c, packet_release, waits for an RCU grace period: some 15 ms that no attach should pay.
    Grace periods of several closers overlap. Bounded: with `_WAITING_MAX` waiting, the caller closes its own.
    """

    _THREADS = 4
    _WAITING_MAX = 256

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[socket.socket | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"packet-closer-{number}", daemon=True)
            for number in range(self._THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def close_later(self, packet: socket.socket) -> None:
        if self._waiting.qsize() < self._WAITING_MAX:
            self._waiting.put(packet)
        else:
            packet.close()

    def close(self) -> None:
        """Returns when every socket handed over is closed."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (packet := self._waiting.get()) is not None:
            packet.close()
            # Not to be kept alive by this frame until the next one comes.
            del packet
