"""One allocator replica: knows facts, folds the log, waits to lead, leads, and begins anew when its term is over.

Owns the phases and what must hold before the first answer: the log is whole, its servers are safe, it is no older copy.
Must not know how a decision is made.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog

from services.allocator import snapshot
from services.allocator.audit import audit, follows, may_happen
from services.allocator.facts import Changes, Facts
from services.allocator.lead import Election
from services.allocator.leader import Leader
from services.allocator.log import Fenced, LeaseLog, LogBroken, LogLost, LogRestarted, fold_message
from services.allocator.mark import LogMark, MarkStore, check_mark, mark_of
from services.allocator.pool_index import PoolSpace
from services.allocator.recovery import Recovery
from services.allocator.servers import UnsafeServers
from services.allocator.state import State
from services.allocator.view import disagreements, explain, kept_from_others, leases_page
from services.allocator.watch import Watch, refuted_by
from shared import failpoint, limits, subjects
from shared.bus import Bus, BusError, Follow, Message, StreamMessage, StreamMissing
from shared.clock import Clock
from shared.contracts.codec import MessageError, encode
from shared.contracts.facts import FACT
from shared.contracts.lease import RECORD, SnapshotManifest, TermStarted, digest
from shared.contracts.query import (
    EXPLAIN,
    IPAM_QUERY,
    AllocatorView,
    QueryLeases,
)
from shared.contracts.witness import WITNESS, AskReport, WitnessReport
from shared.service import serve_status
from shared.settings import AllocatorSettings
from shared.telemetry import Telemetry
from shared.telemetry.metrics import AllocatorMetrics

log = structlog.get_logger()

CATCH_UP_S = 5.0
"""Without one record more in this time, the next is not going to come."""
MARK_INTERVAL_S = 1.0
MARK_ASK_EVERY_S = 0.3
HEARD_S = 30.0
"""A node that was heard of so lately is expected to answer a new leader."""
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
        self._state = State()
        self._leader: Leader | None = None
        self._clock = clock
        self._marks = marks
        self._assert_servers = assert_servers
        self._marked = 0
        self._changed_pools: set[str] = set()
        self._records_since_snapshot = 0
        self._snapshotting: asyncio.Task[None] | None = None
        self._auditing = asyncio.Lock()
        self._watch = Watch()
        self._memory = State()
        self._recovery: Recovery | None = None
        self._reconnected = asyncio.Event()
        self._listening_s = 0.0
        self.reason = "starting"
        self._without_facts = ""
        self._metrics = AllocatorMetrics(
            telemetry.meter,
            leases_by_pool=self._leases_by_pool,
            leading=lambda: int(self._leader is not None),
            queued=lambda: self._leader.queued if self._leader is not None else 0,
        )

    async def run(self) -> None:
        """Follows the facts, then takes part in term after term."""
        await self._ensure_streams()
        await serve_status(
            self._bus,
            "allocator",
            self._settings.replica,
            not_ready=self.not_ready,
            facts=self._status,
            refused=self._metrics.refused,
        )
        await self._bus.listen(subjects.WITNESS_ALL, self._on_witness)
        self._listening_s = self._clock.monotonic_s()
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
            self._state.put_pools({name: self._facts.pool_space(name) for name in self._changed_pools})
            self._changed_pools.clear()
        if self._leader is not None:
            for namespace, name in changes.pods:
                self._leader.pod_changed(namespace, name)
            if changes.nodes:
                self._leader.hearing.nodes_changed()

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
        election = Election(
            self._bus, "allocator", self._settings.replica, self._settings.stream_replicas, self._clock
        )
        try:
            state = await self._take_over(election)
            self._memory = state
            await self._lead(state, election)
        finally:
            self._leader = None
            await election.resign()

    async def _take_over(self, election: Election) -> State:
        """The state as of the log's end once this replica leads; rebuilt, where the log is lost.

        Who does not lead looks again and again: whoever leads may have rebuilt it, and this replica then stands by.
        """
        while True:
            leads = election.leads
            try:
                return await self._read(election)
            except LogLost as error:
                if leads:
                    return await self._rebuild(str(error))
                self.reason = f"{error}; the index is rebuilt by the replica that leads"
                log.error("log lost", error=str(error))
            if not election.leads:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await election.wait()

    async def _read(self, election: Election) -> State:
        """Follows the log until this replica leads, and to its end. Raises LogLost, and LogBroken for what cannot be understood."""
        self._state = state = await self._loaded()
        self._put_pools(state)

        async def fold(message: StreamMessage) -> None:
            fold_message(state, message)

        follow = await self._bus.follow("LEASES", fold, start_sequence=state.sequence + 1)
        try:
            await self._catch_up(state, follow)
            self._demand_memory(state)
            self._memory = state
            self.reason = ""
            if not election.leads:
                await self._stand_by(election, follow)
            hearing = asyncio.create_task(self._hear_marks(state, follows=election.saw_another))
            try:
                await self._catch_up(state, follow)
                await hearing
            finally:
                hearing.cancel()
        finally:
            await follow.stop()
        await self._demand_end(state)
        for node, mark in self._watch.marks.items():
            if why := refuted_by(state, mark):
                raise LogLost(f"node {node}: {why}")
        return state

    async def _loaded(self) -> State:
        """The newest snapshot of the log that is there; where nothing is, of whatever log there was."""
        last = (await self._bus.stream_state("LEASES")).last_sequence
        message = await self._bus.get_message("LEASES", last) if last else None
        try:
            incarnation = RECORD.decode(message.data).incarnation if message is not None else ""
        except MessageError:
            incarnation = ""
        state = await snapshot.load_newest(self._bus, incarnation)
        return state if state.sequence or not incarnation else State()

    def _put_pools(self, state: State) -> None:
        names = {*self._facts.pools, *state.pools}
        state.put_pools({name: self._facts.pool_space(name) for name in names})

    async def _hear_marks(self, state: State, *, follows: bool) -> None:
        """Asks the nodes how far they have seen the log, and waits until those that were there a moment ago have told.

        A process that has just begun and `follows` no living leader gives them time to come: everything may have been killed. A log
        without a mark is then not to be believed without them.
        """
        began_s = self._clock.monotonic_s()
        heard_s = self._watch.heard_s
        expected = {node for node, at_s in heard_s.items() if began_s - at_s < HEARD_S} or state.nodes()
        patience_s = limits.REBUILD_WAIT_S if self._marks.read() is None else limits.MARK_COLD_WAIT_S
        until_s = max(began_s + limits.MARK_WAIT_S, 0.0 if follows else self._listening_s + patience_s)
        ask, asked_s = encode(AskReport()), began_s - 1.0
        while any(heard_s.get(node, 0.0) < began_s for node in expected):
            now_s = self._clock.monotonic_s()
            if now_s >= until_s:
                return
            if now_s - asked_s >= MARK_ASK_EVERY_S:
                asked_s = now_s
                await self._bus.publish(subjects.ASK_WITNESS_ALL, ask)
            await asyncio.sleep(0.005)

    def _demand_memory(self, state: State) -> None:
        """What this process had folded before must be there still: a mark may be older than that."""
        known = self._memory
        if known.incarnation == state.incarnation and known.sequence > state.sequence:
            raise LogLost(
                f"the log ends at {state.sequence}, record {known.sequence} was folded: records are lost"
            )

    async def _demand_end(self, state: State) -> None:
        """A log that was replaced may have grown to where memory stands: the last record tells. Raises LogRestarted."""
        message = await self._bus.get_message("LEASES", state.sequence) if state.sequence else None
        if message is not None and digest(message.data) != state.digest:
            raise LogRestarted(f"record {state.sequence} is not the one that was folded")

    async def _rebuild(self, reason: str) -> State:
        await self._assert_servers()
        self.reason = f"{reason}; the index is being rebuilt from the nodes"
        self._recovery = Recovery(
            self._bus, self._facts, self._watch, self._marks, self._clock, self._new_incarnation
        )
        for known in (self._state, self._memory):
            self._put_pools(known)
        try:
            state = await self._recovery.rebuild(self._state, self._memory, reason)
        finally:
            self._recovery = None
        self._state = state
        self._put_pools(state)
        state.wake(self._clock.unix_ns())
        return state

    async def _stand_by(self, election: Election, follow: Follow) -> None:
        waiting = asyncio.create_task(election.wait())
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=0.5)
                if follow.failed is not None:
                    raise follow.failed
            waiting.result()
        finally:
            waiting.cancel()

    async def _catch_up(self, state: State, follow: Follow) -> None:
        """Folds to the stream's end. Raises LogLost if what is there is not what it must be.

        A damaged record at the end is counted by the server and never delivered; a damaged one before shows in the chain.
        """
        # the mark first: a leader may append and mark while this replica folds
        mark = self._marks.read()
        last = (await self._bus.stream_state("LEASES")).last_sequence
        folded, until = state.sequence, self._clock.monotonic_s() + CATCH_UP_S
        while state.sequence < last:
            if follow.failed is not None:
                raise follow.failed
            if state.sequence > folded:
                folded, until = state.sequence, self._clock.monotonic_s() + CATCH_UP_S
            if self._clock.monotonic_s() > until:
                if await self._bus.get_message("LEASES", state.sequence + 1) is None:
                    raise LogLost(
                        f"the log has {last} records, only {state.sequence} can be read: the last one is damaged"
                    )
                # it is there; its delivery is late, as while servers elect
                until = self._clock.monotonic_s() + CATCH_UP_S
            await asyncio.sleep(0.005)
        if state.sequence > last:
            raise LogLost(
                f"the log ends at {last}, memory and snapshot go to {state.sequence}: records are lost"
            )
        check_mark(mark, state)

    async def _lead(self, state: State, election: Election) -> None:
        await self._assert_servers()
        mark = self._marks.read()
        incarnation = state.incarnation or (mark.incarnation if mark else self._new_incarnation())
        if not state.incarnation:
            # the mark goes first: a log that is lost before it was marked would look like a first start
            self._marks.write(LogMark(incarnation=incarnation, sequence=0))
            state.incarnation = incarnation
        lease_log = LeaseLog(self._bus, incarnation, state.term + 1, state.sequence, state.digest)
        now_ns = max(state.at_ns, self._clock.unix_ns())
        failpoint.hit("allocator.term.start")
        record = await lease_log.append((TermStarted(replica=self._settings.replica),), now_ns)
        failpoint.hit("allocator.term.started")
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
            self._on_appended,
            self._watch,
        )
        self._leader = leader
        async with AsyncExitStack() as servings:
            allocating = await self._bus.listen(subjects.ALLOCATE_ALL, leader.on_allocate)
            servings.push_async_callback(allocating.stop)
            for subject, handler in (
                (subjects.IPAM_QUERY, self._on_query),
                (subjects.IPAM_EXPLAIN, self._on_explain),
            ):
                servings.push_async_callback((await self._bus.serve(subject, handler)).stop)
            log.info("leading", term=lease_log.term, incarnation=incarnation, sequence=state.sequence)
            self.reason = ""
            await self._run_until_lost(leader, election)

    async def _run_until_lost(self, leader: Leader, election: Election) -> None:
        running = asyncio.create_task(leader.run())
        lost = asyncio.create_task(election.lost.wait())
        marking = asyncio.create_task(self._mark_for_ever(leader.state))
        tasks = (running, lost, marking)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (running, marking):
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

    def _on_appended(self, state: State) -> None:
        self._records_since_snapshot += 1
        if self._records_since_snapshot >= self._settings.snapshot_records and self._snapshotting is None:
            self._records_since_snapshot = 0
            # cut at once: memory goes ahead of the log with the next batch
            manifest, chunks = snapshot.cut(state.snapshot())
            self._snapshotting = asyncio.create_task(self._snapshot(manifest, chunks))

    def _write_mark(self, state: State) -> None:
        self._marked = state.sequence
        self._marks.write(mark_of(state))

    async def _snapshot(self, manifest: SnapshotManifest, chunks: list[bytes]) -> None:
        try:
            await snapshot.write(self._bus, manifest, chunks)
            log.info("snapshot", sequence=manifest.sequence, size_bytes=manifest.size_bytes)
            await self._trim()
        except BusError as error:
            log.warning("no snapshot", error=str(error))
        finally:
            self._snapshotting = None

    async def _trim(self) -> None:
        """Drops what is below the older of two snapshots and past the history that the user keeps."""
        kept = await snapshot.manifests(self._bus)
        if len(kept) < snapshot.KEPT or kept[0].at_ns > self._clock.unix_ns() - int(
            self._settings.log_history_s * 1e9
        ):
            return
        await self._bus.purge("LEASES", up_to_sequence=kept[0].sequence)

    async def _on_query(self, message: Message) -> bytes | None:
        leader = self._leader
        if leader is None:
            return None
        try:
            query = IPAM_QUERY.decode(message.data)
        except MessageError as error:
            self._metrics.refused("orb.ipam.query")
            log.warning("query refused", error=str(error))
            return None
        if isinstance(query, QueryLeases):
            async with leader.settled:
                try:
                    return encode(leases_page(leader.state, self._facts, query))
                except ValueError as error:
                    self._metrics.refused("orb.ipam.query")
                    log.warning("query refused", error=str(error))
                    return None
        until = self._clock.monotonic_s() + 5.0
        while self._facts.sequence < query.facts_at_least and self._clock.monotonic_s() < until:
            await asyncio.sleep(0.005)
        violations = await self._audit(leader) if query.audit else ()
        async with leader.settled:
            state = leader.state
            return encode(
                AllocatorView(
                    replica=self._settings.replica,
                    term=state.term,
                    mark=state.mark,
                    leases=state.lease_count(),
                    facts_sequence=self._facts.sequence,
                    facts_synced=self._facts.synced,
                    violations=violations,
                    silent=tuple(sorted(state.silent)),
                    unsafe=bool(state.unsafe()),
                    quarantined=len(state.quarantine),
                    disagreements=disagreements(state, self._watch.told()),
                    kept=kept_from_others(state),
                )
            )

    async def _audit(self, leader: Leader) -> tuple[str, ...]:
        """Checks a copy in a thread: the loop must go on renewing leadership, however many leases there are. The log is read anew
        from its newest snapshot, and must say what memory has."""
        async with self._auditing:
            async with leader.settled:
                copy = encode(leader.state.snapshot())
                until = leader.state.sequence
            spaces = {name: self._facts.pool_space(name) for name in self._facts.pools}
            said, wrong = await self._replay(until)
            return (*wrong, *await asyncio.to_thread(_audit_copy, copy, spaces, said))

    async def _replay(self, until: int) -> tuple[State | None, tuple[str, ...]]:
        """What the log says at record `until`, and what in it no leader may have written; None where it cannot be read so far now."""
        wrong: list[str] = []
        try:
            said = await self._loaded()
            if said.sequence > until:
                return None, ()
            async for message in self._bus.read("LEASES", start_sequence=said.sequence + 1):
                if message.sequence > until:
                    break
                record = RECORD.decode(message.data)
                if said.incarnation not in ("", record.incarnation):
                    return None, ()  # it is another log by now, and this term is over
                wrong += follows(said, record, message.sequence)
                for event in record.events:
                    wrong += may_happen(said, event)
                    said.evolve(event)
                said.advance(record, message.sequence, digest(message.data))
                await asyncio.sleep(0)
        except (BusError, MessageError, LookupError, ValueError) as error:
            return None, (*wrong, f"the log cannot be read: {error}")
        if said.sequence != until:
            wrong.append(f"the log can be read to record {said.sequence} only, memory is at record {until}")
            return None, tuple(wrong)
        return said, tuple(wrong)

    async def _on_explain(self, message: Message) -> bytes | None:
        leader = self._leader
        if leader is None:
            return None
        try:
            query = EXPLAIN.decode(message.data)
        except MessageError as error:
            self._metrics.refused("orb.ipam.explain")
            log.warning("query refused", error=str(error))
            return None
        async with leader.settled:
            return encode(explain(leader.state, self._facts, query))

    def not_ready(self) -> str:
        return self.reason or self._without_facts

    def _status(self) -> dict[str, str]:
        state = self._state
        return {
            "role": "leader" if self._leader is not None else "standby",
            "term": str(state.term),
            "sequence": str(state.sequence),
            "leases": str(state.lease_count()),
            "facts_sequence": str(self._facts.sequence),
            "facts_synced": "true" if self._facts.synced else "false",
        }

    def _leases_by_pool(self) -> dict[str, int]:
        return {**dict.fromkeys(self._facts.pools, 0), **self._state.leases_by_pool}


def _audit_copy(copy: bytes, spaces: dict[str, PoolSpace | None], said: State | None) -> tuple[str, ...]:
    state = State.from_snapshot(snapshot.SNAPSHOT.decode(copy))
    state.put_pools(spaces)
    if said is not None and (said.holdings, said.quarantine) != (state.holdings, state.quarantine):
        return (f"memory is not what the log says at record {state.sequence}", *audit(state))
    return audit(state)
