"""Network namespaces, links and addresses as data, behind the interface of services.agent.kernel.Kernel.

Owns what is on the simulated wire. What to do is planned by the product's `plan`; ops fail, and the agent is killed between
two of them, as the seed has it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from random import Random
from types import TracebackType
from typing import Self

import msgspec

from services.agent.execute import KernelError, StepTiming
from services.agent.kernel import AttachedInterface, Detached, _differences
from services.agent.netns import NetnsError, NetnsGoneError
from services.agent.op import (
    AddAddress,
    AddRoute,
    CreateMacvlan,
    DeleteAddress,
    DeleteLink,
    DeleteRoute,
    Op,
    SetDown,
    SetUp,
    undo,
)
from services.agent.plan import Plan, Refused, plan
from services.agent.scan import Scan, Sighting
from services.agent.state import (
    DesiredInterface,
    Observed,
    ObservedAddress,
    ObservedLink,
    ObservedRoute,
    OwnedLink,
    ParentLink,
)

PARENT = ParentLink(ifname="eth1", ifindex=2, lower_ifindex=2, mtu_bytes=1500, up=True, kind="veth", mac="")
DEVICE = 4


class SimulatedLink(msgspec.Struct):
    mac: str
    mode: str
    up: bool = False
    is_leaving: bool = False
    """Another plugin's, our DEL is answered: it goes within `UNLINK_S`."""
    addresses: dict[str, None] = {}
    routes: dict[tuple[str, str], None] = {}


class Namespace(msgspec.Struct, kw_only=True):
    """One network namespace; `owner` is who the leases of its links must belong to."""

    path: str
    inode: int
    owner: str
    container_id: str
    is_disturbed: bool = False
    """The kernel has refused something here."""
    links: dict[str, SimulatedLink] = {}


class Wire:
    """All namespaces of all nodes, and which of them has which address. `on_address` is told of each that comes up."""

    def __init__(self) -> None:
        self.namespaces: dict[str, Namespace] = {}
        self.addresses: dict[str, dict[str, None]] = {}
        self.on_address: Callable[[Namespace, str, str], None] = lambda _namespace, _ifname, _address: None
        self._inode = 100

    def create(self, path: str, owner: str, container_id: str) -> Namespace:
        self._inode += 1
        namespace = Namespace(path=path, inode=self._inode, owner=owner, container_id=container_id)
        self.namespaces[path] = namespace
        return namespace

    def remove(self, path: str) -> None:
        namespace = self.namespaces.pop(path, None)
        for link in namespace.links.values() if namespace is not None else ():
            self._down(path, link)

    def up(self, namespace: Namespace, ifname: str, address: str) -> None:
        namespace.links[ifname].addresses[address] = None
        bare = address.partition("/")[0]
        self.addresses.setdefault(bare, {})[namespace.path] = None
        self.on_address(namespace, ifname, bare)

    def down(self, namespace: Namespace, ifname: str, address: str) -> None:
        link = namespace.links.get(ifname)
        if link is not None and link.addresses.pop(address, 0) is None:
            self._off(namespace.path, address)

    def unlink(self, namespace: Namespace, ifname: str) -> None:
        link = namespace.links.pop(ifname, None)
        if link is not None:
            self._down(namespace.path, link)

    def plug(self, namespace: Namespace, ifname: str, addresses: Iterable[str]) -> None:
        """Another plugin's link, with what we gave it."""
        namespace.links[ifname] = SimulatedLink("02:00:00:00:00:01", "bridge", up=True)
        for address in addresses:
            self.up(namespace, ifname, address)

    def is_leaving(self, path: str, address: str) -> bool:
        """Whether an address is up there on nothing but links that go in a moment."""
        links = self.namespaces[path].links.values()
        having = [link for link in links if any(a.partition("/")[0] == address for a in link.addresses)]
        return bool(having) and all(link.is_leaving for link in having)

    def _down(self, path: str, link: SimulatedLink) -> None:
        for address in link.addresses:
            self._off(path, address)

    def _off(self, path: str, address: str) -> None:
        bare = address.partition("/")[0]
        places = self.addresses.get(bare, {})
        places.pop(path, None)
        if not places:
            self.addresses.pop(bare, None)


class SimulatedNetns:
    """services.agent.netns.Netns on a Wire."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.path = namespace.path
        self.device = DEVICE
        self.inode = namespace.inode

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class SimulatedKernel:
    """One node's. `crash` may kill the agent between two ops; `refuses` is the probability that the kernel refuses an op."""

    def __init__(self, wire: Wire, node: str, random: Random, crash: Callable[[str], bool]) -> None:
        self._wire = wire
        self._place = f"/{node}/"
        self._random = random
        self._crash = crash
        self.refuses = 0.0
        self.is_dead = False

    def open(self, path: str) -> SimulatedNetns:
        namespace = self._wire.namespaces.get(path)
        if namespace is None:
            raise NetnsGoneError(path, "does not exist")
        return SimulatedNetns(namespace)

    def identity(self, path: str) -> tuple[int, int] | None:
        namespace = self._wire.namespaces.get(path)
        return None if namespace is None else (DEVICE, namespace.inode)

    def is_node_netns(self, _netns: SimulatedNetns) -> bool:
        return False

    def whose(self, _netns: SimulatedNetns) -> str:
        return ""

    def close(self) -> None:
        pass

    def attach(
        self,
        netns: SimulatedNetns,
        desired: tuple[DesiredInterface, ...],
        on_step: Callable[[StepTiming], None],
    ) -> tuple[AttachedInterface, ...]:
        namespace = self._there(netns)
        planned = plan(desired, _observed(namespace))
        if isinstance(planned, Refused):
            raise KernelError(planned.name, planned.sentence)
        self._run(namespace, planned.ops)
        return tuple(
            AttachedInterface(
                ifname=interface.ifname,
                ifindex=7,
                mac=interface.mac,
                mtu_bytes=1500,
                parent=interface.parent,
                sandbox=netns.path,
            )
            for interface in desired
        )

    def detach(
        self,
        netns_path: str,
        device: int,
        inode: int,
        links: Iterable[OwnedLink],
        on_step: Callable[[StepTiming], None],
    ) -> Detached:
        namespace = self._wire.namespaces.get(netns_path)
        if self.is_dead or namespace is None or namespace.inode != inode:
            return Detached(gone=True)
        owned = tuple(links)
        planned = plan((), _observed(namespace), owned=owned)
        assert isinstance(planned, Plan)
        present = set(namespace.links)
        self._run(namespace, planned.ops)
        removed = tuple(op.ifname for op in planned.ops)
        spared = tuple(one.ifname for one in owned if one.ifname in present and one.ifname not in removed)
        return Detached(removed=removed, spared=spared)

    def check(self, netns: SimulatedNetns, desired: tuple[DesiredInterface, ...]) -> list[str]:
        planned = plan(desired, _observed(netns.namespace), spare_extra=True)
        return [planned.sentence] if isinstance(planned, Refused) else _differences(planned.ops)

    def scan(self) -> Scan:
        here = [n for path, n in self._wire.namespaces.items() if path.startswith(self._place)]
        sightings = tuple(
            Sighting(address=address, ifname=name, netns=one.path, device=DEVICE, inode=one.inode)
            for one in here
            for name, link in one.links.items()
            for address in link.addresses
        )
        return Scan(sightings=sightings, namespaces=len(here), looked=True)

    def _there(self, netns: SimulatedNetns) -> Namespace:
        """An open namespace lives on after its path is gone, but its links go with the last process in it."""
        if self.is_dead:
            raise NetnsError(netns.path, "killed")
        if self._wire.namespaces.get(netns.path) is not netns.namespace:
            raise KernelError("kernel_refused", f"{netns.path} is being torn down")
        return netns.namespace

    def _run(self, namespace: Namespace, ops: tuple[Op, ...]) -> None:
        done: list[Op] = []
        for op in ops:
            if self._crash("between two kernel ops"):
                return
            try:
                if self.refuses and self._random.random() < self.refuses:
                    namespace.is_disturbed = True
                    raise KernelError("kernel_refused", f"refused: {op}", op=op, code=errno.ENOMEM)
                self._apply(namespace, op)
            except KernelError:
                for back in undo(done):
                    self._apply(namespace, back)
                raise
            done.append(op)

    def _apply(self, namespace: Namespace, op: Op) -> None:
        links = namespace.links
        match op:
            case CreateMacvlan():
                links[op.ifname] = SimulatedLink(op.mac, op.mode, up=True)
            case DeleteLink():
                self._wire.unlink(namespace, op.ifname)
            case AddAddress():
                self._wire.up(namespace, op.ifname, op.address)
            case DeleteAddress():
                self._wire.down(namespace, op.ifname, op.address)
            case AddRoute():
                if any(dst == op.dst for link in links.values() for dst, _ in link.routes):
                    raise KernelError("kernel_refused", f"route {op.dst} exists", op=op, code=errno.EEXIST)
                links[op.ifname].routes[op.dst, op.gateway] = None
            case DeleteRoute():
                links[op.ifname].routes.pop((op.dst, op.gateway), None)
            case SetUp() | SetDown():
                links[op.ifname].up = isinstance(op, SetUp)
            case _:
                pass


def _observed(namespace: Namespace) -> Observed:
    links = namespace.links.items()
    return Observed(
        parents=(PARENT,),
        links=tuple(
            ObservedLink(
                ifname=name,
                ifindex=7,
                kind="macvlan",
                mac=link.mac,
                mtu_bytes=1500,
                up=link.up,
                parent_ifindex=PARENT.ifindex,
                mode=link.mode,
            )
            for name, link in links
        ),
        addresses=tuple(
            ObservedAddress(ifname=name, address=address)
            for name, link in links
            for address in link.addresses
        ),
        routes=tuple(
            ObservedRoute(ifname=name, dst=dst, gateway=gateway)
            for name, link in links
            for dst, gateway in link.routes
        ),
    )
