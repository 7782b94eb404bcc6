"""Carries out ops in one pod's namespace, remembers which were done, and takes them back.

Owns the translation of an op to system calls, its timing, and the sentence of a failure. Must not know why an op is
in the plan. Ops that go to the same socket are sent together.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Literal, assert_never

import msgspec

from services.agent import announce, netlink
from services.agent.netns import InsideSockets, Netns
from services.agent.observe import ifindex, mac
from services.agent.op import (
    AddAddress,
    AddRoute,
    Announce,
    CreateMacvlan,
    DeleteAddress,
    DeleteLink,
    DeleteRoute,
    DisableIpv6,
    EnableIpv6,
    Op,
    SetDown,
    SetMtu,
    SetUp,
    describe,
    undo,
)
from shared import failpoint
from shared.errors import OrbweaverError

StepName = Literal[
    "netns.open", "link.create", "link.delete", "ipv6.switch", "address.batch", "announce", "undo"
]
_POINTS: dict[StepName, str] = {
    "link.create": "agent.kernel.link.create",
    "link.delete": "agent.kernel.link.delete",
    "ipv6.switch": "agent.kernel.ipv6.switch",
    "address.batch": "agent.kernel.address.batch",
    "announce": "agent.kernel.announce",
    "undo": "agent.kernel.undo",
}

_MAC_WAIT_S = 1.5
_MAC_RETRY_S = 0.02
_CHOSEN = 1 << 29
"""Interface indexes and link groups that we choose ourselves lie from here to twice here, far above those that others choose."""


class StepTiming(msgspec.Struct, frozen=True, kw_only=True):
    """One step for the trace, in nanoseconds of CLOCK_BOOTTIME. `error` is empty where it went well."""

    name: StepName
    start_ns: int
    end_ns: int
    error: str = ""


class KernelError(OrbweaverError):
    """The kernel refused an op, or the plan was refused before it; the sentence says which and why."""

    def __init__(self, name: str, sentence: str, *, op: Op | None = None, code: int = 0) -> None:
        super().__init__(name, sentence)
        self.op = op
        self.errno = code


def now_ns() -> int:
    """The clock of every step and of the shim's start time."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Execution:
    """The ops of one attach or detach. One thread; the sockets stay the caller's."""

    def __init__(
        self, node: InsideSockets, pod: InsideSockets, netns: Netns, on_step: Callable[[StepTiming], None]
    ) -> None:
        self._node = node
        self._pod = pod
        self._netns = netns
        self._on_step = on_step
        self._done: list[Op] = []
        self._ifindexes: dict[str, int] = {}
        self._chosen: dict[str, int] = {}

    def run(self, ops: Sequence[Op]) -> None:
        """Carries out `ops` in order. Raises KernelError at the first that fails; `undo` then takes back the rest.

        A failed announcement is only noted in its step: the address works without it.
        """
        for name, group in groupby(ops, key=_step_name):
            step: list[Op] = list(group)
            start_ns = now_ns()
            error = ""
            try:
                self._step(name, step)
                failpoint.hit(_POINTS[name])
            except KernelError as failure:
                error = failure.message
                if name != "announce":
                    raise
            finally:
                self._on_step(StepTiming(name=name, start_ns=start_ns, end_ns=now_ns(), error=error))

    def undo(self) -> tuple[str, ...]:
        """Takes back what `run` did, in reverse, as far as it goes; returns the sentences of what stayed."""
        start_ns = now_ns()
        failures: list[str] = []
        for name, group in groupby(undo(self._done), key=_step_name):
            step: list[Op] = list(group)
            for part in [step] if name == "link.delete" else [[op] for op in step]:
                try:
                    self._step(name, part)
                except (KernelError, OSError) as failure:
                    failures.append(str(failure))
        self._done.clear()
        failpoint.hit(_POINTS["undo"])
        self._on_step(StepTiming(name="undo", start_ns=start_ns, end_ns=now_ns(), error="; ".join(failures)))
        return tuple(failures)

    def _step(self, name: StepName, ops: Sequence[Op]) -> None:
        if name == "address.batch":
            self._transact(self._pod, ops)
        elif name == "link.delete":
            self._delete([op for op in ops if isinstance(op, DeleteLink)])
        else:
            for op in ops:
                self._one(op)

    def _one(self, op: Op) -> None:
        match op:
            case CreateMacvlan():
                self._create(op)
            case EnableIpv6() | DisableIpv6():
                try:
                    self._netns.set_ipv6_disabled(op.ifname, isinstance(op, DisableIpv6))
                except OSError as cause:
                    raise _failure(op, cause.errno or 0, "") from cause
                self._done.append(op)
            case Announce():
                packet = self._pod.packet
                if packet is None:
                    raise _failure(op, errno.EBADF, "no packet socket")
                try:
                    announce.send(packet, op.ifname, _mac(op.mac), _packed(op.address))
                except OSError as cause:
                    raise _failure(op, cause.errno or 0, "") from cause
            case _:
                self._transact(self._pod, [op])

    def _delete(self, ops: Sequence[DeleteLink]) -> None:
        """Deletes the links, several as a group: each by itself would wait for some 20 ms (synchronize_net)."""
        if len(ops) > 1:
            group = _chosen()
            messages = [netlink.set_link(ifindex=self._ifindex(op), group=group) for op in self._present(ops)]
            try:
                self._pod.route.transact([*messages, netlink.delete_group(group=group)])
            except OSError as cause:
                raise _failure(ops[0], cause.errno or 0, "") from cause
        for op in self._present(ops):
            self._transact(self._pod, [op])
        for op in ops:
            self._ifindexes.pop(op.ifname, None)

    def _present(self, ops: Sequence[DeleteLink]) -> list[DeleteLink]:
        """What vanished by itself is deleted; what took its name meanwhile is not ours."""
        return [op for op in ops if mac(self._pod.route, op.ifname) == _mac(op.mac)]

    def _create(self, op: CreateMacvlan) -> None:
        """Creates the link, past two refusals that are none.

        A MAC may still be held by a namespace that was deleted but not yet torn down: the kernel does that later, one
        batch after the other (net/core/net_namespace.c, cleanup_net), so a sandbox that is re-created at once meets
        its predecessor. And Linux before 6.15 looks for the name in the sender's namespace too (net/core/rtnetlink.c,
        rtnl_newlink), so that no pod could have an `eth0` where the node has one; a message that names an index as
        well is looked up by the index alone.
        """
        until = time.monotonic() + _MAC_WAIT_S
        while True:
            try:
                return self._transact(self._node, [op])
            except KernelError as failure:
                named_on_node = failure.errno == errno.EEXIST and not ifindex(self._pod.route, op.ifname)
                if named_on_node and op.ifname not in self._chosen:
                    self._chosen[op.ifname] = _chosen()
                    continue
                if failure.errno != errno.EADDRINUSE or time.monotonic() > until:
                    raise
            time.sleep(_MAC_RETRY_S)

    def _transact(self, sockets: InsideSockets, ops: Sequence[Op]) -> None:
        try:
            refused = {refusal.index: refusal for refusal in sockets.route.transact([*self._messages(ops)])}
        except OSError as cause:
            # No answer: each may be done. Undoing one that is not is harmless.
            self._done += ops
            raise _failure(ops[0], cause.errno or 0, "") from cause
        self._done += [op for index, op in enumerate(ops) if index not in refused]
        for index, refusal in refused.items():
            if isinstance(ops[index], DeleteLink) and refusal.errno == errno.ENODEV:
                continue
            raise _failure(ops[index], refusal.errno, refusal.words)

    def _messages(self, ops: Sequence[Op]) -> Iterator[bytes]:
        for op in ops:
            match op:
                case CreateMacvlan():
                    yield netlink.create_macvlan(
                        ifname=op.ifname,
                        parent_ifindex=op.parent_ifindex,
                        mac=_mac(op.mac),
                        mtu_bytes=op.mtu_bytes,
                        mode=op.mode,
                        netns_fd=self._netns.fd,
                        ifindex=self._chosen.get(op.ifname, 0),
                    )
                case DeleteLink():
                    yield netlink.delete_link(ifindex=self._ifindex(op))
                case SetUp():
                    yield netlink.set_link(ifindex=self._ifindex(op), up=True)
                case SetDown():
                    yield netlink.set_link(ifindex=self._ifindex(op), up=False)
                case SetMtu():
                    yield netlink.set_link(ifindex=self._ifindex(op), mtu_bytes=op.mtu_bytes)
                case AddAddress() | DeleteAddress():
                    address, prefix_length = _cidr(op.address)
                    message = netlink.add_address if isinstance(op, AddAddress) else netlink.delete_address
                    yield message(ifindex=self._ifindex(op), address=address, prefix_length=prefix_length)
                case AddRoute() | DeleteRoute():
                    target, prefix_length = _cidr(op.dst)
                    message = netlink.add_route if isinstance(op, AddRoute) else netlink.delete_route
                    yield message(
                        ifindex=self._ifindex(op),
                        target=target,
                        prefix_length=prefix_length,
                        gateway=_packed(op.gateway) if op.gateway else b"",
                        on_link=op.on_link,
                    )
                case EnableIpv6() | DisableIpv6() | Announce():
                    raise AssertionError(f"not a netlink op: {op}")
                case _:
                    assert_never(op)

    def _ifindex(self, op: Op) -> int:
        found = self._ifindexes.get(op.ifname) or ifindex(self._pod.route, op.ifname)
        if not found:
            raise _failure(op, errno.ENODEV, "the link has vanished from the pod")
        self._ifindexes[op.ifname] = found
        return found


def _chosen() -> int:
    return secrets.randbelow(_CHOSEN) + _CHOSEN


def _step_name(op: Op) -> StepName:
    match op:
        case CreateMacvlan():
            return "link.create"
        case DeleteLink():
            return "link.delete"
        case EnableIpv6() | DisableIpv6():
            return "ipv6.switch"
        case Announce():
            return "announce"
        case _:
            return "address.batch"


def _failure(op: Op, code: int, words: str) -> KernelError:
    answer = f"{words} ({os.strerror(code)})" if words else os.strerror(code)
    name, hint = _meaning(op, code)
    return KernelError(name, f"{describe(op)}: {answer}{hint}", op=op, code=code)


def _meaning(op: Op, code: int) -> tuple[str, str]:
    match op, code:
        case CreateMacvlan(), errno.EEXIST:
            return "link_exists", f"; the pod already has a link {op.ifname!r}"
        case CreateMacvlan(), errno.ENODEV:
            return "parent_missing", f"; the node's link {op.parent!r} has vanished"
        case CreateMacvlan(), errno.EADDRINUSE:
            return "kernel_refused", f"; another link on {op.parent!r} has the MAC {op.mac}"
        case CreateMacvlan(), errno.EBUSY:
            return (
                "kernel_refused",
                f"; {op.parent!r} is in use as a bridge port, a bond member or by ipvlans",
            )
        case CreateMacvlan(), errno.EINVAL:
            return "kernel_refused", f"; {op.parent!r} does not take a macvlan of this mode or MTU"
        case EnableIpv6(), errno.ENOENT:
            return "kernel_refused", "; this kernel has no IPv6, or the link has vanished"
        case AddRoute(), errno.EEXIST:
            return "kernel_refused", f"; the pod already has another route to {op.dst}"
        case AddRoute(), errno.ENETUNREACH | errno.EHOSTUNREACH | errno.EINVAL:
            return "kernel_refused", f"; is {op.gateway or op.dst} reachable on {op.ifname!r}?"
        case _:
            return "kernel_refused", ""


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _cidr(text: str) -> tuple[bytes, int]:
    address, _, prefix_length = text.partition("/")
    return _packed(address), int(prefix_length)
