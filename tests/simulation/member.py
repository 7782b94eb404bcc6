"""The processes of a simulated cluster: allocators, agents, and the driver that stands for the controller.

Owns how each is composed from the product's own classes, killed and started again. Must not know when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import msgspec
from opentelemetry import trace
from opentelemetry.metrics import NoOpMeter

from services.agent.app import App
from services.allocator.replica import Replica
from shared import subjects
from shared.bus import BusError, Message, NoResponder
from shared.contracts.codec import encode
from shared.contracts.facts import (
    ASK_FACT,
    FACT,
    FactAnswer,
    FactsSynced,
    FactsTerm,
    ObjectFact,
    ObjectGone,
    SyncAnswer,
)
from shared.contracts.mark import CONFIG_MAP, KEEP_MARK, LogMark, contradicts, goes_further, written_mark
from shared.settings import AgentSettings, AllocatorSettings, BusSettings
from shared.telemetry.telemetry import ActiveSpan
from tests.simulation.bus import SimulatedBus
from tests.simulation.clock import SimulatedClock
from tests.simulation.disk import Disk, SimulatedJournal
from tests.simulation.hub import Hub, Link
from tests.simulation.kernel import SimulatedKernel, Wire
from tests.simulation.loop import Process, Scheduler

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_BUS = BusSettings(servers=(), user="", password="", inbox_prefix="")
_NO_SPAN = ActiveSpan(trace.INVALID_SPAN)
RESTART_S = 0.5
API_VERSIONS = {"Pod": "v1", "Node": "v1", "StatefulSet": "apps/v1"}
SNAPSHOT_RECORDS = 40
LOG_HISTORY_S = 20.0


class SilentTelemetry:
    """Measures nothing: what is looked at here is what happens, not how long it takes."""

    meter = NoOpMeter("simulation")
    span_subject = "orb.span.simulation"

    def span(self, *_: object, **__: object) -> ActiveSpan:
        return _NO_SPAN

    def record(self, *_: object, **__: object) -> SpanContext | None:
        return None


TELEMETRY = SilentTelemetry()


class Marks:
    """The mark outside JetStream, of one machine; it loses nothing."""

    def __init__(self) -> None:
        self.mark: LogMark | None = None

    def read(self) -> LogMark | None:
        return self.mark

    def write(self, mark: LogMark) -> None:
        known = self.mark
        if known is None or not goes_further(known, mark):
            self.mark = mark


class Member:
    """Something that is a process, can be killed, and comes back."""

    def __init__(self, hub: Hub, name: str, tell: Callable[[str], None], *, is_local: bool) -> None:
        self.hub = hub
        self.name = name
        self.tell = tell
        self.link = Link(name=name)
        self.clock = SimulatedClock(hub.scheduler)
        self.starts = 0
        self._is_local = is_local
        self.process: Process
        self.bus: SimulatedBus

    @property
    def scheduler(self) -> Scheduler:
        return self.hub.scheduler

    @property
    def is_alive(self) -> bool:
        return self.starts > 0 and self.process.is_alive

    def start(self) -> None:
        if self.is_alive:
            return
        self.starts += 1
        self.process = self.scheduler.process(f"{self.name}.{self.starts}")
        self.bus = SimulatedBus(self.hub, self.process, self.link, is_local=self._is_local)
        task = self.process.create_task(self.run())
        task.add_done_callback(self._ended)

    async def run(self) -> None:
        raise NotImplementedError

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A process that ends by itself is started again by who supervises it."""
        error = None if task.cancelled() else task.exception()
        self.tell(f"{self.name} ended: {type(error).__name__}: {error}")
        if error is not None and not isinstance(error, BusError):
            self.scheduler.failures.append(f"{self.name} ended: {type(error).__name__}: {error}")
        self.kill()
        self.hub.process.call_later(RESTART_S, self.start)

    def kill(self) -> None:
        if self.is_alive:
            self.process.kill()
            self.bus.cut_off()


class Allocator(Member):
    def __init__(
        self, hub: Hub, name: str, tell: Callable[[str], None], marks: Marks, incarnation: Callable[[], str]
    ) -> None:
        super().__init__(hub, name, tell, is_local=False)
        self.marks = marks
        self._incarnation = incarnation
        self.replica: Replica

    async def run(self) -> None:
        self.replica = Replica(
            AllocatorSettings(
                replica=self.name,
                bus=_BUS,
                system=_BUS,
                mark_file="",
                snapshot_records=SNAPSHOT_RECORDS,
                log_history_s=LOG_HISTORY_S,
            ),
            self.bus,
            TELEMETRY,  # type: ignore[arg-type]
            clock=self.clock,
            marks=self.marks,
            assert_servers=_safe_servers,
            new_incarnation=self._incarnation,
        )
        await self.replica.run()

    @property
    def leads(self) -> bool:
        return self.is_alive and self.replica._leader is not None


async def _safe_servers() -> None:
    pass


class Agent(Member):
    """One node: its agent, and what outlives it, the disk and the kernel."""

    def __init__(
        self,
        hub: Hub,
        name: str,
        tell: Callable[[str], None],
        wire: Wire,
        random: Random,
        crash: Callable[[Agent, str], bool],
    ) -> None:
        super().__init__(hub, f"agent-{name}", tell, is_local=True)
        self.node = name
        self.disk = Disk()
        self.boots = 1
        self._wire = wire
        self._random = random
        self._crash = crash
        self.journal: SimulatedJournal
        self.kernel: SimulatedKernel

    async def run(self) -> None:
        def crash(where: str) -> bool:
            return self._crash(self, where)

        self.journal = SimulatedJournal(self.disk, self._random, crash)
        self.kernel = SimulatedKernel(self._wire, self.node, self._random, crash)
        app = App(
            AgentSettings(node=self.node, bus=_BUS, state="", reconcile_interval_s=3.0),
            self.bus,
            self.journal,
            self.kernel,  # type: ignore[arg-type]
            f"boot-{self.boots}",
            TELEMETRY,  # type: ignore[arg-type]
            clock=self.clock,
            random=self._random,
        )
        await app.run()

    def start_anew(self) -> None:
        """The machine loses its power: whoever starts the agent again does it after another boot."""
        self.kill()
        self.boots += 1
        self.clock.start_anew()

    def kill(self) -> None:
        if self.is_alive:
            self.kernel.is_dead = True
            self.journal.lose()
        super().kill()


class Controller(Member):
    """Publishes the objects' truth as facts, as services.controller does: what the stream lacks, then that it is complete; and
    answers for one object at once."""

    def __init__(self, hub: Hub, tell: Callable[[str], None]) -> None:
        super().__init__(hub, "controller", tell, is_local=False)
        self.objects: dict[tuple[str, str, str], ObjectFact | ObjectGone] = {}
        self.stored_s: dict[str, float] = {}
        self.keeps_mark = False
        self.mark: LogMark | None = None
        self._version = 0
        self._due = asyncio.Event()

    def put(self, kind: str, namespace: str, name: str, manifest: dict[str, object], uid: str = "") -> None:
        self._version += 1
        api_version = API_VERSIONS.get(kind, "spiderpool.spidernet.io/v2beta1")
        body = {"apiVersion": api_version, "kind": kind, **manifest}
        self._publish(
            ObjectFact(
                kind=kind,
                api_version=api_version,
                namespace=namespace,
                name=name,
                uid=uid,
                version=self._version,
                object=msgspec.json.encode(body),
            )
        )

    def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        self._version += 1
        self._publish(ObjectGone(kind=kind, namespace=namespace, name=name, uid=uid, version=self._version))

    def _publish(self, fact: ObjectFact | ObjectGone) -> None:
        self.objects[fact.kind, fact.namespace, fact.name] = fact
        self._due.set()

    async def run(self) -> None:
        self._due = asyncio.Event()
        self._told: dict[tuple[str, str, str], int] = {}
        self._in_doubt = True
        self._is_synced = False
        self._sequence = 0
        self.bus.connection.on_reconnect(self._doubt)
        await self._until_done(lambda: self.bus.serve(subjects.ASK_FACTS, self._on_ask))
        await self._until_done(lambda: self.bus.serve(subjects.ASK_SYNC, self._on_sync))
        await self._until_done(lambda: self.bus.listen(subjects.MARK, self._on_mark))
        while True:
            try:
                await self._tell()
            except BusError:
                self._in_doubt = True
                await asyncio.sleep(0.1)
            else:
                await self._due.wait()

    def _doubt(self) -> None:
        self._in_doubt = True
        self._due.set()

    async def _tell(self) -> None:
        """All that the stream lacks, and then that it is all."""
        is_synced = not self._in_doubt
        self._is_synced = False
        if self._in_doubt:
            await self.bus.ensure_stream(subjects.FACTS)
            self._told.clear()
            async for message in self.bus.read("FACTS", last_per_subject=True):
                fact = FACT.decode(message.data)
                if isinstance(fact, FactsSynced):
                    is_synced = fact.incarnation == self.process.name
                elif not isinstance(fact, FactsTerm):
                    self._told[fact.kind, fact.namespace, fact.name] = fact.version
            self._sequence = (await self.bus.stream_state("FACTS")).last_sequence
            self._in_doubt = False
        self._due.clear()
        while missing := [f for key, f in self.objects.items() if self._told.get(key, 0) < f.version]:
            for fact in missing:
                subject = subjects.facts(fact.kind, fact.namespace, fact.name)
                self._sequence = await self.bus.append(subject, encode(fact))
                self._told[fact.kind, fact.namespace, fact.name] = fact.version
                if isinstance(fact, ObjectFact) and fact.uid:
                    self.stored_s.setdefault(fact.uid, self.scheduler.now_s)
        if not is_synced:
            synced = FactsSynced(
                incarnation=self.process.name, version=self._version, objects=len(self.objects)
            )
            self._sequence = await self.bus.append(subjects.FACTS_SYNCED, encode(synced))
        self._is_synced = True

    def _on_mark(self, message: Message) -> None:
        """As the controller keeps it, but that it writes at once."""
        mark = KEEP_MARK.decode(message.data).mark
        kept = self.mark
        if self.keeps_mark and (kept is None or not (goes_further(kept, mark) or contradicts(kept, mark))):
            self.mark = mark
            manifest: dict[str, object] = {"metadata": {"name": CONFIG_MAP}, "data": written_mark(mark)}
            self.put("ConfigMap", "orbweaver-system", CONFIG_MAP, manifest)

    async def _on_sync(self, _message: Message) -> bytes | None:
        for _ in range(20):
            if not self._in_doubt and not self._due.is_set() and self._is_synced:
                return encode(SyncAnswer(facts_sequence=self._sequence, objects=len(self.objects)))
            await asyncio.sleep(0.05)
        return None

    async def _until_done(self, act: Callable[[], object]) -> None:
        while True:
            try:
                await act()  # type: ignore[misc]
            except BusError:
                await asyncio.sleep(0.1)
            else:
                return

    async def _on_ask(self, message: Message) -> bytes:
        ask = ASK_FACT.decode(message.data)
        found = self.objects.get((ask.kind, ask.namespace, ask.name))
        return encode(FactAnswer(fact=found if isinstance(found, ObjectFact) else None))


__all__ = ["Agent", "Allocator", "Controller", "Marks", "Member", "NoResponder"]
