"""One NETLINK_ROUTE socket: batches out, answers in, dumps that are whole.

Owns the conversation: sequence numbers, acknowledgements, the retry of interrupted dumps (nowhere else).
Must not know what the messages mean. Used by one thread at a time.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import msgspec

from services.agent import netlink

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_BATCH_MESSAGES = 64
"""Answers queue in the receive buffer (some 200 KiB, about 1 KiB an answer) before the first is read."""
_DUMP_TRIES = 10
_ANSWER_S = 5
"""A request is carried out inside the send; only an answer that was lost takes longer than a moment."""
_RECEIVE_BYTES = 65536


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel's no to message number `index` of a batch."""

    index: int
    errno: int
    words: str


class DumpInterruptedError(Exception):
    """The kernel's tables kept changing during every try of a dump."""


class RouteSocket:
    """Opened in the calling thread's network namespace, where it stays."""

    __slots__ = ("_sequence", "_socket")

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._sequence = 0
        try:
            # Not settimeout: that would poll before each call.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _ANSWER_S, 0))
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For ioctls that ask about links of the socket's namespace."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def transact(self, messages: Sequence[bytes]) -> tuple[Refusal, ...]:
        """Sends all, waits until all are carried out, returns those refused (empty: all were done).

        Messages after a refused one are carried out all the same. Raises OSError on a broken socket, after which
        the socket must be closed, as answers may be left in it.
        """
        refused: list[Refusal] = []
        for start in range(0, len(messages), _BATCH_MESSAGES):
            part = messages[start : start + _BATCH_MESSAGES]
            first = self._sequence + 1
            last = self._sequence = self._sequence + len(part)
            self._socket.send(netlink.batch(part, first))
            answered = False
            while not answered:
                for reply in netlink.replies(self._socket.recv(_RECEIVE_BYTES)):
                    if reply.kind != netlink.NLMSG_ERROR or not first <= reply.sequence <= last:
                        continue
                    errno, words = netlink.error(reply)
                    if errno:
                        index = start + reply.sequence - first
                        refused.append(Refusal(index=index, errno=errno, words=words))
                    answered = answered or reply.sequence == last
        return tuple(refused)

    def dump(self, request: bytes) -> list[netlink.Reply]:
        """All objects of a dump, of one moment: a dump during which the tables changed is asked for again.

        Raises OSError, and DumpInterruptedError after ten tries (include/uapi/linux/netlink.h, NLM_F_DUMP_INTR).
        """
        for _ in range(_DUMP_TRIES):
            found = self._dump_once(request)
            if found is not None:
                return found
        raise DumpInterruptedError(f"{_DUMP_TRIES} dumps in a row were interrupted by changes")

    def ask(self, request: bytes) -> netlink.Reply:
        """The one object that answers a request which is no dump. Raises OSError with the kernel's errno."""
        sequence = self._sequence = self._sequence + 1
        self._socket.send(netlink.batch([request], sequence))
        found: netlink.Reply | None = None
        while True:
            for reply in netlink.replies(self._socket.recv(_RECEIVE_BYTES)):
                if reply.sequence != sequence:
                    continue
                if reply.kind != netlink.NLMSG_ERROR:
                    found = reply
                    continue
                errno, words = netlink.error(reply)
                if errno or found is None:
                    raise OSError(errno, words or "no answer")
                return found

    def _dump_once(self, request: bytes) -> list[netlink.Reply] | None:
        sequence = self._sequence = self._sequence + 1
        self._socket.send(netlink.numbered(request, sequence))
        found: list[netlink.Reply] = []
        interrupted = False
        while True:
            for reply in netlink.replies(self._socket.recv(_RECEIVE_BYTES)):
                if reply.sequence != sequence:
                    continue
                interrupted = interrupted or bool(reply.flags & netlink.NLM_F_DUMP_INTR)
                if reply.kind == netlink.NLMSG_DONE:
                    return None if interrupted else found
                if reply.kind == netlink.NLMSG_ERROR:
                    errno, words = netlink.error(reply)
                    raise OSError(errno, words or "dump refused")
                found.append(reply)
