"""One attachment as the journal keeps it. Pure.

Owns the fields and the life of an entry: intent → completed → releasing, from any of which a DEL leads to releasing.
Must not know files. Fields are only added, with a default: journals outlive versions.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from services.agent.call import Call
from services.agent.config import Ipam, Native
from services.agent.desired import Share, mac_at
from services.agent.result import Result
from services.agent.state import DesiredInterface, OwnedLink
from shared import limits
from shared.contracts.attach import NetworkStatus
from shared.contracts.query import AttachmentView
from shared.ids import AttachmentId

UNANSWERED_MAX = 8
"""Attempts remembered without an answer; an allocate older than that has long expired."""

_DEFAULT_IFNAME = "eth0"
"""As all runtimes of Kubernetes name the interface of a pod's default network."""

Mode = Literal["native", "ipam"]


class LeasedInterface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An interface of an attachment, with its lease's generation. `network` is `ns/name`, empty for the configuration's own."""

    ifname: str
    generation: int = 0
    addresses: tuple[str, ...] = ()
    network: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`device` and `inode` are the namespace's identity during boot `boot_id`. `generation` is the lease's by the last
    reply, to `answered`; `unanswered` are attempts whose allocate may still be under way. `network` is the
    configuration's name, `reason` why it is released.

    With `further_networks` the attachment is all interfaces of its pod: `others` are those that the runtime did not ask for, as
    far as a reply named them, and `default_network` (`ns/name`) is the called one's if the pod chose it.
    """

    container_id: str
    ifname: str
    state: Literal["intent", "completed", "releasing"]
    mode: Mode
    attempt: str
    boot_id: str
    netns: str
    device: int
    inode: int
    network: str
    mac: str = ""
    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    generation: int = 0
    answered: str = ""
    unanswered: tuple[str, ...] = ()
    desired: tuple[DesiredInterface, ...] = ()
    addresses: tuple[str, ...] = ()
    result: Result | None = None
    reason: str = ""
    trace_id: str = ""
    begun_boottime_ns: int = 0
    begun_unix_ns: int = 0
    further_networks: bool = False
    others: tuple[LeasedInterface, ...] = ()
    default_network: str = ""

    @property
    def attachment(self) -> AttachmentId:
        return AttachmentId(self.container_id, self.ifname)

    @property
    def leased(self) -> tuple[LeasedInterface, ...]:
        """Every interface that a reply named, the called one first, answered or not."""
        own = LeasedInterface(
            ifname=self.ifname,
            generation=self.generation,
            addresses=self.addresses,
            network=self.default_network,
        )
        return (own, *self.others)

    @property
    def links(self) -> tuple[OwnedLink, ...]:
        """What may be in the pod's namespace because of this entry; a name may be unknown, the MAC proves it."""
        if self.mode != "native":
            return ()
        if not self.further_networks:
            return (OwnedLink(ifname=self.ifname, mac=self.mac),)
        names = {self.mac: self.ifname} | {interface.mac: interface.ifname for interface in self.desired}
        macs = [mac_at(self.mac, position) for position in range(limits.INTERFACES_PER_POD_MAX)]
        return tuple(OwnedLink(ifname=names.get(mac, ""), mac=mac) for mac in macs)


class Place(Protocol):
    """A network namespace that is open."""

    path: str
    device: int
    inode: int


def mode_of(config: Native | Ipam) -> Mode:
    return "native" if isinstance(config, Native) else "ipam"


def has_further_networks(config: Native | Ipam) -> bool:
    return isinstance(config, Native) and config.further_networks


def intent(
    call: Call, config: Native | Ipam, netns: Place, boot_id: str, mac: str, known: Entry | None
) -> Entry:
    """What shall be attached. `known` is the entry of an earlier ADD: its MAC stays, and what it still owes."""
    before = known.unanswered if known is not None else ()
    return Entry(
        container_id=call.container_id,
        ifname=call.ifname,
        state="intent",
        mode=mode_of(config),
        attempt=call.attempt,
        boot_id=boot_id,
        netns=netns.path,
        device=netns.device,
        inode=netns.inode,
        network=config.network,
        mac=(known.mac if known is not None else "") or mac,
        pod_namespace=call.pod.namespace,
        pod_name=call.pod.name,
        pod_uid=call.pod.uid,
        generation=known.generation if known is not None else 0,
        answered=known.answered if known is not None else "",
        unanswered=(*(a for a in before if a != call.attempt), call.attempt)[-UNANSWERED_MAX:],
        begun_boottime_ns=call.start_ns,
        further_networks=has_further_networks(config) or (known is not None and known.further_networks),
        others=known.others if known is not None else (),
    )


def answered(entry: Entry, attempt: str, shares: tuple[Share, ...], pod_uid: str) -> Entry:
    """The allocator answered `attempt` with these `shares`, the called interface's first; `pod_uid` is whom it gave them to.

    What an earlier reply named beyond them stays: it is still to be given back.
    """
    called, *others = (
        LeasedInterface(
            ifname=share.ifname,
            generation=max(grant.generation for grant in share.grants),
            addresses=tuple(grant.address for grant in share.grants),
            network=share.network,
        )
        for share in shares
    )
    named = {one.ifname for one in others}
    return msgspec.structs.replace(
        entry,
        generation=called.generation,
        answered=attempt,
        unanswered=tuple(a for a in entry.unanswered if a != attempt),
        pod_uid=entry.pod_uid or (pod_uid if entry.pod_name else ""),
        addresses=called.addresses,
        default_network=called.network,
        others=(*others, *(one for one in entry.others if one.ifname not in named)),
    )


def network_status(entry: Entry) -> tuple[NetworkStatus, ...]:
    """Of every interface that the completed attachment has, as Multus tells it."""
    macs = {interface.ifname: interface.mac for interface in entry.desired}
    present = macs.keys() | {entry.ifname}
    return tuple(
        NetworkStatus(
            name=one.network or entry.network,
            interface=one.ifname,
            ips=tuple(address.partition("/")[0] for address in one.addresses),
            mac=macs.get(one.ifname, ""),
            default=one.ifname == (entry.ifname if entry.further_networks else _DEFAULT_IFNAME),
            dns={},
        )
        for one in entry.leased
        if entry.state == "completed" and one.ifname in present
    )


def views(entry: Entry, node: str, differences: tuple[str, ...] = ()) -> tuple[AttachmentView, ...]:
    """As tools show it: a row an interface, the called one first, which also carries `differences` of all."""
    desired = {interface.ifname: interface for interface in entry.desired}
    rows: list[AttachmentView] = []
    for one in entry.leased:
        made = desired.get(one.ifname)
        is_called = one.ifname == entry.ifname
        row = AttachmentView(
            container_id=entry.container_id,
            interface=one.ifname,
            state=entry.state,
            node=node,
            network=one.network or entry.network,
            netns=entry.netns,
            pod_namespace=entry.pod_namespace,
            pod_name=entry.pod_name,
            pod_uid=entry.pod_uid,
            addresses=one.addresses,
            mac=made.mac if made is not None else entry.mac if is_called else "",
            parent=made.parent if made is not None else "",
            generation=one.generation,
            trace_id=entry.trace_id,
            differences=differences if is_called else (),
            network_status=network_status(entry) if is_called else (),
        )
        rows.append(row)
    return tuple(rows)
