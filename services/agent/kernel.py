"""The kernel as the agent sees it: attach, detach, check, and the node's links.

Owns the sockets in the node's namespace and the order open → observe → plan → execute → undo on failure. Must not know
the journal, leases, or the bus. Every method may be called from any thread, many at once; none holds a lock over a
system call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import msgspec

from services.agent import observe
from services.agent.announce import PacketCloser
from services.agent.execute import Execution, KernelError, StepTiming, now_ns
from services.agent.netns import OWN_PATH, InsideSockets, Netns, NetnsError, NetnsGoneError
from services.agent.op import AddAddress, AddRoute, CreateMacvlan, DeleteLink, EnableIpv6, Op, SetMtu, SetUp
from services.agent.plan import Plan, Refused, announcements, plan
from services.agent.route_socket import DumpInterruptedError
from services.agent.scan import Scan, walk
from services.agent.state import DesiredInterface, Observed, OwnedLink, ParentLink
from shared import failpoint

_NODE_SOCKETS_KEPT = 16


class AttachedInterface(msgspec.Struct, frozen=True, kw_only=True):
    """An interface as it now is in the pod; `sandbox` is the path of the pod's namespace."""

    ifname: str
    ifindex: int
    mac: str
    mtu_bytes: int
    parent: str
    sandbox: str


class Detached(msgspec.Struct, frozen=True, kw_only=True):
    """`gone`: the namespace is no more, and its links with it. `spared`: links of our names that are not ours."""

    gone: bool = False
    removed: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()


class Kernel:
    """One node. `node_netns_path` None: the node's namespace is the agent's own. `foreign` are paths of other nodes'."""

    def __init__(self, node_netns_path: str | None = None, foreign: tuple[str, ...] = ()) -> None:
        """Raises NetnsError where the node's path is no network namespace."""
        self._foreign = foreign
        self._node = Netns.open(node_netns_path or OWN_PATH)
        self._own = Netns.open(OWN_PATH)
        self._closer = PacketCloser()
        self._idle: deque[InsideSockets] = deque()

    def close(self) -> None:
        """Closes all sockets; returns when the last packet socket is closed."""
        self._closer.close()
        while self._idle:
            self._idle.pop().close_fast()
        self._node.close()
        self._own.close()

    def open(self, path: str) -> Netns:
        """The network namespace at the path; the caller closes it. Raises NetnsGoneError or NetnsError."""
        return Netns.open(path)

    def identity(self, path: str) -> tuple[int, int] | None:
        """Device and inode of what the path leads to now, None where that is nothing. Raises OSError where it cannot be told."""
        try:
            status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return status.st_dev, status.st_ino

    def attach(
        self,
        netns: Netns,
        desired: tuple[DesiredInterface, ...],
        on_step: Callable[[StepTiming], None],
    ) -> tuple[AttachedInterface, ...]:
        """Makes all `desired` interfaces, or none: a failure undoes what was done, in reverse.

        Repeating it is harmless: what is there already and ours is finished or rebuilt. Raises KernelError, whose
        sentence also names what could not be undone, and NetnsError for a node's namespace.
        """
        if whose := self.whose(netns):
            raise NetnsError(netns.path, f"is {whose}, not a pod's")
        with_ipv6 = any(":" in entry.address for interface in desired for entry in interface.addresses)
        with self._inside(netns, on_step, with_packet=True, with_ipv6=with_ipv6) as (node, pod):
            execution = Execution(node, pod, netns, on_step)
            planned = plan(desired, self._observed(node, pod, netns, desired))
            if isinstance(planned, Refused):
                raise KernelError(planned.name, planned.sentence)
            try:
                execution.run((*planned.ops, *announcements(desired)))
                return tuple(_attached(pod, netns, interface) for interface in desired)
            except BaseException as failure:
                left = execution.undo()
                if left and isinstance(failure, KernelError):
                    message = f"{failure.message}; could not undo: {'; '.join(left)}"
                    raise KernelError(
                        failure.kind.name, message, op=failure.op, code=failure.errno
                    ) from failure
                raise

    def detach(
        self,
        netns_path: str,
        device: int,
        inode: int,
        links: Iterable[OwnedLink],
        on_step: Callable[[StepTiming], None],
    ) -> Detached:
        """Deletes those `links` that are still ours. Success also where the namespace is gone or another one now.

        Raises KernelError where a link of ours stays, or may stay because the namespace cannot be looked into.
        """
        owned = tuple(links)
        try:
            netns = Netns.open(netns_path)
        except NetnsGoneError:
            return Detached(gone=True)
        except NetnsError as cause:
            raise KernelError("kernel_refused", cause.message) from cause
        with netns:
            if (netns.device, netns.inode) != (device, inode) or self.is_node_netns(netns):
                return Detached(gone=True)
            with self._inside(netns, on_step, with_packet=False) as (node, pod):
                observed = Observed(links=observe.pod_links(pod, self._node))
                planned = plan((), observed, owned=owned)
                assert isinstance(planned, Plan)
                Execution(node, pod, netns, on_step).run(planned.ops)
        removed = tuple(op.ifname for op in planned.ops)
        present = {link.ifname for link in observed.links}
        spared = tuple(
            owner.ifname for owner in owned if owner.ifname in present and owner.ifname not in removed
        )
        return Detached(removed=removed, spared=spared)

    def check(self, netns: Netns, desired: tuple[DesiredInterface, ...]) -> list[str]:
        """Every difference as a sentence; empty where the pod is as attached. Changes nothing. Raises KernelError."""
        with self._inside(netns, _no_step, with_packet=False) as (node, pod):
            planned = plan(desired, observe.observe(node, pod, netns, self._node), spare_extra=True)
        if isinstance(planned, Refused):
            return [planned.sentence]
        return _differences(planned.ops)

    def scan(self) -> Scan:
        """Every address of ours in the machine's namespaces."""
        return walk(self.is_node_netns, self.sightings)

    def sightings(self, netns: Netns) -> dict[str, str]:
        """Addresses (CIDR, link-local ones left out) on macvlans that hang on a link of the node → the macvlan's name.

        Raises KernelError."""
        with self._inside(netns, _no_step, with_packet=False) as (_, pod):
            links = observe.pod_links(pod, self._node)
            ours = {link.ifname for link in links if link.kind == "macvlan" and link.parent_ifindex}
            if not ours:
                return {}
            names = {link.ifindex: link.ifname for link in links}
            return {
                one.address: one.ifname
                for one in observe.pod_addresses(pod, names)
                if one.ifname in ours and not one.link_local
            }

    def parent(self, name: str) -> ParentLink | None:
        """The node's link of this name, or None."""
        with self._node_sockets() as node:
            return observe.parent(node.route, name)

    def is_node_netns(self, netns: Netns) -> bool:
        """Whether it is the node's namespace, or the one that the agent itself runs in."""
        return netns.same_as(self._node) or netns.same_as(self._own)

    def whose(self, netns: Netns) -> str:
        """Which node's namespace it is, in words; empty where it may be a pod's."""
        if self.is_node_netns(netns):
            return "the node's own"
        return "another node's" if any(map(netns.is_at, self._foreign)) else ""

    def _observed(
        self,
        node: InsideSockets,
        pod: InsideSockets,
        netns: Netns,
        desired: tuple[DesiredInterface, ...],
    ) -> Observed:
        parents = frozenset(interface.parent for interface in desired)
        ifnames = frozenset(interface.ifname for interface in desired)
        seen = observe.glance(node, pod, parents, ifnames)
        return observe.observe(node, pod, netns, self._node) if seen is None else seen

    @contextmanager
    def _inside(
        self,
        netns: Netns,
        on_step: Callable[[StepTiming], None],
        *,
        with_packet: bool,
        with_ipv6: bool = False,
    ) -> Generator[tuple[InsideSockets, InsideSockets]]:
        """Sockets of node and pod for one call. A broken conversation (OSError) ends the node's sockets too."""
        start_ns = now_ns()
        with self._node_sockets() as node:
            try:
                pod = netns.sockets_inside(with_packet=with_packet, with_ipv6=with_ipv6)
            except OSError as cause:
                raise KernelError(
                    "kernel_refused", f"cannot open sockets in {netns.path!r}: {cause}", code=cause.errno or 0
                ) from cause
            try:
                failpoint.hit("agent.kernel.netns.open")
                on_step(StepTiming(name="netns.open", start_ns=start_ns, end_ns=now_ns()))
                yield node, pod
            except (OSError, DumpInterruptedError) as cause:
                raise KernelError("kernel_refused", f"reading {netns.path!r}: {cause}") from cause
            finally:
                pod.close_fast()
                if pod.packet is not None:
                    self._closer.close_later(pod.packet)

    @contextmanager
    def _node_sockets(self) -> Generator[InsideSockets]:
        """Sockets in the node's namespace, kept for the next call unless this one ended in an unknown state."""
        try:
            node = self._idle.pop()
        except IndexError:
            node = self._node.sockets_inside()
        try:
            yield node
        except KernelError as failure:
            if failure.__cause__ is None and len(self._idle) < _NODE_SOCKETS_KEPT:
                self._idle.append(node)
            else:
                node.close_fast()
            raise
        except BaseException:
            node.close_fast()
            raise
        if len(self._idle) < _NODE_SOCKETS_KEPT:
            self._idle.append(node)
        else:
            node.close_fast()


def _attached(pod: InsideSockets, netns: Netns, interface: DesiredInterface) -> AttachedInterface:
    return AttachedInterface(
        ifname=interface.ifname,
        ifindex=observe.ifindex(pod.route, interface.ifname),
        mac=interface.mac,
        mtu_bytes=observe.mtu_bytes(pod.route, interface.ifname),
        parent=interface.parent,
        sandbox=netns.path,
    )


def _differences(ops: tuple[Op, ...]) -> list[str]:
    """A plan in the words of a CHECK. What would be put on a link that is not there is not told."""
    rebuilt = {op.ifname for op in ops if isinstance(op, DeleteLink)}
    missing = {op.ifname for op in ops if isinstance(op, CreateMacvlan)}
    differences: list[str] = []
    for op in ops:
        match op:
            case CreateMacvlan() if op.ifname in rebuilt:
                differences.append(
                    f"link {op.ifname} is not a macvlan in {op.mode} mode on {op.parent}, or has an unusable address"
                )
            case CreateMacvlan():
                differences.append(f"link {op.ifname} is missing")
            case SetMtu():
                differences.append(f"link {op.ifname} has MTU {op.was_bytes}, not {op.mtu_bytes}")
            case SetUp():
                differences.append(f"link {op.ifname} is down")
            case EnableIpv6() if op.ifname not in missing:
                differences.append(f"IPv6 is disabled on {op.ifname}")
            case AddAddress() if op.ifname not in missing:
                differences.append(f"address {op.address} is missing from {op.ifname}")
            case AddRoute() if op.ifname not in missing:
                via = f" via {op.gateway}" if op.gateway else ""
                differences.append(f"route {op.dst}{via} is missing from {op.ifname}")
            case _:
                pass
    return differences


def _no_step(_: StepTiming) -> None:
    pass
