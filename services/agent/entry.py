"""One attachment as the journal keeps it. Pure.

Owns the fields and the life of an entry: intent → completed → releasing, from any of which a DEL leads to releasing.
Must not know files. Fields are only added, with a default: journals outlive versions.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from services.agent.result import Result
from services.agent.state import DesiredInterface, OwnedLink
from shared.contracts.query import AttachmentView
from shared.ids import AttachmentId

UNANSWERED_MAX = 8
"""Attempts remembered without an answer; an allocate older than that has long expired."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`device` and `inode` are the namespace's identity during boot `boot_id`. `generation` is the lease's by the last reply,
    to `answered`; `unanswered` are attempts whose allocate may still be under way. `network` is the configuration's name.
    """

    container_id: str
    ifname: str
    state: Literal["intent", "completed", "releasing"]
    mode: Literal["native", "ipam"]
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


def with_attempt(unanswered: tuple[str, ...], attempt: str) -> tuple[str, ...]:
    return (*(a for a in unanswered if a != attempt), attempt)[-UNANSWERED_MAX:]


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
