"""The leading allocator: takes requests, decides them in batches, appends each batch as one record, then answers.

Owns the order "append, then reply" and the queue before it. Must not know how a decision is made (decide.py) or how the log
is fenced (log.py). Everything decided while one append is in flight waits for the next: that is the group commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

import msgspec
import structlog

from services.allocator import decide
from services.allocator.adoption import Adopting, Pending
from services.allocator.collector import Collector, key_of
from services.allocator.facts import Changes, Facts
from services.allocator.hearing import Hearing
from services.allocator.history import History
from services.allocator.log import LeaseLog, LogLost
from services.allocator.log_time import LogTime
from services.allocator.state import State
from services.allocator.waiting import Waiting
from services.allocator.watch import Testimony, Watch
from services.allocator.whole import whole
from shared import failpoint, limits, subjects
from shared.bus import Bus, BusError, BusTimeout, Message, NoResponder, Work
from shared.clock import Clock
from shared.contracts.adopt import AdoptionView
from shared.contracts.codec import MessageError, encode
from shared.contracts.facts import (
    ASK_FACTS_TIMEOUT_S,
    FACT_ANSWER,
    AskFact,
)
from shared.contracts.ipam import (
    ALLOCATE,
    RELEASE,
    Allocate,
    Allocated,
    InterfaceRequest,
    NetworkInterface,
    Refused,
    Release,
)
from shared.contracts.lease import LeaseEvent
from shared.manifests import annotations as notes
from shared.selection.rule import Refusal
from shared.telemetry import Telemetry, extract
from shared.telemetry.metrics import AllocatorMetrics

log = structlog.get_logger()

STEP_PODS = 2000
"""So many pods are looked at before whatever else waits has its turn: leadership is to be renewed, requests are to be answered."""

BATCH_BYTES = limits.RECORD_MAX_BYTES // 2
"""A batch takes nothing more in once its events have so many bytes: the last decision may add some, and stays within the limit."""


class _Request(msgspec.Struct):
    message: Message
    command: Allocate
    expires_s: float
    arrived_ns: int
    asked: bool = False


class _Answer(msgspec.Struct):
    request: _Request
    owner: str
    refusal: Refusal | None
    decided_ns: int
    requests: tuple[InterfaceRequest, ...] = ()


def _parts(events: list[LeaseEvent], size_bytes: int) -> Iterator[tuple[LeaseEvent, ...]]:
    """All in one record, but where a node's claims are more than one may hold."""
    if size_bytes <= limits.RECORD_MAX_BYTES:
        yield tuple(events)
        return
    part: list[LeaseEvent] = []
    part_bytes = 0
    for event in events:
        part.append(event)
        part_bytes += len(encode(event))
        if part_bytes > BATCH_BYTES:
            yield tuple(part)
            part, part_bytes = [], 0
    if part:
        yield tuple(part)


class Leader:
    """One term. `run` returns when leadership is lost, and raises Fenced or LogBroken; memory is void then."""

    def __init__(
        self,
        bus: Bus,
        state: State,
        facts: Facts,
        lease_log: LeaseLog,
        telemetry: Telemetry,
        metrics: AllocatorMetrics,
        clock: Clock,
        time: LogTime,
        history: History,
        watch: Watch,
    ) -> None:
        self._bus = bus
        self.state = state
        self._facts = facts
        self._log = lease_log
        self._telemetry = telemetry
        self._metrics = metrics
        self._clock = clock
        self._time = time
        self._history = history
        self._requests: Waiting[_Request] = Waiting()
        self._releases: deque[tuple[Message, Release]] = deque()
        self._changed_pods: dict[tuple[str, str], None] = {}
        self._wake = asyncio.Event()
        self.hearing = Hearing(bus, state, facts, watch, clock, self._wake.set)
        self.collector = Collector(bus, state, facts, watch, clock, metrics, self._judge_soon)
        self.adopting = Adopting(state, facts, clock, self._wake.set, metrics.refused)
        self._facts_are_whole = False
        self._asking: set[asyncio.Task[None]] = set()
        self._asked: dict[tuple[str, str], list[_Request]] = {}
        """Pods that are being read through, each with the requests that wait for it: they are decided in the order they came in."""
        self._work: Work | None = None
        self._refuted = ""
        self.settled = asyncio.Lock()
        """Held while memory is ahead of the log: a reader takes it to see only what is durable."""

    @property
    def queued(self) -> int:
        return len(self._requests)

    def on_allocate(self, message: Message) -> None:
        """Takes note of a request; it is decided with the next batch, if its caller still waits then."""
        try:
            command = ALLOCATE.decode(message.data)
            if not message.reply:
                raise MessageError("it names no subject to reply to")
        except MessageError as error:
            self._metrics.refused("orb.ipam.allocate")
            log.warning("request refused", subject=message.subject, error=str(error))
            return
        request = _Request(
            message,
            command,
            self._clock.monotonic_s() + command.ttl_ms / 1000,
            self._clock.unix_ns() if message.headers else 0,
        )
        if message.subject != subjects.allocate(command.node):
            self._metrics.refused("orb.ipam.allocate")
            log.warning(
                "request refused", subject=message.subject, node=command.node[: limits.NAME_MAX_BYTES]
            )
            return
        for refused in self._requests.put(command.node, request):
            waiting = self._requests.of_node(refused.command.node)
            told = f"{waiting} requests of node {refused.command.node} wait already, {len(self._requests)} of all"
            self._reply_soon(refused, Refusal("try_later", told))
        self._wake.set()

    def facts_changed(self, changes: Changes) -> None:
        """What pods, StatefulSets and nodes left behind may be due."""
        for key in changes.pods:
            self._judge_soon(key)
        for namespace, name in changes.stateful_sets:
            for pod in self.state.pods_of_set(namespace, name):
                self._judge_soon((namespace, pod))
        for node in changes.nodes:
            self.collector.node_changed(node)
        if changes.nodes:
            self.hearing.nodes_changed()
        if changes.settings:
            self.collector.scan()

    def _judge_soon(self, key: tuple[str, str]) -> None:
        self._changed_pods[key] = None
        self._wake.set()

    def collects_nothing(self) -> str:
        """Why nothing is judged now; empty where it is. What is absent from facts that are not whole may be there."""
        if not self._facts.synced:
            return "the objects are not all known yet"
        return "" if self._facts_are_whole else "whether the objects are all known is asked of the controller"

    async def run(self) -> None:
        """Decides and appends for ever."""
        for number, holding in enumerate(self.state.holdings.values(), 1):
            self._changed_pods[key_of(holding)] = None
            if number % STEP_PODS == 0:
                await asyncio.sleep(0)
        self._wake.set()
        self._work = await self._bus.work("RELEASES", "allocator")
        self.hearing.begin()
        asking = asyncio.create_task(self._ask_for_all())
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        taking = asyncio.create_task(self._take_releases(self._work))
        deciding = asyncio.create_task(self._decide_for_ever())
        collecting = asyncio.create_task(self.collector.run())
        tasks = {taking, deciding, collecting}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, *self._asking):
                task.cancel()
            # at once: who is cancelled while it waits here does not come further
            self.hearing.stop()
            await asyncio.gather(*tasks, *self._asking, return_exceptions=True)
            await self.collector.close()
            self.adopting.close()
            await self.hearing.close()
            if self._bus.connection.connected:
                await self._work.stop()

    async def _decide_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._is_due():
                async with self.settled:
                    await self._commit()
                # readers, and messages that have arrived meanwhile
                await asyncio.sleep(0)

    def refute(self, why: str) -> None:
        """The log is not whole, or not the right one: the term ends before anything more is decided."""
        self._refuted = why
        self._wake.set()

    def _is_due(self) -> bool:
        if lost := self._refuted or self.hearing.lost:
            raise LogLost(lost)
        if len(self._requests) or self._releases or self.hearing.is_due or self.adopting.is_due:
            return True
        return bool(self._changed_pods) and self._facts.synced and self._facts_are_whole

    async def _commit(self) -> None:
        now_ns = max(self.state.at_ns, self._clock.unix_ns())
        events: list[LeaseEvent] = []
        size_bytes = self._apply(self._time.moved(now_ns, self._clock.monotonic_s()), events)
        self.state.wake(now_ns)
        looked_at = 0
        while (
            self._changed_pods
            and self._facts_are_whole
            and self._facts.synced
            and size_bytes < BATCH_BYTES
            and looked_at < STEP_PODS
        ):
            looked_at += 1
            key = next(iter(self._changed_pods))
            del self._changed_pods[key]
            collected = decide.decide_collect(self.state, self._facts, *key, now_ns).events
            size_bytes += self._apply(collected, events)
            size_bytes += self._apply(self.collector.decide(key, now_ns), events)
        settled: list[Message] = []
        while self._releases and size_bytes < BATCH_BYTES:
            message, release = self._releases.popleft()
            released = decide.decide_release(
                self.state, self._facts, release, now_ns, facts_are_whole=self._facts_are_whole
            )
            size_bytes += self._apply(released.events, events)
            if not self._facts_are_whole:
                for holding in self.state.holdings_of_container(release.container_id):
                    self._changed_pods[key_of(holding)] = None
            settled.append(message)
        adoptions: list[tuple[Pending, AdoptionView]] = []
        while self.adopting.is_due and size_bytes < BATCH_BYTES:
            adopted, pending, view = self.adopting.decide()
            size_bytes += self._apply(adopted, events)
            adoptions.append((pending, view))
        heard: Testimony | None = None
        hears = self.hearing.is_due and size_bytes < BATCH_BYTES
        if hears:
            claimed, heard = self.hearing.decide()
            size_bytes += self._apply(claimed, events)
        answers: list[_Answer] = []
        clock_s = self._clock.monotonic_s()
        while len(self._requests) and size_bytes < BATCH_BYTES:
            request = self._requests.take()
            if clock_s >= request.expires_s:
                self._metrics.answered("expired")
                continue
            size_bytes += self._decide(request, now_ns, events, answers)
        if events:
            records = 0
            began_s, began_ns = self._clock.monotonic_s(), self._clock.unix_ns()
            for part in _parts(events, size_bytes):
                record = await self._log.append(part, now_ns)
                self.state.advance(record, self._log.sequence, self._log.digest)
                records += 1
            self._history.appended(self.state, records)
            self._metrics.append(self._clock.monotonic_s() - began_s, len(events))
            self._trace(answers, began_ns, self._clock.unix_ns(), len(events))
        if hears:
            self.hearing.appended(heard)
        for pending, view in adoptions:
            self.adopting.answer(pending, view)
        for answer in answers:
            await self._answer(answer)
        for message in settled:
            if self._work is not None:
                await self._ack(self._work, message)

    def _apply(self, new: tuple[LeaseEvent, ...], events: list[LeaseEvent]) -> int:
        """Memory takes the events now, so that the next decision of this batch sees them."""
        size_bytes = 0
        for event in new:
            self._history.before(event)
            self.state.evolve(event)
            size_bytes += len(encode(event))
        events.extend(new)
        return size_bytes

    def _decide(
        self, request: _Request, now_ns: int, events: list[LeaseEvent], answers: list[_Answer]
    ) -> int:
        command = request.command
        refusal = self._unsafe(command)
        if refusal is not None:
            answers.append(_Answer(request, "", refusal, self._clock.unix_ns()))
            return 0
        waiting = self._asked.get((command.pod_namespace, command.pod_name))
        if waiting is not None:
            waiting.append(request)
            self._requests.hold(command.node)
            return 0
        succeeded = decide.decide_succession(self.state, self._facts, command, now_ns).events
        size_bytes = self._apply(succeeded, events)
        decision = decide.decide_allocate(self.state, self._facts, command, now_ns, asked=request.asked)
        decided_ns = self._clock.unix_ns() if request.arrived_ns else 0
        match decision:
            case decide.Accepted():
                failpoint.hit("allocator.decided")
                answers.append(_Answer(request, decision.owner, None, decided_ns, decision.requests))
                size_bytes += self._apply(decision.events, events)
            case decide.Rejected():
                answers.append(_Answer(request, "", decision.refusal, decided_ns))
            case decide.AskFacts():
                self._asked[decision.namespace, decision.name] = [request]
                self._requests.hold(command.node)
                task = asyncio.create_task(self._ask(decision.namespace, decision.name))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
        return size_bytes

    def _unsafe(self, command: Allocate) -> Refusal | None:
        if not self._facts.synced:
            return Refusal("try_later", "the objects are not all known yet")
        seen = command.seen
        if seen.incarnation and seen.incarnation != self.state.incarnation:
            self.hearing.ask(command.node)
            return Refusal(
                "log_unsafe",
                f"node {command.node} holds leases of log {seen.incarnation}, this is log {self.state.incarnation}",
            )
        if seen.sequence > self.state.sequence:
            return Refusal(
                "log_unsafe",
                f"node {command.node} has seen record {seen.sequence}, the log ends at {self.state.sequence}: records are lost",
            )
        return None

    async def _ask_for_all(self) -> None:
        """Once in a term: what is absent from facts that are not whole may be there."""
        await whole(self._bus, self._facts, "collection")
        self._facts_are_whole = True
        self._wake.set()

    async def _ask(self, namespace: str, name: str) -> None:
        """Reads a pod through to its source and puts the requests for it back. While the source is away nothing is settled."""
        ask = encode(AskFact(kind="Pod", namespace=namespace, name=name))
        try:
            answer = FACT_ANSWER.decode(
                (await self._bus.request(subjects.ASK_FACTS, ask, ASK_FACTS_TIMEOUT_S)).data
            )
        except (BusError, MessageError) as error:
            told = (
                f"pod {namespace}/{name} is not known as its node knows it, and its source is away: {error}"
            )
            for request in self._asked.pop((namespace, name)):
                self._requests.let_go(request.command.node)
                self._reply_soon(request, Refusal("try_later", told))
            return
        if answer.fact is not None:
            self._facts.apply(answer.fact, 0)
        for request in self._asked.pop((namespace, name)):
            request.asked = True
            self._requests.put_back(request.command.node, request)
        self._wake.set()

    def _reply_soon(self, request: _Request, refusal: Refusal) -> None:
        task = asyncio.create_task(self._answer(_Answer(request, "", refusal, 0)))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _answer(self, answer: _Answer) -> None:
        command = answer.request.command
        if answer.refusal is not None:
            self._metrics.answered(answer.refusal.error)
            reply = encode(
                Refused(attempt=command.attempt, error=answer.refusal.error, message=answer.refusal.message)
            )
        else:
            self._metrics.answered(None)
            reply = encode(self._allocated(command, answer.owner, answer.requests))
        if failpoint.hit("allocator.reply"):
            return
        try:
            await self._bus.publish(answer.request.message.reply, reply)
        except BusError as error:
            # lost, or larger than a message may be: the caller asks again, and others wait for their answers
            log.warning("answer lost", attempt=command.attempt, error=str(error))

    def _allocated(self, command: Allocate, owner: str, requests: tuple[InterfaceRequest, ...]) -> Allocated:
        holding = self.state.holdings[owner]
        pod = self._facts.pod_of_owner(holding.namespace, holding.name, owner) if holding.namespace else None
        networks = {
            request.network: self._facts.networks[request.network].spec_json
            for request in requests
            if request.network in self._facts.networks
        }
        interfaces = tuple(NetworkInterface(ifname=one.ifname, network=one.network) for one in requests)
        return Allocated(
            attempt=command.attempt,
            pod_uid=owner,
            grants=decide.grants_of(self.state, self._facts, owner),
            mark=self.state.mark,
            term=self.state.term,
            networks=networks,
            interfaces=interfaces if command.further_networks else (),
            default_route_nic=pod.annotations.get(notes.DEFAULT_ROUTE_NIC, "") if pod is not None else "",
        )

    def _trace(self, answers: list[_Answer], began_ns: int, ended_ns: int, events: int) -> None:
        for answer in answers:
            parent = extract(answer.request.message.headers)
            if parent is None:
                continue
            request = answer.request
            pod = self._facts.pods.get((request.command.pod_namespace, request.command.pod_name))
            admission = pod.annotations.get(notes.TRACEPARENT, "") if pod is not None else ""
            context = self._telemetry.record(
                "allocator.allocate",
                parent,
                request.arrived_ns,
                ended_ns,
                {"attempt": request.command.attempt},
                link=extract({"traceparent": admission}) if admission else None,
            )
            self._telemetry.record("allocator.decide", context, request.arrived_ns, answer.decided_ns)
            self._telemetry.record("log.append", context, began_ns, ended_ns, {"events": events})

    async def _take_releases(self, work: Work) -> None:
        while True:
            if not self._facts.synced or self._releases:
                await asyncio.sleep(0.01)
                continue
            try:
                taken = await work.take(512, 5.0)
            except (NoResponder, BusTimeout) as error:
                log.info("releases wait", error=str(error))
                await asyncio.sleep(0.2)
                continue
            for message in taken:
                try:
                    release = RELEASE.decode(message.data)
                    if message.subject != subjects.release(release.node):
                        raise MessageError(f"it speaks for node {release.node[: limits.NAME_MAX_BYTES]}")
                    if wrong := decide.flaw(release):
                        raise MessageError(wrong)
                    self._releases.append((message, release))
                except MessageError as error:
                    self._metrics.refused("orb.release")
                    log.warning("release refused", subject=message.subject, error=str(error))
                    await self._ack(work, message)
            if taken:
                self._wake.set()

    async def _ack(self, work: Work, message: Message) -> None:
        if failpoint.hit("allocator.release.ack"):
            return
        try:
            await work.ack(message)
        except NoResponder:
            log.info("release not acknowledged, it comes again", subject=message.subject)
