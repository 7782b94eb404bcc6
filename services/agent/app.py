"""The agent of one node: CNI calls in, answers out, and what others may ask it.

Owns the conversation: decoding, repeated attempts that join the running one, the answer in the version asked for, events
and metrics of each call. Must not know the order of an attach (attachments) or the kernel.
"""

from __future__ import annotations

import asyncio
from random import Random

import msgspec
import structlog

from services.agent import config as network
from services.agent import event
from services.agent import result as answer
from services.agent.allocation import Allocation
from services.agent.attachments import Attachments
from services.agent.call import Call, ForeignMessageError, Verb, decode
from services.agent.call_trace import CallTrace
from services.agent.detach import Detaching
from services.agent.entry import Entry, views
from services.agent.journal import Journal
from services.agent.kernel import Kernel
from services.agent.kernel_thread import KernelThreads
from services.agent.reconcile import Reconciliation
from services.agent.release import Releases
from services.agent.witness import Witness, strays_of
from shared import failpoint, subjects
from shared.bus import Bus, BusError, Message
from shared.clock import NodeClock
from shared.contracts.attach import AttachEvent
from shared.contracts.codec import MessageError, encode
from shared.contracts.query import (
    QUERY_ATTACHMENTS,
    AttachmentsPage,
    AttachmentView,
    StrayView,
)
from shared.errors import OrbweaverError
from shared.ids import AttachmentId
from shared.service import serve_status
from shared.settings import AgentSettings
from shared.telemetry import Telemetry
from shared.telemetry.metrics import AgentMetrics

log = structlog.get_logger()

CHECKS_AT_ONCE = 8
GRACE_S = 0.5
STOP_S = 5.0


class Reply(msgspec.Struct, frozen=True):
    exit_code: int
    body: bytes = b""


class App:
    """`journal` and `kernel` stay the caller's to close, after `run` has ended."""

    def __init__(
        self,
        settings: AgentSettings,
        bus: Bus,
        journal: Journal,
        kernel: Kernel,
        boot_id: str,
        telemetry: Telemetry,
        *,
        clock: NodeClock,
        random: Random,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._node = settings.node
        self._bus = bus
        self._journal = journal
        self._telemetry = telemetry
        self._releases = Releases(bus, journal, settings.node, clock=clock, random=random)
        self._metrics = AgentMetrics(
            telemetry.meter, attachments=lambda: len(journal.entries), unpublished=self._releases.waiting
        )
        self._allocation = Allocation(
            bus,
            settings.node,
            self._metrics,
            clock=clock,
            random=random,
            released_ns=lambda: self._releases.latest_ns,
            seen=lambda: journal.seen,
        )
        self._kernel = KernelThreads(kernel, boot_id, clock)
        self._attachments = Attachments(
            node=settings.node,
            boot_id=boot_id,
            journal=journal,
            kernel=self._kernel,
            allocation=self._allocation,
            releases=self._releases,
            clock=clock,
            random=random,
        )
        self._reconciliation = Reconciliation(
            node=settings.node,
            interval_s=settings.reconcile_interval_s,
            entries=journal.entries,
            attachments=self._attachments,
            emit=self._emit,
            kernel=self._kernel,
            clock=clock,
        )
        self._detaching = Detaching(
            node=settings.node,
            entries=journal.entries,
            attachments=self._attachments,
            clock=clock,
            emit=self._emit,
            refused=self._metrics.refused,
        )
        self._witness = Witness(
            bus=bus,
            node=settings.node,
            journal=journal,
            kernel=self._kernel,
            is_busy=self._attachments.is_busy,
            refused=self._metrics.refused,
        )
        self._running: dict[tuple[Verb, AttachmentId, str], asyncio.Task[Reply]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._serving = False

    def not_ready(self) -> str:
        """Empty, or why a pod cannot be attached now."""
        if not self._serving:
            return "not serving yet"
        if self._journal.problem:
            return self._journal.problem
        if not self._bus.connection.connected:
            return "the node's leaf of the bus is away"
        return "the allocator is away" if self._allocation.away() else ""

    async def run(self) -> None:
        """Serves for ever, or until the bus gives up. Raises BusError where a subject is denied."""
        await self._attachments.repair()
        served = [
            await self._bus.serve(subjects.ask_agent(self._node), self._on_attachments),
            await self._bus.serve(subjects.ask_detach(self._node), self._detaching.on_ask),
            await serve_status(
                self._bus,
                "agent",
                self._node,
                not_ready=self.not_ready,
                facts=self._facts,
                refused=self._metrics.refused,
            ),
            await self._bus.serve(subjects.cni(self._node), self._on_call),
        ]
        self._serving = True
        log.info("serving", attachments=len(self._journal.entries))
        reconciling = asyncio.create_task(self._reconciliation.run())
        witnessing = asyncio.create_task(self._witness.run())
        try:
            await self._bus.closed.wait()
        finally:
            self._serving = False
            reconciling.cancel()
            witnessing.cancel()
            for serving in served:
                await serving.stop()
            await self._end_calls()
            await self._releases.stop()
            self._kernel.close()

    async def _end_calls(self) -> None:
        """Those that only wait for somebody are not answered: their shims ask the next agent, with the same attempt."""
        for timeout_s in (GRACE_S, STOP_S):
            calls = set(self._running.values())
            if calls:
                _, waiting = await asyncio.wait(calls, timeout=timeout_s)
                for call in waiting:
                    call.cancel()

    async def _on_call(self, message: Message) -> None:
        arrived_ns = self._clock.boottime_ns()
        try:
            call = decode(message.headers, message.data, arrived_ns)
        except OrbweaverError as error:
            if isinstance(error, ForeignMessageError):
                self._metrics.refused("orb.cni")
            self._metrics.call("", 0.0, error.kind.name)
            body = answer.render_error(error, network.version_of(message.data))
            await self._reply(message, Reply(1, body))
            return
        if failpoint.hit("agent.call.taken"):
            return
        key = (call.verb, call.attachment, call.attempt)
        running = self._running.get(key)
        if running is not None:
            await self._reply(message, await asyncio.shield(running))
            return
        task = asyncio.create_task(self._serve(call, message, arrived_ns))
        self._running[key] = task
        task.add_done_callback(lambda _: self._running.pop(key, None))

    async def _serve(self, call: Call, message: Message, arrived_ns: int) -> Reply:
        """Answers and then tells of it; the trace ends with the answer."""
        events: list[AttachEvent] = []
        error: OrbweaverError | None = None
        with CallTrace(self._telemetry, self._clock, call, message.headers, arrived_ns) as trace:
            reply = Reply(1)
            try:
                reply = Reply(0, await self._answer(call, trace, events))
            except OrbweaverError as failure:
                error = failure
            except Exception as failure:
                log.exception("CNI call failed", verb=call.verb, attachment=str(call.attachment))
                error = OrbweaverError("internal", f"{type(failure).__name__}: {failure}")
            if error is not None:
                trace.fail(error.message)
                trace.set("error.type", error.kind.name)
                known_by = trace.trace_id if error.kind.name == "internal" else ""
                reply = Reply(1, answer.render_error(error, network.version_of(call.body), trace_id=known_by))
                if call.verb == "ADD":
                    log.info("attach failed", attachment=str(call.attachment), error=error.message)
                    duration_ns = self._clock.boottime_ns() - call.start_ns
                    events.append(
                        event.failed(
                            call, error, self._node, self._clock.unix_ns(), duration_ns, trace.trace_id
                        )
                    )
            replied_ns = self._clock.boottime_ns()
            await self._reply(message, reply)
            trace.step("reply", replied_ns)
        self._measure(call, (replied_ns - call.start_ns) / 1e9, (replied_ns - arrived_ns) / 1e9, error, trace)
        for happened in events:
            self._emit(happened)
        return reply

    async def _answer(self, call: Call, trace: CallTrace, events: list[AttachEvent]) -> bytes:
        """What goes to the runtime's stdout. Raises OrbweaverError."""
        # The chained plugins share container ID and interface with the main plugin; what it attached is not theirs.
        chained = call.name in ("coordinator", "ifacer")
        match call.verb:
            case "ADD":
                return await self._add(call, trace, events)
            case "DEL":
                entry = (
                    None
                    if chained
                    else await self._attachments.delete(call.attachment, "DEL", call.start_ns, trace)
                )
                if entry is not None:
                    events.append(self._detached(entry, call, trace))
            case "CHECK":
                network.demand_check(network.envelope(call.body).version)
                if not chained:
                    await self._attachments.check(call)
            case "GC":
                asked = network.envelope(call.body)
                if not chained and asked.valid is not None:
                    for entry in await self._attachments.collect(asked.network, asked.valid, call.start_ns):
                        events.append(self._detached(entry, call, trace))
            case "STATUS":
                network.envelope(call.body)
                if reason := self.not_ready():
                    raise OrbweaverError(
                        "not_available", f"node {self._node} cannot attach pods now: {reason}"
                    )
            case "VERSION":
                return answer.render_versions(network.version_of(call.body))
        return b""

    async def _add(self, call: Call, trace: CallTrace, events: list[AttachEvent]) -> bytes:
        asked = network.parse(call.body, call.name)
        if isinstance(asked, network.PassThrough):
            return asked.result
        entry, result = await self._attachments.add(call, asked, trace)
        if entry.attempt == call.attempt:
            events.append(
                event.completed(
                    entry, self._node, self._clock.unix_ns(), self._clock.boottime_ns() - call.start_ns
                )
            )
        return answer.render(result, asked.version)

    def _detached(self, entry: Entry, call: Call, trace: CallTrace) -> AttachEvent:
        return event.detached(
            entry,
            self._node,
            self._clock.unix_ns(),
            self._clock.boottime_ns() - call.start_ns,
            trace.trace_id,
        )

    def _measure(
        self, call: Call, whole_s: float, served_s: float, error: OrbweaverError | None, trace: CallTrace
    ) -> None:
        name = error.kind.name if error is not None else None
        self._metrics.call(call.verb, whole_s, name)
        waited_s = trace.waited_ns / 1e9
        if trace.asked:
            self._metrics.allocation(served_s, name, waited_s)
        elif call.verb == "DEL":
            self._metrics.release(served_s, name, waited_s)

    async def _reply(self, message: Message, reply: Reply) -> None:
        if failpoint.hit("agent.reply"):
            return
        try:
            await self._bus.publish(message.reply, reply.body, {"Orb-Exit": str(reply.exit_code)})
        except BusError as error:
            # The shim asks again with the same attempt.
            log.warning("answer lost", error=str(error))

    def _emit(self, happened: AttachEvent) -> None:
        task = asyncio.create_task(self._publish(happened))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _publish(self, happened: AttachEvent) -> None:
        try:
            await self._bus.publish(subjects.attach(self._node), encode(happened))
        except BusError as error:
            log.info("event lost", kind=type(happened).__name__, error=str(error))

    async def _on_attachments(self, message: Message) -> bytes | None:
        try:
            question = QUERY_ATTACHMENTS.decode(message.data)
        except MessageError:
            self._metrics.refused("orb.ask.agent")
            return None
        slots = asyncio.Semaphore(CHECKS_AT_ONCE)

        async def shown(entry: Entry) -> tuple[AttachmentView, ...]:
            async with slots:
                differences = await self._kernel.differences(entry) if question.check else ()
            return views(entry, self._node, differences)

        entries = sorted(self._journal.entries.values(), key=lambda entry: entry.attachment)
        rows = await asyncio.gather(*map(shown, entries))
        strays = await self._strays() if question.strays else ()
        attachments = tuple(row for of_entry in rows for row in of_entry)
        return encode(AttachmentsPage(attachments=attachments, strays=strays))

    async def _strays(self) -> tuple[StrayView, ...]:
        before = tuple(self._journal.entries.values())
        scan = await self._kernel.scan()
        return strays_of((*before, *self._journal.entries.values()), scan, self._attachments.is_busy)

    def _facts(self) -> dict[str, str]:
        return {
            "attachments": str(len(self._journal.entries)),
            "unpublished_releases": str(self._releases.waiting()),
            "node": self._node,
            "netns": self._settings.netns or "own",
        }
