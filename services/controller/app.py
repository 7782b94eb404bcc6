"""The controller at work: what the source tells goes into stream FACTS, and questions are answered from the source as of now.

Owns the order of publishing, what has been acknowledged, and the fence of its term. Must not know what an object says, nor how the
source reads it.

One pass at a time: refresh, publish everything that it told, and only then answer those who asked meanwhile. What could not be
published stays in the outbox, in order; a version that nobody has seen is never shown in an answer. When the stream came
back shorter than we left it (facts are not fsynced: they can always be told again), what it lacks is told again.

Fence: a term begins with a message of its own, and the first append of each window names that message as the last of its subject.
Whoever was stopped meanwhile and wakes up behind another's term is refused. (A replicated stream takes only one append that names
such a fence at a time, nats-server 2.15.1, so not every append of a window can.)
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable

import structlog

from services.controller.judge import POOL
from services.controller.source import ObjectSource
from shared import failpoint, subjects
from shared.bus import Bus, BusDenied, BusError, BusTimeout, Message, StreamMismatch, WrongSequence
from shared.contracts.codec import MessageError, encode
from shared.contracts.facts import (
    ASK_FACT,
    ASK_SYNC,
    FACT,
    Fact,
    FactAnswer,
    FactsSynced,
    FactsTerm,
    ObjectGone,
    SyncAnswer,
)
from shared.limits import TOMBSTONE_KEPT_S
from shared.manifests.document import ObjectKey
from shared.service import end
from shared.settings import ControllerSettings
from shared.telemetry import Telemetry, extract
from shared.telemetry.metrics import ControllerMetrics

log = structlog.get_logger()

STREAMS = (subjects.FACTS, subjects.ATTACH, subjects.INVENTORY, subjects.SPANS)
"""Those that the controller makes and asserts; the allocator has the others."""
WINDOW = 128
"""Appends in flight: they leave in order on one connection, so the stream has them in order."""
OUTBOX_MAX = 4096
COLLECT_S = 1.0
LOOK_STALE_S = 10.0
"""A look at the source older than this is told: what is in force may no longer be what the user wrote."""
CONF = "spiderpool-conf"
FENCE_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"


class Fenced(BusError):
    """Another controller tells the facts now."""


class App:
    """`closed` of the bus ends `run`, as does cancelling it."""

    def __init__(
        self,
        settings: ControllerSettings,
        bus: Bus,
        source: ObjectSource,
        telemetry: Telemetry,
        may_sync: Callable[[], bool] = lambda: True,
        more_facts: Callable[[], dict[str, str]] = dict,
    ) -> None:
        """`may_sync`: whether it may be told that the list is full, once it is. `more_facts` are told beside our own."""
        self._more_facts = more_facts
        self._settings = settings
        self._may_sync = may_sync
        self._fence = 0
        self._bus = bus
        self._source = source
        self._telemetry = telemetry
        self._metrics = ControllerMetrics(
            telemetry.meter,
            pools=lambda: self._count(POOL),
            subnets=lambda: self._count("SpiderSubnet"),
            objects=lambda: len(self._source.in_force) if self.synced else 0,
            problems=lambda: len(self._source.problems),
        )
        self.synced = False
        self._resumed = False
        self.sequence = 0
        self._incarnation = uuid.uuid4().hex
        self._outbox: deque[Fact] = deque()
        self._turn = asyncio.Lock()
        self._passes = 0
        self._stream_in_doubt = False
        self._collected_at_s = 0.0
        self._looked_at_s = time.monotonic()

    def not_ready(self) -> str:
        if self._source.trouble:
            return self._source.trouble
        look_age_s = time.monotonic() - self._looked_at_s
        if look_age_s > LOOK_STALE_S and self._bus.connection.connected:
            return f"the last look at the manifests was {look_age_s:.0f} s ago"
        if not self.synced:
            return "the first full list is not published yet"
        return "" if self._bus.connection.connected else "the bus is away"

    async def run(self) -> None:
        """Serves for ever. Raises Fenced; StreamMismatch, or BusDenied at the start: settings that no retry mends."""
        async with self._turn:
            await self._resume_when_bus_is_there()
            served = [
                await self._bus.serve(subjects.ASK_FACTS, self._on_ask_fact),
                await self._bus.serve(subjects.ASK_SYNC, self._on_ask_sync),
            ]
            self._bus.connection.on_reconnect(self._doubt_stream)
        closed = asyncio.ensure_future(self._bus.closed.wait())
        reading = asyncio.ensure_future(self._source.run())
        try:
            while not closed.done() and not reading.done():
                await self._pass()
                await self._source.news(self._settings.poll_s)
            if reading.done():
                reading.result()
        finally:
            await end([closed, reading])
            for serving in served:
                await serving.stop()

    async def _resume_when_bus_is_there(self) -> None:
        while True:
            try:
                return await self._resume()
            except (StreamMismatch, BusDenied, Fenced):
                raise
            except BusError as error:
                log.warning("the bus is not ready yet", error=str(error))
                await asyncio.sleep(self._settings.poll_s)

    async def _resume(self) -> None:
        await self._ensure_streams()
        await self._begin_term()
        facts = await self._told()
        self._source.resume(facts)
        self._resumed = True
        self.sequence = (await self._bus.stream_state(subjects.FACTS.name)).last_sequence
        log.info("resumed", objects=len(self._source.in_force), facts_sequence=self.sequence)

    async def _ensure_streams(self) -> None:
        for spec in STREAMS:
            await self._bus.ensure_stream(spec, self._settings.stream_replicas)

    async def _begin_term(self) -> None:
        """From here on whoever told before is refused, and so are we when another one begins after us."""
        last = await self._bus.get_last(subjects.FACTS.name, subjects.FACTS_TERM)
        term = FactsTerm(incarnation=self._incarnation, replica=self._settings.replica)
        try:
            self._fence = await self._bus.append(
                subjects.FACTS_TERM,
                encode(term),
                expected_last_subject_sequence=last.sequence if last is not None else 0,
            )
        except WrongSequence:
            raise Fenced("another controller began at the same time") from None

    async def _hold_term(self) -> None:
        """The stream may be another one than we began our term on. Raises Fenced if another one has begun since."""
        last = await self._bus.get_last(subjects.FACTS.name, subjects.FACTS_TERM)
        if last is None:
            return await self._begin_term()
        term = FACT.decode(last.data)
        if not isinstance(term, FactsTerm) or term.incarnation != self._incarnation:
            raise Fenced("another controller tells the facts now")
        self._fence = last.sequence
        return None

    async def _told(self) -> list[Fact]:
        """The last fact of every subject of the stream."""
        facts: list[Fact] = []
        async for message in self._bus.read(subjects.FACTS.name, last_per_subject=True):
            try:
                fact = FACT.decode(message.data)
                if not isinstance(fact, FactsTerm):
                    facts.append(fact)
            except MessageError as error:
                self._metrics.refused("orb.facts")
                log.warning("a fact that is none", subject=message.subject, error=str(error))
        return facts

    def _doubt_stream(self) -> None:
        self._stream_in_doubt = True

    async def _pass(self, *, again: bool = False) -> bool:
        """One look at the source, published; False if the bus did not take it all. Those asked for while one waited its turn are
        one. Raises StreamMismatch, Fenced."""
        try:
            await self._take_turn(again)
        except (StreamMismatch, Fenced):
            raise
        except BusError as error:
            self._stream_in_doubt = True
            log.warning("facts wait for the bus", waiting=len(self._outbox), error=str(error))
            return False
        return True

    async def _take_turn(self, again: bool) -> None:
        seen = self._passes
        async with self._turn:
            if self._passes > seen and not again:
                return
            self._passes += 1
            try:
                await self._refresh_and_publish(again)
            except BaseException:
                self._passes -= 1
                raise

    async def _refresh_and_publish(self, again: bool) -> None:
        if len(self._outbox) < OUTBOX_MAX:
            # what comes while the bus is away waits in the source, the last of each object
            self._outbox.extend(await self._source.refresh(again=again))
        self._looked_at_s = time.monotonic()
        if self._stream_in_doubt:
            await self._tell_what_is_missing()
        await self._publish()
        if not self.synced and self._source.complete and self._may_sync():
            await self._publish_synced()
        now_s = time.monotonic()
        if self._source.collecting and (again or now_s - self._collected_at_s >= COLLECT_S):
            self._collected_at_s = now_s
            self._outbox.extend(await self._source.collect(self.sequence))
            if self._outbox:
                self._outbox.extend(await self._source.refresh(again=True))
                await self._publish()

    async def _publish(self) -> None:
        """Appends the outbox in order. Raises BusError with what is left still in it."""
        while self._outbox:
            self.sequence = max(self.sequence, await self._append(self._outbox[0], fenced=True))
            failpoint.hit("controller.fact.published")
            self._outbox.popleft()
            window = [self._outbox[i] for i in range(min(WINDOW, len(self._outbox)))]
            outcomes = await asyncio.gather(*map(self._append, window), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
                failpoint.hit("controller.fact.published")
                self.sequence = max(self.sequence, outcome)
                self._outbox.popleft()

    async def _append(self, fact: Fact, *, fenced: bool = False) -> int:
        fence = self._fence if fenced else None
        headers = {FENCE_SUBJECT: subjects.FACTS_TERM} if fenced else None
        if isinstance(fact, FactsSynced):
            failpoint.hit("controller.synced")
            return await self._bus.append(
                subjects.FACTS_SYNCED, encode(fact), expected_last_subject_sequence=fence, headers=headers
            )
        if failpoint.hit("controller.fact.publish"):
            raise BusTimeout("lost by a failpoint")
        # the server forgets a tombstone after a day: names of pods are rarely used again
        ttl_s = TOMBSTONE_KEPT_S if isinstance(fact, ObjectGone) else None
        subject = subjects.facts(fact.kind, fact.namespace, fact.name)
        return await self._bus.append(
            subject, encode(fact), ttl_s=ttl_s, expected_last_subject_sequence=fence, headers=headers
        )

    async def _publish_synced(self) -> None:
        synced = FactsSynced(
            incarnation=self._incarnation,
            version=self._source.next_version(),
            objects=len(self._source.in_force),
        )
        self.sequence = await self._append(synced, fenced=True)
        if not self.synced:
            self.synced = True
            log.info("synced", objects=synced.objects, problems=len(self._source.problems))

    async def _tell_what_is_missing(self) -> None:
        """After a lost connection or append: the stream may have been made anew, or lack its last messages."""
        await self._ensure_streams()
        await self._hold_term()
        told = await self._told()
        waiting = {
            (fact.kind, fact.namespace, fact.name)
            for fact in self._outbox
            if not isinstance(fact, FactsSynced)
        }
        missing = self._source.missing_from(told)
        self._outbox.extend(
            fact
            for fact in missing
            if not isinstance(fact, FactsSynced) and (fact.kind, fact.namespace, fact.name) not in waiting
        )
        await self._publish()
        if self.synced and not any(
            isinstance(fact, FactsSynced) and fact.incarnation == self._incarnation for fact in told
        ):
            await self._publish_synced()
        self._stream_in_doubt = False

    async def _on_ask_fact(self, message: Message) -> bytes | None:
        try:
            ask = ASK_FACT.decode(message.data)
        except MessageError:
            self._metrics.refused("orb.ask.facts")
            return None
        with self._telemetry.span("facts.read_through", extract(message.headers)) as span:
            key = ObjectKey(ask.kind, ask.namespace, ask.name)
            span.set("object", str(key))
            fresh = await self._source.look_up(key)
            if not await self._pass():
                return None  # what we would say is not in the stream yet
            stored = self._source.in_force.get(key)
            if stored is None and not fresh:
                return None  # nobody can say now that there is none
            return encode(FactAnswer(fact=stored.fact() if stored is not None else None))

    async def _on_ask_sync(self, message: Message) -> bytes | None:
        try:
            ASK_SYNC.decode(message.data)
        except MessageError:
            self._metrics.refused("orb.ask.sync")
            return None
        if not await self._pass(again=True):
            return None
        return encode(
            SyncAnswer(
                facts_sequence=self.sequence,
                objects=len(self._source.in_force),
                problems=self._source.problems,
                warnings=self._source.warnings,
            )
        )

    def published(self) -> int:
        """The sequence of FACTS up to which all that the source has listed is published; 0 while something waits."""
        return self.sequence if self._source.complete and self._passes and not self._outbox else 0

    def refused(self, family: str) -> None:
        """A message that is not of its subject's form."""
        self._metrics.refused(family)

    def facts(self) -> dict[str, str]:
        """Short words about the state, for people and programs."""
        if not self._resumed:
            return {"synced": "false"}
        return {
            "objects": str(len(self._source.in_force)),
            "problems": str(len(self._source.problems)),
            "files": str(self._source.files),
            "synced": "true" if self.synced else "false",
            "facts_sequence": str(self.sequence),
            "installation_namespace": self._installation_namespace(),
            **self._more_facts(),
        }

    def _installation_namespace(self) -> str:
        """Where the ConfigMap `spiderpool-conf` is (the first, should there be several), else as configured."""
        found = sorted(key.namespace for key in self._source.keys("ConfigMap") if key.name == CONF)
        return found[0] if found else self._settings.installation_namespace

    def _count(self, kind: str) -> int:
        return sum(1 for _ in self._source.keys(kind)) if self.synced else 0
