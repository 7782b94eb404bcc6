"""What must hold of a whole cluster, judged while it runs and when it has come to rest.

Owns what only an observer who sees every moment can know: what is up when a record is stored, what was answered, what lives. What
can be judged at one look is the product's own: `services.allocator.audit` for log and memory, `shared.audit` for log, journals and
kernels. It folds the log itself, record by record, as it is stored: memory of an allocator is a claim, the log is the fact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from services.agent.entry import Entry, views
from services.allocator.audit import audit, follows, may_happen
from services.allocator.facts import Facts
from services.allocator.state import Snapshot, State
from services.allocator.view import kept_from_others, leases_page
from shared import subjects
from shared.audit import Evidence, Up, judge
from shared.contracts.codec import Codec, MessageError
from shared.contracts.ipam import ALLOCATE_REPLY, Allocated
from shared.contracts.lease import (
    RECORD,
    AttachConfirmed,
    AttachmentDetached,
    LeasesAllocated,
    LeasesInherited,
    LeasesRebound,
    LeasesReleased,
    LogRebuilt,
    Record,
    digest,
)
from shared.contracts.query import QueryLeases
from shared.limits import PAGE_MAX_LEASES
from shared.net.ranges import format_address, parse_address
from tests.simulation.hub import Hub, Stored, Stream, fits
from tests.simulation.kernel import Namespace, Wire

FACT_KNOWN_S = 15.0
"""So long after its fact was stored every allocator must know that a pod lives."""
GONE_KNOWN_S = 1.0
"""So long after its fact was stored no allocator may say that a pod is gone."""


_SNAPSHOT: Codec[Snapshot] = Codec(Snapshot)


class Attachment(msgspec.Struct, frozen=True):
    owner: str
    container_id: str
    ifname: str
    netns: str


class Checker:
    """`violations` are sentences; the first is the one to look at."""

    def __init__(
        self,
        wire: Wire,
        hub: Hub,
        lives_since: Callable[[str], float | None],
        count: Callable[[str], None],
    ) -> None:
        self._wire = wire
        self._count = count
        self._hub = hub
        self._records: list[bytes] = []
        self._base: tuple[int, bytes] = (0, b"")
        self._in_doubt = False
        self._lives_since = lives_since
        self._granted: set[tuple[str, str, str, int]] = set()
        self._acknowledged: dict[str, dict[Attachment, None]] = {}
        self.state = State()
        self.records = 0
        self.violations: list[str] = []
        wire.on_address = self.address_up

    def wrong(self, sentence: str) -> None:
        self.violations.append(sentence)

    # the log

    def stored(self, stream: Stream, stored: Stored) -> None:
        if stream.spec.name != "LEASES":
            return
        record = RECORD.decode(stored.data)
        if record.incarnation != self.state.incarnation and isinstance(record.events[0], LogRebuilt):
            self._rebuilt(record, stored)
            return
        state = self.state
        self.violations += follows(state, record, stored.sequence)
        # what a node that was silent has told is restored, not given
        if self._in_doubt and any(isinstance(e, LeasesAllocated) and not e.reason for e in record.events):
            self._in_doubt = False
            self._whole(f"record {stored.sequence} gives addresses after a loss, and")
        restored = {
            (event.owner, item.ifname)
            for event in record.events
            if isinstance(event, LeasesAllocated) and event.reason
            for item in event.items
        }
        for event in record.events:
            self._count(f"event {type(event).__struct_config__.tag}")
            self.violations += may_happen(state, event)
            match event:
                case LeasesAllocated():
                    self._allocated(event)
                case LeasesReleased():
                    # what the same record restores to the same owner is never free
                    if not restored.issuperset((event.owner, ifname) for ifname in event.ifnames):
                        self._released(event)
                case AttachmentDetached():
                    self._detached(event)
                case _:
                    pass
            state.evolve(event)
            if isinstance(event, LeasesAllocated | LeasesRebound | AttachConfirmed):
                self._grant(event.owner)
            elif isinstance(event, LeasesInherited):
                self._grant(event.heir)
        state.advance(record, stored.sequence, digest(stored.data))
        self._records.append(stored.data)
        self.records += 1
        if self.records % 64 == 0:
            self.violations += audit(state)

    # the loss of it

    def lost(self, sequence: int) -> None:
        """The log ends there now: what it says is what it said then."""
        base, _ = self._base
        del self._records[max(0, sequence - base) :]
        if sequence < base:
            self._base = (0, b"")
        self._fold_anew()

    def copy(self) -> tuple[tuple[int, bytes], tuple[bytes, ...]]:
        """The log as it is now, for `restored`."""
        return self._base, tuple(self._records)

    def restored(self, copy: tuple[tuple[int, bytes], tuple[bytes, ...]]) -> None:
        """An older copy has taken the log's place."""
        self._base, self._records = copy[0], list(copy[1])
        self._fold_anew()

    def _fold_anew(self) -> None:
        base, content = self._base
        self.state = State.from_snapshot(_SNAPSHOT.decode(content)) if content else State()
        for place, data in enumerate(self._records, base + 1):
            self.state.fold(RECORD.decode(data), place, digest(data))
        self._in_doubt = True

    def _rebuilt(self, record: Record, stored: Stored) -> None:
        """A new log begins on the snapshot that was stored before its first record."""
        chunks: dict[str, bytes] = {}
        prefix = subjects.snapshot(record.incarnation, stored.sequence, "*")
        for message in self._hub.streams["SNAPSHOTS"].messages.values():
            if fits(prefix, message.subject):
                chunks[message.subject.rpartition(".")[2]] = message.data
        content = b"".join(chunks[str(place)] for place in range(len(chunks) - 1))
        self.state = State.from_snapshot(_SNAPSHOT.decode(content))
        if self.state.digest != digest(stored.data):
            self.wrong(f"record {stored.sequence} does not begin the log that its snapshot stands for")
        self._base, self._records = (stored.sequence, content), []
        self._count(f"event {LogRebuilt.__struct_config__.tag}")
        self._in_doubt = True
        for owner in self.state.holdings:
            self._grant(owner)

    def _whole(self, when: str) -> None:
        """All that is up on a node is known: under its owner, or kept from everybody."""
        for violation in judge(self.evidence({})):
            self.wrong(f"{when} {violation.sentence}")

    def evidence(self, journals: Mapping[str, Iterable[Entry]], waiting: Collection[str] = ()) -> Evidence:
        """The log, these journals by node, and every kernel, as they are now. Leases of `waiting` owners, who are no more, are for
        whoever comes after them."""
        wire = self._wire
        leases = leases_page(self.state, Facts(), QueryLeases(limit=PAGE_MAX_LEASES)).leases
        return Evidence(
            leases=tuple(one for one in leases if one.pod_uid not in waiting),
            kept=frozenset(
                # whose address rests may still remove the link
                (
                    *kept_from_others(self.state),
                    *(format_address(one.address, one.family) for one in self.state.resting.values()),
                )
            ),
            attachments={
                node: tuple(view for entry in entries for view in views(entry, node))
                for node, entries in journals.items()
            },
            up=tuple(
                Up(
                    node=path.split("/")[1],
                    netns=path,
                    address=address,
                    container_id=wire.namespaces[path].container_id,
                    pod_uid=""
                    if wire.namespaces[path].owner.startswith("container:")
                    else wire.namespaces[path].owner,
                )
                for address, paths in wire.addresses.items()
                for path in paths
                # that it rests may be lost with the log, and nothing of ours would tell of another plugin's link
                if not wire.is_leaving(path, address)
            ),
        )

    def _allocated(self, event: LeasesAllocated) -> None:
        families: dict[str, set[int]] = {}
        for item in event.items:
            families.setdefault(item.ifname, set()).add(parse_address(item.address)[0])
        for ifname, found in families.items():
            if found != {4, 6}:
                self.wrong(f"{event.owner} {ifname} was given families {sorted(found)} only")

    def _released(self, event: LeasesReleased) -> None:
        holding = self.state.holdings.get(event.owner)
        if holding is None:
            return
        for ifname in event.ifnames:
            held = holding.interfaces.get(ifname)
            for lease in held.leases if held is not None else ():
                text = format_address(lease.address, lease.family)
                for netns in self._wire.addresses.get(text, ()) if not event.rest_until_ns else ():
                    is_own = self._wire.namespaces[netns].owner == event.owner
                    if not is_own and (lease.family, lease.address) in self.state.quarantine:
                        continue  # after a loss it is another's, and kept for him
                    self.wrong(f"{text} of {event.owner} {ifname} is released while it is up in {netns}")
        since_s = self._lives_since(event.owner)
        known_s = GONE_KNOWN_S if event.reason == "pod gone" else FACT_KNOWN_S
        if since_s is not None and since_s > known_s:
            self.wrong(f"{event.owner} lives, known for {since_s:.0f} s, and is released: {event.reason}")

    def _detached(self, event: AttachmentDetached) -> None:
        holding = self.state.holdings.get(event.owner)
        held = holding.interfaces.get(event.ifname) if holding else None
        if holding is None or held is None or held.generation != event.generation:
            return
        for lease in held.leases:
            text = format_address(lease.address, lease.family)
            for netns in self._wire.addresses.get(text, ()) if not event.rest_until_ns else ():
                self.wrong(f"{event.owner} {event.ifname} counts as detached while {text} is up in {netns}")

    def _grant(self, owner: str) -> None:
        holding = self.state.holdings.get(owner)
        for ifname, held in holding.interfaces.items() if holding is not None else ():
            for lease in held.leases:
                self._granted.add(
                    (owner, ifname, format_address(lease.address, lease.family), held.generation)
                )

    # what allocators say

    def replied(self, subject: str, data: bytes) -> None:
        if not subject.startswith("_INBOX_agent"):
            return
        try:
            reply = ALLOCATE_REPLY.decode(data)
        except MessageError as error:
            self.wrong(f"an answer to an agent cannot be read: {error}")
            return
        if not isinstance(reply, Allocated):
            return
        for grant in reply.grants:
            text = grant.address.partition("/")[0]
            if (reply.pod_uid, grant.ifname, text, grant.generation) not in self._granted:
                self.wrong(
                    f"{text} was answered to {reply.pod_uid} {grant.ifname} in generation {grant.generation}, "
                    f"which no record of the log gave"
                )

    # what kernels do

    def address_up(self, namespace: Namespace, ifname: str, address: str) -> None:
        others = [path for path in self._wire.addresses[address] if path != namespace.path]
        if others:
            self.wrong(f"{address} comes up in {namespace.path} and is up in {others[0]}")
        holder = self.state.holder(*parse_address(address))
        if holder != namespace.owner and not self._in_doubt:
            self.wrong(
                f"{address} comes up in {namespace.path} of {namespace.owner}, the log's holder is {holder}"
            )

    # what runtimes are told

    def acknowledged(self, attachment: Attachment, addresses: tuple[str, ...]) -> None:
        """An ADD was answered, and nobody has begun to take the attachment down."""
        namespace = self._wire.namespaces.get(attachment.netns)
        link = namespace.links.get(attachment.ifname) if namespace is not None else None
        up = {a.partition("/")[0] for a in link.addresses} if link is not None else set[str]()
        if up != set(addresses):
            self.wrong(f"{attachment} was answered with {sorted(addresses)}, up are {sorted(up)}")
        if {parse_address(a)[0] for a in addresses} != {4, 6}:
            self.wrong(f"{attachment} was answered with {sorted(addresses)}: not both families")
        for address in addresses:
            others = self._acknowledged.setdefault(address, {})
            if any(other != attachment for other in others):
                self.wrong(f"{address} is acknowledged to {attachment} and to {next(iter(others))}")
            others[attachment] = None

    def refused(self, attachment: Attachment, ifnames: tuple[str, ...]) -> None:
        """An ADD was answered with an error: all or nothing."""
        namespace = self._wire.namespaces.get(attachment.netns)
        if namespace is None or namespace.is_disturbed:
            return
        left = [name for name in ifnames if name in namespace.links]
        if left and namespace.container_id == attachment.container_id:
            self.wrong(f"the ADD of {attachment} was refused and {left} are in the pod")

    def ends(self, attachment: Attachment) -> None:
        """A DEL of it begins, or its namespace goes."""
        for others in self._acknowledged.values():
            others.pop(attachment, None)
