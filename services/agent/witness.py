"""The node as a witness: tells the allocator what its journal and its namespaces hold, and where in the log it has been.

Owns when that is told, and when another incarnation of the log is adopted: only after its own claims are in it. Must not know
what the allocator makes of it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping

import structlog

from services.agent.entry import Entry
from services.agent.journal import Journal
from services.agent.kernel_thread import KernelThreads
from services.agent.scan import Scan
from shared import limits, subjects
from shared.bus import Bus, BusError, Message, Serving
from shared.contracts.codec import MessageError, encode
from shared.contracts.ipam import Mark
from shared.contracts.query import StrayView
from shared.contracts.witness import (
    WITNESS_QUESTION,
    Adopt,
    AskDetail,
    AskReport,
    Claim,
    WitnessDetail,
    WitnessReport,
    digest_of,
)
from shared.errors import OrbweaverError
from shared.ids import AttachmentId

log = structlog.get_logger()

CLAIMS_PER_MESSAGE = 500
"""A claim has at most some 1 KiB; a message must stay below 1 MiB."""
QUESTIONS_REMEMBERED = 16


def report_of(
    node: str, seen: Mark, entries: Iterable[Entry], is_busy: Callable[[AttachmentId], bool]
) -> WitnessReport:
    """What is compared: completed attachments; of containers with others only that something is under way. Pure."""
    known = tuple(entries)
    moving = {e.container_id for e in known if e.state != "completed" or is_busy(e.attachment)}
    settled = [
        (entry.container_id, held.ifname, held.generation, tuple(sorted(held.addresses)))
        for entry in known
        if entry.container_id not in moving
        for held in entry.leased
        if held.addresses
    ]
    return WitnessReport(
        node=node,
        seen=seen,
        digest=digest_of(settled),
        attachments=len(settled),
        unsettled=tuple(sorted(moving))[: limits.WITNESS_UNSETTLED_MAX],
        crowded=len(moving) > limits.WITNESS_UNSETTLED_MAX,
    )


def claims_of(entries: Iterable[Entry], scan: Scan) -> Iterator[Claim]:
    """Everything with an address in the journal, then what only the kernel shows. Pure."""
    links = {one.address: one.ifname for one in scan.sightings}
    told: set[str] = set()
    for entry in entries:
        for held in entry.leased:
            if not held.addresses:
                continue
            told.update(held.addresses)
            yield Claim(
                container_id=entry.container_id,
                ifname=held.ifname,
                addresses=held.addresses,
                generation=held.generation,
                state=entry.state,
                attempt=entry.attempt,
                pod_namespace=entry.pod_namespace,
                pod_name=entry.pod_name,
                pod_uid=entry.pod_uid,
                live=set(held.addresses) <= links.keys(),
            )
    for address in sorted(links.keys() - told):
        yield Claim(container_id="", ifname=links[address], addresses=(address,), state="kernel", live=True)


def strays_of(
    entries: Iterable[Entry], scan: Scan, is_busy: Callable[[AttachmentId], bool]
) -> tuple[StrayView, ...]:
    """What the kernel shows in a namespace without an entry that has it there. A namespace where something is under way is left
    out. `entries` has those of before and after the scan: an attachment may come or go meanwhile. Pure."""
    known: set[tuple[int, int, str]] = set()
    moving: set[tuple[int, int]] = set()
    for entry in entries:
        if entry.state != "completed" or is_busy(entry.attachment):
            moving.add((entry.device, entry.inode))
        known.update((entry.device, entry.inode, a) for held in entry.leased for a in held.addresses)
    return tuple(
        StrayView(address=one.address, interface=one.ifname, netns=one.netns)
        for one in scan.sightings
        if (one.device, one.inode) not in moving and (one.device, one.inode, one.address) not in known
    )


def details_of(
    node: str, question: str, seen: Mark, claims: tuple[Claim, ...], report: WitnessReport, scanned: bool
) -> tuple[WitnessDetail, ...]:
    """The claims in as many messages as they need, one at least. Pure."""
    parts = max(1, -(-len(claims) // CLAIMS_PER_MESSAGE))
    return tuple(
        WitnessDetail(
            node=node,
            question=question,
            seen=seen,
            part=part,
            parts=parts,
            claims=claims[part * CLAIMS_PER_MESSAGE : (part + 1) * CLAIMS_PER_MESSAGE],
            unsettled=report.unsettled,
            scanned=scanned and not report.crowded,
        )
        for part in range(parts)
    )


def is_evidence(scan: Scan, entries: Mapping[AttachmentId, Entry], seen: Mark) -> bool:
    """Whether what is not claimed is surely not there. No namespace at all beside attachments means that the mount is missing, and
    beside a journal without history that nothing is known. Pure."""
    if not scan.looked:
        return False
    if scan.namespaces:
        return True
    return bool(seen.incarnation) and not any(entry.state == "completed" for entry in entries.values())


class Witness:
    def __init__(
        self,
        *,
        bus: Bus,
        node: str,
        journal: Journal,
        kernel: KernelThreads,
        is_busy: Callable[[AttachmentId], bool],
        refused: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._node = node
        self._journal = journal
        self._kernel = kernel
        self._is_busy = is_busy
        self._refused = refused
        self._told: OrderedDict[str, None] = OrderedDict()
        self._scanning = asyncio.Lock()
        self._hurried = asyncio.Event()
        bus.connection.on_reconnect(self._hurry)

    async def run(self) -> None:
        """For ever: listens, and reports every `WITNESS_INTERVAL_S`, and soon after a change."""
        listening = await self._listen()
        try:
            quiet_s, told_change = 0.0, -1
            while True:
                if self._journal.changes != told_change or quiet_s >= limits.WITNESS_INTERVAL_S:
                    quiet_s, told_change = 0.0, self._journal.changes
                    await self._report()
                self._hurried.clear()
                try:
                    async with asyncio.timeout(limits.WITNESS_COALESCE_S):
                        await self._hurried.wait()
                    told_change = -1
                except TimeoutError:
                    quiet_s += limits.WITNESS_COALESCE_S
        finally:
            for one in listening:
                await one.stop()

    async def _listen(self) -> list[Serving]:
        while True:
            try:
                return [
                    await self._bus.serve(subject, self._on_question)
                    for subject in (subjects.ASK_WITNESS_ALL, subjects.ask_witness(self._node))
                ]
            except BusError as error:
                log.warning("nobody can ask this node yet", error=str(error))
                await asyncio.sleep(limits.WITNESS_COALESCE_S)

    def _hurry(self) -> None:
        """The hub may be another one now: what was told before may be lost."""
        self._hurried.set()

    def _made(self) -> WitnessReport:
        return report_of(self._node, self._journal.seen, self._journal.entries.values(), self._is_busy)

    async def _report(self) -> None:
        await self._publish(self._made())

    async def _publish(self, message: WitnessReport | WitnessDetail) -> None:
        try:
            await self._bus.publish(subjects.witness(self._node), encode(message))
        except BusError as error:
            log.info("not told as a witness", error=str(error))

    async def _on_question(self, message: Message) -> None:
        try:
            question = WITNESS_QUESTION.decode(message.data)
        except MessageError as error:
            self._refused("orb.ask.witness")
            log.warning("question refused", subject=message.subject, error=str(error))
            return
        match question:
            case AskReport():
                await self._report()
            case AskDetail():
                await self._tell(question.question)
            case Adopt():
                await self._adopt(question)

    async def _tell(self, question: str) -> None:
        """The same question while it is being answered is answered once."""
        if self._scanning.locked():
            return
        async with self._scanning:
            scan = await self._kernel.scan()
            entries = self._journal.entries
            claims = tuple(claims_of(entries.values(), scan))
            details = details_of(
                self._node,
                question,
                self._journal.seen,
                claims,
                self._made(),
                is_evidence(scan, entries, self._journal.seen),
            )
            self._told[question] = None
            if len(self._told) > QUESTIONS_REMEMBERED:
                self._told.popitem(last=False)
            for detail in details:
                await self._publish(detail)

    async def _adopt(self, adopted: Adopt) -> None:
        seen = self._journal.seen
        if adopted.question not in self._told or seen.incarnation in ("", adopted.mark.incarnation):
            return
        try:
            await self._journal.adopt(adopted.mark)
        except OrbweaverError as error:
            # the journal cannot be written: the next attach asks again
            log.warning("the new log is not adopted yet", error=error.message)
            return
        log.warning(
            "another log adopted", before=seen.incarnation, now=adopted.mark.incarnation, seen=seen.sequence
        )
