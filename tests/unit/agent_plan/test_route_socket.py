"""The conversation on a route socket, where a real kernel cannot be made to answer so on demand."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from services.agent import netlink
from services.agent.route_socket import DumpInterruptedError, RouteSocket


class Peer:
    """Plays the kernel on the other end: each request is answered by the next list of `(type, flags, body)`."""

    def __init__(self, answers: list[list[tuple[int, int, bytes]]]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.asked = 0
        self.route = RouteSocket()
        self.route._socket.close()
        self.route._socket = ours
        self._theirs = theirs
        self._thread = threading.Thread(target=self._serve, args=(answers,))
        self._thread.start()

    def _serve(self, answers: list[list[tuple[int, int, bytes]]]) -> None:
        for answer in answers:
            request = self._theirs.recv(65536)
            if not request:
                return
            self.asked += 1
            (sequence,) = struct.unpack_from("=I", request, 8)
            for kind, flags, body in answer:
                self._theirs.send(struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body)

    def close(self) -> None:
        self.route.close()
        self._thread.join(5)
        self._theirs.close()


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    made: list[Peer] = []
    yield made
    for peer in made:
        peer.close()


DONE = (netlink.NLMSG_DONE, 2, struct.pack("=i", 0))
LINK = (netlink.RTM_NEWLINK, 2, bytes(16))


def test_an_interrupted_dump_is_asked_for_again(peers: list[Peer]) -> None:
    interrupted = (netlink.RTM_NEWLINK, 2 | netlink.NLM_F_DUMP_INTR, bytes(16))
    at_the_end = (netlink.NLMSG_DONE, 2 | netlink.NLM_F_DUMP_INTR, struct.pack("=i", 0))
    peer = Peer([[LINK, interrupted, DONE], [LINK, LINK, at_the_end], [LINK, DONE]])
    peers.append(peer)
    assert len(peer.route.dump(netlink.dump_links())) == 1
    assert peer.asked == 3


def test_a_dump_that_is_always_interrupted_is_an_error(peers: list[Peer]) -> None:
    peer = Peer([[(netlink.NLMSG_DONE, netlink.NLM_F_DUMP_INTR, bytes(4))]] * 20)
    peers.append(peer)
    with pytest.raises(DumpInterruptedError):
        peer.route.dump(netlink.dump_links())
    assert peer.asked == 10


def test_a_refused_dump_raises_what_the_kernel_said(peers: list[Peer]) -> None:
    refusal = struct.pack("=iIHHII", -1, 16, 18, 1, 1, 0)
    peer = Peer([[(netlink.NLMSG_ERROR, netlink.NLM_F_CAPPED, refusal)]])
    peers.append(peer)
    with pytest.raises(PermissionError):
        peer.route.dump(netlink.dump_links())


def test_the_batch_limit_is_no_limit_for_the_caller() -> None:
    """On the real kernel: three hundred refused messages are all told, by their place."""
    route = RouteSocket()
    try:
        refused = route.transact([netlink.delete_link(ifindex=2**30 + number) for number in range(300)])
    finally:
        route.close()
    assert [(refusal.index, refusal.errno) for refusal in refused] == [(number, 19) for number in range(300)]
