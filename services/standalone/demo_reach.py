"""Proof on the wire: echo requests between pods, and the announcements that the switch really saw.

Owns the packets of the demo. Must not know how a pod got its addresses.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from services.standalone import demo_netns

_ETH_P_ALL = 0x0003
_ETH_P_ARP = 0x0806
_ETH_P_IPV6 = 0x86DD
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_MR_PROMISC = 1
_IDENTIFIER = 0x0B0E
_ALL_NODES = ipaddress.IPv6Address("ff02::1")

Pair = tuple[str, str]
"""Source and target, both addresses of one family."""


def _checksum(packet: bytes) -> int:
    """RFC 1071; for ICMPv4 only, the kernel does ICMPv6's."""
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _echo_request(family: int, sequence: int) -> bytes:
    """RFC 792 and RFC 4443 §4.1, without a payload."""
    kind = 8 if family == 4 else 128
    body = struct.pack("!BBHHH", kind, 0, 0, _IDENTIFIER, sequence)
    if family == 6:
        return body
    return struct.pack("!BBHHH", kind, 0, _checksum(body), _IDENTIFIER, sequence)


def _is_reply(family: int, packet: bytes) -> bool:
    """A raw IPv4 socket hands out the IP header too, an IPv6 one does not."""
    offset = (packet[0] & 0xF) * 4 if family == 4 else 0
    if len(packet) < offset + 8:
        return False
    kind, _, _, identifier, _ = struct.unpack_from("!BBHHH", packet, offset)
    return kind == (0 if family == 4 else 129) and identifier == _IDENTIFIER


class _Pinger:
    """One address of one pod: its socket, and the targets that have not answered yet."""

    def __init__(self, netns: Path, source: str, targets: Sequence[str]) -> None:
        self.source = source
        self.family = ipaddress.ip_address(source).version
        self.waiting = set(targets)
        with demo_netns.entered(netns):
            if self.family == 4:
                self.socket = socket.socket(
                    socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP
                )
            else:
                self.socket = socket.socket(
                    socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6
                )
        self.socket.bind((source, 0))

    def send(self, sequence: int) -> None:
        packet = _echo_request(self.family, sequence)
        for target in self.waiting:
            # A refusal (no route yet, a full queue) is an answer that does not come: the next round sends again.
            with contextlib.suppress(OSError):
                self.socket.sendto(packet, (target, 0))

    def receive(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                packet, address = self.socket.recvfrom(2048)
                if _is_reply(self.family, packet):
                    self.waiting.discard(str(address[0]).partition("%")[0])


def unreachable(netns_of: Mapping[str, Path], pairs: Sequence[Pair], timeout_s: float = 5.0) -> list[Pair]:
    """Sends an echo request from every pair's source, in its namespace, to its target until all answered or time is up.

    `netns_of` maps each source address to its pod's namespace. Returns the pairs without an answer.
    """
    targets: dict[str, list[str]] = {}
    for source, target in pairs:
        targets.setdefault(source, []).append(target)
    with contextlib.ExitStack() as stack:
        pingers: list[_Pinger] = []
        for source, wanted in targets.items():
            pinger = _Pinger(netns_of[source], source, wanted)
            stack.callback(pinger.socket.close)
            pingers.append(pinger)
        by_fd = {pinger.socket.fileno(): pinger for pinger in pingers}
        poll = select.poll()
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + timeout_s
        sequence = 0
        while any(p.waiting for p in pingers) and time.monotonic() < deadline:
            sequence += 1
            for pinger in pingers:
                pinger.send(sequence)
            again = time.monotonic() + 1.0
            while any(p.waiting for p in pingers) and (left := again - time.monotonic()) > 0:
                for fd, _ in poll.poll(left * 1000):
                    by_fd[fd].receive()
        return [(p.source, target) for p in pingers for target in sorted(p.waiting)]


def ordered_pairs(pods: Sequence[Sequence[str]]) -> list[Pair]:
    """Every ordered pair of different pods, per family. Each pod is the sequence of its addresses."""
    out: list[Pair] = []
    for i, mine in enumerate(pods):
        for j, theirs in enumerate(pods):
            if i != j:
                out += [(a, b) for a in mine for b in theirs if (":" in a) == (":" in b)]
    return out


class Announcements:
    """Listens on a link of the switch and keeps the addresses that were announced there.

    Gratuitous ARP: sender and target protocol address are the same (RFC 5227 §2.3). Unsolicited neighbour advertisement:
    to ff02::1 without the solicited flag (RFC 4861 §7.2.6). A context manager; a thread reads meanwhile.
    """

    def __init__(self, netns: Path, link: str) -> None:
        self.seen: set[str] = set()
        self._socket: socket.socket
        with demo_netns.entered(netns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            self._socket.bind((link, _ETH_P_ALL))
            membership = struct.pack("IHH8s", socket.if_nametoindex(link), _PACKET_MR_PROMISC, 0, b"")
        self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._socket.settimeout(0.2)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="announcements", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def missing(self, addresses: Sequence[str], timeout_s: float = 2.0) -> list[str]:
        """Those of `addresses` that no announcement named, waiting for late ones."""
        deadline = time.monotonic() + timeout_s
        while (out := [a for a in addresses if a not in self.seen]) and time.monotonic() < deadline:
            time.sleep(0.02)
        return out

    def _read(self) -> None:
        while not self._ended.is_set():
            try:
                packet, address = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            self.seen.update(announced(int(address[1]), packet))


def announced(protocol: int, packet: bytes) -> Iterator[str]:
    """The address that a frame's payload announces, if it does."""
    if protocol == _ETH_P_ARP and len(packet) >= 28:
        sender, target = packet[14:18], packet[24:28]
        if sender == target:
            yield str(ipaddress.IPv4Address(sender))
    elif protocol == _ETH_P_IPV6 and len(packet) >= 64 and packet[6] == socket.IPPROTO_ICMPV6:
        is_advertisement, is_solicited = packet[40] == 136, bool(packet[44] & 0x40)
        if is_advertisement and not is_solicited and packet[24:40] == _ALL_NODES.packed:
            yield str(ipaddress.IPv6Address(packet[48:64]))
