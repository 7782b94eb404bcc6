"""One attachment as the journal keeps it. Pure.

Owns the fields and the life of an entry: intent → completed → releasing, from any of which a DEL leads to releasing.
Must not know files. Fields are only added, with a default: journals outlive versions.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from services.agent.call import Call
from services.agent.config import Ipam, Native
from services.agent.result import Result
from services.agent.state import DesiredInterface, OwnedLink
from shared.contracts.ipam import Grant
from shared.contracts.query import AttachmentView
from shared.ids import AttachmentId

UNANSWERED_MAX = 8
"""Attempts remembered without an answer; an allocate older than that has long expired."""

Mode = Literal["native", "ipam"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`device` and `inode` are the namespace's identity during boot `boot_id`. `generation` is the lease's by the last
    reply, to `answered`; `unanswered` are attempts whose allocate may still be under way. `network` is the
    configuration's name, `reason` why it is released.
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

    @property
    def attachment(self) -> AttachmentId:
        return AttachmentId(self.container_id, self.ifname)

    @property
    def links(self) -> tuple[OwnedLink, ...]:
        """What may be in the pod's namespace because of this entry."""
        return (OwnedLink(ifname=self.ifname, mac=self.mac),) if self.mode == "native" else ()


class Place(Protocol):
    """A network namespace that is open."""

    path: str
    device: int
    inode: int


def mode_of(config: Native | Ipam) -> Mode:
    return "native" if isinstance(config, Native) else "ipam"


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
    )


def answered(entry: Entry, attempt: str, grants: tuple[Grant, ...], pod_uid: str) -> Entry:
    """The allocator answered `attempt` with the interface's `grants`; `pod_uid` is whom it gave them to."""
    return msgspec.structs.replace(
        entry,
        generation=max(grant.generation for grant in grants),
        answered=attempt,
        unanswered=tuple(a for a in entry.unanswered if a != attempt),
        pod_uid=entry.pod_uid or (pod_uid if entry.pod_name else ""),
        addresses=tuple(grant.address for grant in grants),
    )


def view(entry: Entry, node: str, differences: tuple[str, ...] = ()) -> AttachmentView:
    """As tools show it."""
    return AttachmentView(
        container_id=entry.container_id,
        interface=entry.ifname,
        state=entry.state,
        node=node,
        network=entry.network,
        netns=entry.netns,
        pod_namespace=entry.pod_namespace,
        pod_name=entry.pod_name,
        pod_uid=entry.pod_uid,
        addresses=entry.addresses,
        mac=entry.mac,
        parent=entry.desired[0].parent if entry.desired else "",
        generation=entry.generation,
        trace_id=entry.trace_id,
        differences=differences,
    )
