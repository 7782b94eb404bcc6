"""One allocator replica: knows facts, folds the log, waits to lead, leads, and begins anew when its term is over.

Owns the phases: reading, standing by, rebuilding, leading; and what goes on beside a term, marks and snapshots. Must not know how
a decision is made, or how the log is proved to be whole (reading.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog

from services.allocator.adoption import Gathering
from services.allocator.facts import Changes, Facts
from services.allocator.history import History
from services.allocator.lead import Election
from services.allocator.leader import Leader
from services.allocator.log import Fenced, LeaseLog, LogBroken, LogLost, LogRestarted
from services.allocator.log_time import LogTime
from services.allocator.mark import MarkStore, mark_of, refutation
from services.allocator.query import Queries
from services.allocator.reading import LogReader
from services.allocator.recovery import Recovery, put_away
from services.allocator.servers import UnsafeServers
from services.allocator.sharing import Sharing
from services.allocator.state import State
from services.allocator.watch import Watch
from shared import failpoint, limits, subjects
from shared.bus import Bus, BusDenied, BusError, Follow, Message, StreamMessage, StreamMismatch, StreamMissing
from shared.clock import Clock
from shared.contracts.codec import MessageError
from shared.contracts.facts import FACT
from shared.contracts.lease import TermStarted
from shared.contracts.mark import LogMark
from shared.contracts.witness import WITNESS, WitnessReport
from shared.service import serve_status
from shared.settings import AllocatorSettings
from shared.telemetry import Telemetry
from shared.telemetry.metrics import AllocatorMetrics

log = structlog.get_logger()

MARK_INTERVAL_S = 0.2
LOOK_AGAIN_S = 0.5
BROKEN_RETRY_S = 2.0


class Replica:
    """Runs until cancelled. `reason` says why it cannot serve now, empty while it leads or stands by."""

    def __init__(
        self,
        settings: AllocatorSettings,
        bus: Bus,
        telemetry: Telemetry,
        *,
        clock: Clock,
        marks: MarkStore,
        assert_servers: Callable[[], Awaitable[None]],
        new_incarnation: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._telemetry = telemetry
        self._new_incarnation = new_incarnation
        self._facts = Facts()
        self._leader: Leader | None = None
        self._clock = clock
        self._marks = marks
        self._assert_servers = assert_servers
        self._marked = 0
        self._changed_pools: set[str] = set()
        self._history = History(bus, clock, settings.snapshot_records, settings.log_history_s)
        self._watch = Watch()
        self._reader = LogReader(bus, self._facts, self._watch, marks, clock)
        self._recovery: Recovery | None = None
        self._reconnected = asyncio.Event()
        self.reason = "starting"
        self._without_facts = ""
        self._metrics = AllocatorMetrics(
            telemetry.meter,
            leases_by_pool=self._leases_by_pool,
            leading=lambda: int(self._leader is not None),
            queued=lambda: self._leader.queued if self._leader is not None else 0,
        )
        self._gathering = Gathering(self._metrics.refused)

    async def run(self) -> None:
        """Follows the facts, then takes part in term after term."""
        await self._ensure_streams_when_bus_is_there()
        await serve_status(
            self._bus,
            "allocator",
            self._settings.replica,
            not_ready=self.not_ready,
            facts=self._status,
            refused=self._metrics.refused,
        )
        await self._bus.listen(subjects.WITNESS_ALL, self._on_witness)
        self._reader.listens()
        self._bus.connection.on_reconnect(self._reconnected.set)
        following = asyncio.create_task(self._follow_facts_for_ever())
        try:
            while True:
                try:
                    await self._term()
                except LogRestarted as error:
                    log.info("term over", error=str(error))
                except LogLost as error:
                    self.reason = f"{error}; the index is rebuilt"
                    log.error("log lost", error=str(error))
                except Fenced as error:
                    self.reason = f"the term is over: {error}"
                    log.warning("term over", error=str(error))
                except (LogBroken, UnsafeServers) as error:
                    self.reason = str(error)
                    log.error("cannot serve", error=str(error))
                    await asyncio.sleep(BROKEN_RETRY_S)
                except BusError as error:
                    self.reason = f"the bus is away: {error}"
                    log.warning("term over", error=str(error))
                    await asyncio.sleep(limits.LEADER_RENEW_S)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _ensure_streams_when_bus_is_there(self) -> None:
        """A hub of three has no streams before its servers have found each other. Raises StreamMismatch, BusDenied."""
        while True:
            try:
                return await self._ensure_streams()
            except (StreamMismatch, BusDenied):
                raise
            except BusError as error:
                self.reason = f"the bus is not ready yet: {error}"
                log.warning("the bus is not ready yet", error=str(error))
                await asyncio.sleep(limits.LEADER_RENEW_S)

    async def _ensure_streams(self) -> None:
        for spec in (
            subjects.LEASES,
            subjects.SNAPSHOTS,
            subjects.RELEASES,
            subjects.LEAD,
            subjects.SPANS,
            subjects.DISAGREEMENTS,
        ):
            await self._bus.ensure_stream(spec, self._settings.stream_replicas)

    async def _follow_facts_for_ever(self) -> None:
        """Facts are not fsynced: after a restart of the server the stream may be another one, whose sequences begin anew."""
        while True:
            self._reconnected.clear()
            try:
                facts = await self._follow_facts()
            except BusError as error:
                log.warning("facts not followed yet", error=str(error))
                await asyncio.sleep(limits.LEADER_RENEW_S)
                continue
            try:
                await self._reconnected.wait()
            finally:
                await facts.stop()
            self._facts.sequence = 0

    async def _follow_facts(self) -> Follow:
        while True:
            try:
                facts = await self._bus.follow("FACTS", self._on_fact, last_per_subject=True)
            except StreamMissing:
                self._without_facts = "no facts yet: the controller has not started"
                await asyncio.sleep(0.1)
            else:
                self._without_facts = ""
                return facts

    async def _on_fact(self, message: StreamMessage) -> None:
        try:
            fact = FACT.decode(message.data)
        except MessageError as error:
            self._metrics.refused("orb.facts")
            log.warning("fact refused", subject=message.subject, error=str(error))
            self._facts.sequence = max(self._facts.sequence, message.sequence)
            return
        self._take(self._facts.apply(fact, message.sequence))

    def _take(self, changes: Changes) -> None:
        """Until the objects are all known nobody is answered, so the pools can wait for the last: each alone would cost a pass over
        the leases, and leadership is renewed only in between."""
        self._changed_pools |= changes.pools
        if self._facts.synced and self._changed_pools:
            self._reader.state.put_pools({name: self._facts.pool_space(name) for name in self._changed_pools})
            self._changed_pools.clear()
        if changes.mark and self._facts.mark_flaw:
            log.warning("shared mark not understood", error=self._facts.mark_flaw)
        if self._leader is not None:
            self._leader.facts_changed(changes)
            if changes.mark:
                self._hold_against_mark(self._leader)

    def _hold_against_mark(self, leader: Leader) -> None:
        """The shared mark comes with the objects, perhaps only now: before they are all known nobody is answered."""
        mark = self._facts.mark
        if mark is not None and (why := refutation((mark,), leader.state)):
            leader.refute(why)

    def _on_witness(self, message: Message) -> None:
        """Every replica keeps the marks that nodes name; only the leader compares, only a rebuild asks."""
        try:
            told = WITNESS.decode(message.data)
            if message.subject != subjects.witness(told.node):
                raise MessageError(f"it speaks for node {told.node}")
        except MessageError as error:
            self._metrics.refused("orb.witness")
            log.warning("testimony refused", subject=message.subject, error=str(error))
            return
        self._watch.note(told.node, told.seen, self._clock.monotonic_s())
        if isinstance(told, WitnessReport):
            if self._leader is not None:
                self._leader.hearing.on_report(told)
            return
        testimony = self._watch.put_together(told)
        if testimony is None:
            return
        if self._recovery is not None:
            self._recovery.hear(testimony)
        elif self._leader is not None:
            self._leader.hearing.on_testimony(testimony)

    async def _term(self) -> None:
        await self._ensure_streams()
        candidate = f"{self._settings.replica} {self._new_incarnation()}"
        election = Election(self._bus, "allocator", candidate, self._settings.stream_replicas, self._clock)
        self._watch.begin()
        try:
            state = await self._take_over(election)
            self._reader.memory = state
            await self._lead(state, election)
        finally:
            self._leader = None
            await self._history.end_term()
            await election.resign()

    async def _take_over(self, election: Election) -> State:
        """The state as of the log's end once this replica leads; rebuilt, where the log is lost.

        Who does not lead looks again and again: whoever leads may have rebuilt it, and this replica then stands by.
        """
        settled = ""
        while True:
            leads = election.leads
            try:
                state = await self._reader.read(lambda check: self._elected(election, check))
                if state.has_no_term:
                    # who rebuilt it came no further
                    await put_away(self._bus, state)
                return state
            except LogLost as error:
                if leads:
                    before, settled = settled, await self._reader.settle()
                    if settled == before:
                        return await self._rebuild(str(error))
                    log.warning("the log is read again before it counts as lost", error=str(error))
                    continue
                told, self.reason = self.reason, f"{error}; the index is rebuilt by the replica that leads"
                if told != self.reason:
                    log.error("log lost", error=str(error))
            if not election.leads:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await election.wait()

    async def _elected(self, election: Election, check: Callable[[], None]) -> bool:
        """Stands by until this replica leads. Whether it saw another lead meanwhile."""
        self.reason = ""
        if not election.leads:
            waiting = asyncio.create_task(election.wait())
            try:
                while not waiting.done():
                    await asyncio.wait({waiting}, timeout=0.5)
                    check()
                waiting.result()
            finally:
                waiting.cancel()
        return election.saw_another

    async def _rebuild(self, reason: str) -> State:
        await self._assert_servers()
        self.reason = f"{reason}; the index is being rebuilt from the nodes"
        self._recovery = Recovery(
            self._bus, self._facts, self._watch, self._marks, self._clock, self._new_incarnation
        )
        reader = self._reader
        for known in (reader.state, reader.memory):
            reader.put_pools(known)
        adopting = await self._bus.serve(subjects.IPAM_ADOPT, self._gathering.on_ask)
        try:
            state = await self._recovery.rebuild(reader.state, reader.memory, reason, self._gathering.records)
        finally:
            await adopting.stop()
            self._recovery = None
        self._gathering.records.clear()
        reader.state = state
        reader.put_pools(state)
        state.wake(self._clock.unix_ns())
        return state

    async def _lead(self, state: State, election: Election) -> None:
        await self._assert_servers()
        mark = self._marks.read()
        incarnation = state.incarnation or (mark.incarnation if mark else self._new_incarnation())
        if not state.incarnation:
            if self._facts.mark_flaw:
                raise LogBroken(
                    f"the log is empty, and {self._facts.mark_flaw}; delete it if nothing was ever given"
                )
            # the mark goes first: a log that is lost before it was marked would look like a first start
            self._marks.write(LogMark(incarnation=incarnation, sequence=0))
            state.incarnation = incarnation
        lease_log = LeaseLog(self._bus, incarnation, state.term + 1, state.sequence, state.digest)
        now_ns = max(state.at_ns, self._clock.unix_ns())
        failpoint.hit("allocator.term.start")
        monotonic_s = self._clock.monotonic_s()
        time = LogTime(state.at_ns, monotonic_s)
        began = (TermStarted(replica=self._settings.replica), *time.moved(now_ns, monotonic_s))
        record = await lease_log.append(began, now_ns)
        failpoint.hit("allocator.term.started")
        for event in began:
            state.evolve(event)
        state.advance(record, lease_log.sequence, lease_log.digest)
        self._write_mark(state)
        leader = Leader(
            self._bus,
            state,
            self._facts,
            lease_log,
            self._telemetry,
            self._metrics,
            self._clock,
            time,
            self._history,
            self._watch,
        )
        self._leader = leader
        self._hold_against_mark(leader)
        queries = Queries(
            self._bus,
            self._settings.replica,
            leader,
            self._reader,
            self._facts,
            self._watch,
            self._clock,
            self._metrics.refused,
        )
        async with AsyncExitStack() as servings:
            allocating = await self._bus.listen(subjects.ALLOCATE_ALL, leader.on_allocate)
            servings.push_async_callback(allocating.stop)
            await servings.enter_async_context(queries.served())
            adopting = await self._bus.serve(subjects.IPAM_ADOPT, leader.adopting.on_ask)
            servings.push_async_callback(adopting.stop)
            log.info("leading", term=lease_log.term, incarnation=incarnation, sequence=state.sequence)
            self.reason = ""
            await self._run_until_lost(leader, election)

    async def _run_until_lost(self, leader: Leader, election: Election) -> None:
        running = asyncio.create_task(leader.run())
        lost = asyncio.create_task(election.lost.wait())
        marking = asyncio.create_task(self._mark_for_ever(leader.state))
        sharing = asyncio.create_task(Sharing(self._bus, leader.state, self._facts).run())
        tasks = (running, lost, marking, sharing)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (running, marking, sharing):
                if task.done():
                    task.result()
            raise Fenced("leadership was not renewed")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # whatever ended the term, what was acknowledged in it was
            self._write_mark(leader.state)

    async def _mark_for_ever(self, state: State) -> None:
        """The mark is behind by an interval at most, also when a burst is the last for a long time."""
        while True:
            await asyncio.sleep(MARK_INTERVAL_S)
            if state.sequence > self._marked:
                self._write_mark(state)

    def _write_mark(self, state: State) -> None:
        self._marked = state.sequence
        self._marks.write(mark_of(state))

    def not_ready(self) -> str:
        return self.reason or self._without_facts

    @property
    def state(self) -> State:
        """What is folded now."""
        return self._reader.state

    def _status(self) -> dict[str, str]:
        state = self.state
        return {
            "role": "leader" if self._leader is not None else "standby",
            "term": str(state.term),
            "sequence": str(state.sequence),
            "leases": str(state.lease_count()),
            "facts_sequence": str(self._facts.sequence),
            "facts_synced": "true" if self._facts.synced else "false",
        }

    def _leases_by_pool(self) -> dict[str, int]:
        return {**dict.fromkeys(self._facts.pools, 0), **self.state.leases_by_pool}
