"""Attach, detach, check: the life of every attachment of this node.

Owns the order of the steps (intent durable → addresses → kernel → journal complete), what undoes a failure, and who waits
for whom: calls of one attachment take turns, a DEL ends a running ADD, an ADD that began before a DEL is refused, and so is
one of a sandbox whose pod has a newer one.
Must not know how a call arrives or is answered.
"""

from __future__ import annotations

import asyncio
import errno
from collections import OrderedDict
from collections.abc import Callable
from random import Random

import msgspec
import structlog

from services.agent import desired as wish
from services.agent.allocation import Allocation, request_of
from services.agent.call import Call
from services.agent.call_trace import CallTrace
from services.agent.config import Ipam, Macvlan, Native, link_of_network
from services.agent.entry import Entry, answered, has_further_networks, intent, mode_of
from services.agent.execute import KernelError
from services.agent.journal import Journal
from services.agent.kernel import AttachedInterface
from services.agent.kernel_thread import KernelThreads
from services.agent.netns import Netns
from services.agent.op import AddRoute
from services.agent.release import Releases
from services.agent.result import Result, ResultInterface
from services.agent.sandbox import Sandboxes
from services.agent.state import DesiredInterface
from services.agent.turn import Turns, uninterrupted
from shared import failpoint
from shared.clock import NodeClock
from shared.contracts.ipam import Allocated
from shared.errors import OrbweaverError
from shared.ids import AttachmentId

log = structlog.get_logger()

DETACHED_REMEMBERED = 4096
_SECOND_NS = 1_000_000_000
_RESERVE_S = 1.0
"""What must be left of an ADD's deadline when the release of its predecessor is acknowledged."""


class Attachments:
    def __init__(
        self,
        *,
        node: str,
        boot_id: str,
        journal: Journal,
        kernel: KernelThreads,
        allocation: Allocation,
        releases: Releases,
        clock: NodeClock,
        random: Random,
    ) -> None:
        self._node = node
        self._boot_id = boot_id
        self._journal = journal
        self._kernel = kernel
        self._allocation = allocation
        self._releases = releases
        self._clock = clock
        self._random = random
        self._turns = Turns()
        self._sandboxes = Sandboxes(journal.entries.values(), boot_id)
        self._adding: dict[asyncio.Task[object], Call] = {}
        self._superseded: set[asyncio.Task[object]] = set()
        self._detached_ns: OrderedDict[AttachmentId, int] = OrderedDict()

    def is_busy(self, attachment: AttachmentId) -> bool:
        return self._turns.is_taken(attachment)

    async def add(self, call: Call, config: Native | Ipam, trace: CallTrace) -> tuple[Entry, Result]:
        """The completed entry and its result; a repetition gives the same. Raises OrbweaverError; then nothing is left
        in the pod, and the entry stays as an intent for the retry or the DEL."""
        task: asyncio.Task[object] | None = asyncio.current_task()
        assert task is not None
        if not self._sandboxes.enter(call.pod.uid, call.container_id, call.start_ns):
            raise _superseded(call.attachment)
        self._supersede(
            lambda older: (
                older.pod.uid == call.pod.uid != ""
                and older.container_id != call.container_id
                and older.start_ns <= call.start_ns
            )
        )
        self._adding[task] = call
        try:
            queued_ns = self._clock.boottime_ns()
            async with self._turns.turn(call.attachment):
                trace.waited_ns += self._clock.boottime_ns() - queued_ns
                if call.start_ns < self._detached_ns.get(call.attachment, 0):
                    raise _superseded(call.attachment)
                if call.deadline_ns <= self._clock.boottime_ns():
                    raise OrbweaverError("try_later", f"{call.attachment}: its turn came after the deadline")
                return await self._add(call, config, trace)
        except asyncio.CancelledError:
            if task not in self._superseded:
                raise
            task.uncancel()
            raise _superseded(call.attachment) from None
        finally:
            del self._adding[task]
            self._superseded.discard(task)

    async def delete(
        self, attachment: AttachmentId, reason: str, start_ns: int, trace: CallTrace | None = None
    ) -> Entry | None:
        """Detaches by the journal alone and begins the release; the entry, or None where there was nothing to do.

        Success also where the namespace is gone. Raises OrbweaverError where a link of ours stays.
        """
        self._remember(attachment, start_ns)
        self._supersede(lambda older: older.attachment == attachment and older.start_ns <= start_ns)
        queued_ns = self._clock.boottime_ns()
        async with self._turns.turn(attachment):
            if trace is not None:
                trace.waited_ns += self._clock.boottime_ns() - queued_ns
            entry = self._journal.entries.get(attachment)
            if entry is None or self._releases.is_begun(attachment):
                return None
            if entry.boot_id == self._boot_id and entry.begun_boottime_ns > start_ns:
                # A request that its runtime gave up long ago; the container was attached anew since.
                return None
            if entry.state != "releasing":
                began_ns = self._clock.boottime_ns()
                entry = msgspec.structs.replace(entry, state="releasing", reason=reason)
                await self._journal.put(entry)
                failpoint.hit("agent.journal.releasing")
                if trace is not None:
                    trace.step("journal.releasing", began_ns)
            await self._release(entry, trace)
            return entry

    def _supersede(self, is_over: Callable[[Call], bool]) -> None:
        """Ends the running ADDs that are over because of a later call."""
        for task, adding in list(self._adding.items()):
            if is_over(adding) and task not in self._superseded:
                self._superseded.add(task)
                task.cancel()

    async def check(self, call: Call) -> None:
        """Raises OrbweaverError: `container_unknown`, or `check_failed` with every difference."""
        async with self._turns.turn(call.attachment):
            entry = self._journal.entries.get(call.attachment)
            if entry is None or entry.state != "completed":
                raise OrbweaverError("container_unknown", f"{call.attachment} is not attached on this node")
            differences = await self._kernel.differences(entry, call.netns)
        if differences:
            raise OrbweaverError("check_failed", f"{call.attachment}: {'; '.join(differences)}")

    async def collect(self, network: str, valid: frozenset[tuple[str, str]], start_ns: int) -> list[Entry]:
        """CNI spec 1.1 "GC": detaches what is of this network and not valid, sparing what was begun after `start_ns` or has a
        call under way. Raises OrbweaverError."""
        doomed = [
            entry.attachment
            for entry in self._journal.entries.values()
            if entry.network == network
            and (entry.container_id, entry.ifname) not in valid
            and not self.is_busy(entry.attachment)
        ]
        outcomes = await asyncio.gather(
            *(self.delete(attachment, "GC", start_ns) for attachment in doomed), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Entry)]

    async def repair(self) -> None:
        """At the start: ends what a killed agent had begun. A link of an unfinished ADD is removed, its entry stays."""
        for entry in tuple(self._journal.entries.values()):
            try:
                if entry.state == "releasing":
                    await self._release(entry)
                elif entry.state == "intent":
                    await self._kernel.detach(entry)
                if entry.state != "completed":
                    failpoint.hit("agent.repair")
            except OrbweaverError as error:
                log.warning("not repaired", attachment=str(entry.attachment), error=error.message)

    async def finish_detach(self, entry: Entry) -> None:
        """Tries again what an earlier detach could not remove. Raises OrbweaverError."""
        async with self._turns.turn(entry.attachment):
            current = self._journal.entries.get(entry.attachment)
            if current is not None and current.state == "releasing":
                await self._release(current)

    async def _release(self, entry: Entry, trace: CallTrace | None = None) -> None:
        if not self._releases.is_begun(entry.attachment):
            spared = await self._kernel.detach(entry, trace)
            failpoint.hit("agent.kernel.detached")
            if spared and not entry.generation:
                # Nobody knows whose they are. If the journal was lost, and this attempt got the addresses of before, a link of
                # before has them: the witnesses settle it when the link is gone.
                entry = msgspec.structs.replace(entry, unanswered=())
            self._releases.begin(entry)

    async def _add(self, call: Call, config: Native | Ipam, trace: CallTrace) -> tuple[Entry, Result]:
        known = await self._known(call)
        self._refuse_second(call)
        with self._kernel.open_pod(call.netns) as netns:
            if known is not None:
                standing = await self._standing(known, config, netns)
                if standing is not None:
                    return known, standing
                if (known.device, known.inode) != (netns.device, netns.inode):
                    await self._kernel.detach(known, trace)
            began_ns = self._clock.boottime_ns()
            mac = wish.mac_of(self._random.randbytes(wish.MAC_BYTES)) if isinstance(config, Native) else ""
            entry = intent(call, config, netns, self._boot_id, mac, known)
            entry = msgspec.structs.replace(entry, trace_id=trace.trace_id, begun_unix_ns=trace.start_unix_ns)
            await self._journal.put(entry)
            failpoint.hit("agent.intent.journaled")
            trace.step("journal.intent", began_ns)
            trace.asked = True
            with trace.child("allocate"):
                allocated = await self._allocation.ask(request_of(call, config, self._node), call.deadline_ns)
            return await self._build(config, netns, known, entry, allocated, trace)

    async def _known(self, call: Call) -> Entry | None:
        """What the journal has of this attachment, once the release of its predecessor is acknowledged."""
        known = self._journal.entries.get(call.attachment)
        if known is None or known.state != "releasing":
            return known
        await self._release(known)
        left_s = (call.deadline_ns - self._clock.boottime_ns()) / _SECOND_NS - _RESERVE_S
        if not await self._releases.settled(call.attachment, left_s):
            raise OrbweaverError(
                "try_later", f"{call.attachment}: its earlier DEL is not acknowledged by the allocator yet"
            )
        return None

    def _refuse_second(self, call: Call) -> None:
        """Raises OrbweaverError where the interface is part of another attachment of the container, which has its addresses."""
        for entry in self._journal.entries.values():
            if (
                entry.container_id == call.container_id
                and entry.state != "releasing"
                and any(one.ifname == call.ifname for one in entry.others)
            ):
                raise OrbweaverError(
                    "link_exists", f"{call.attachment} was attached together with {entry.ifname} already"
                )

    async def _standing(self, known: Entry, config: Native | Ipam, netns: Netns) -> Result | None:
        """The result of an earlier ADD, if all is still as that ADD left it."""
        same = (
            known.state == "completed"
            and known.boot_id == self._boot_id
            and (known.device, known.inode) == (netns.device, netns.inode)
            and (known.network, known.mode) == (config.network, mode_of(config))
            and known.further_networks == has_further_networks(config)
        )
        return known.result if same and not await self._kernel.differences(known, netns.path) else None

    async def _build(
        self,
        config: Native | Ipam,
        netns: Netns,
        known: Entry | None,
        entry: Entry,
        allocated: Allocated,
        trace: CallTrace,
    ) -> tuple[Entry, Result]:
        self._journal.witness(allocated.mark)
        shares = wish.shares(allocated, entry.ifname, further_networks=has_further_networks(config))
        entry = answered(entry, entry.attempt, shares, allocated.pod_uid)
        gateways, routes = wish.gateways_of(shares, allocated.default_route_nic), wish.routes_of(shares)
        called = shares[0].grants
        try:
            if isinstance(config, Ipam):
                return await self._complete(entry, (), wish.result(called, gateways[0], routes[0]), trace)
            wanted = tuple(
                wish.interface(
                    share.ifname,
                    _link(config, share, allocated),
                    wish.mac_at(entry.mac, position),
                    share.grants,
                    gateways[position],
                    routes[position],
                )
                for position, share in enumerate(shares)
            )
            if known is not None and _is_beyond(known, wanted):
                await self._kernel.detach(known, trace)
            made, desired = await self._attach(netns, wanted, trace)
            by_which = tuple(address.gateway for address in desired[0].addresses)
            result = wish.result(called, by_which, desired[0].routes, _result_interface(made[0], netns))
            return await self._complete(entry, desired, result, trace)
        except BaseException as failure:
            await self._undo(entry, trace, failure)
            raise

    async def _complete(
        self, entry: Entry, desired: tuple[DesiredInterface, ...], result: Result, trace: CallTrace
    ) -> tuple[Entry, Result]:
        began_ns = self._clock.boottime_ns()
        entry = msgspec.structs.replace(entry, state="completed", desired=desired, result=result)
        await self._journal.put(entry)
        failpoint.hit("agent.journal.completed")
        trace.step("journal.complete", began_ns)
        return entry, result

    async def _attach(
        self, netns: Netns, wanted: tuple[DesiredInterface, ...], trace: CallTrace
    ) -> tuple[tuple[AttachedInterface, ...], tuple[DesiredInterface, ...]]:
        """A route that the pod has by another link already is left to that link: each network may be attached by an ADD of its own."""
        while True:
            try:
                return await self._kernel.attach(netns, wanted, trace), wanted
            except KernelError as failure:
                op = failure.op
                if not (isinstance(op, AddRoute) and failure.errno == errno.EEXIST):
                    raise
                less = tuple(
                    wish.without_route(one, op.dst) if one.ifname == op.ifname else one for one in wanted
                )
                if less == wanted:
                    raise
                wanted = less

    async def _undo(self, entry: Entry, trace: CallTrace, failure: BaseException) -> None:
        """The kernel undid what it had begun; this ends what was whole, and keeps the generation for the DEL."""
        try:
            await self._kernel.detach(entry, trace)
            await uninterrupted(self._journal.put(entry))
        except OrbweaverError as error:
            log.warning(
                "undo is incomplete",
                attachment=str(entry.attachment),
                error=error.message,
                after=str(failure),
            )

    def _remember(self, attachment: AttachmentId, start_ns: int) -> None:
        self._detached_ns[attachment] = max(start_ns, self._detached_ns.pop(attachment, 0))
        if len(self._detached_ns) > DETACHED_REMEMBERED:
            self._detached_ns.popitem(last=False)


def _link(config: Native, share: wish.Share, allocated: Allocated) -> Macvlan:
    """Raises OrbweaverError that names the network."""
    reference = share.network or config.reference
    if not reference:
        assert config.link is not None
        return config.link
    spec_json = allocated.networks.get(reference)
    if spec_json is None:
        raise OrbweaverError(
            "network_unknown", f"SpiderMultusConfig {reference} is not in the allocator's answer"
        )
    return link_of_network(reference, spec_json)


def _is_beyond(known: Entry, wanted: tuple[DesiredInterface, ...]) -> bool:
    """Whether an earlier ADD made a link that is not wanted any more, or not as the same one."""
    macs = {interface.ifname: interface.mac for interface in wanted}
    return any(macs.get(made.ifname) != made.mac for made in known.desired)


def _result_interface(made: AttachedInterface, netns: Netns) -> ResultInterface:
    return ResultInterface(name=made.ifname, mac=made.mac, sandbox=netns.path, mtu_bytes=made.mtu_bytes)


def _superseded(attachment: AttachmentId) -> OrbweaverError:
    return OrbweaverError(
        "attempt_superseded",
        f"{attachment} was detached, or its pod has a newer sandbox, while this ADD was under way",
    )
