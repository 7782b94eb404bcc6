"""How a replica reads the lease log: from the newest snapshot to the end, and what must hold before it is believed.

Owns the state that is folded, what this process had folded before, and the proof that the log is whole: the mark, its own
memory, the marks of the nodes. Must not know who leads, what an event means, or how a lost log is rebuilt.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from services.allocator import snapshot
from services.allocator.audit import follows, may_happen
from services.allocator.facts import Facts
from services.allocator.log import LogLost, LogRestarted, fold_message
from services.allocator.mark import MarkStore, check_marks
from services.allocator.sharing import known_marks
from services.allocator.state import State
from services.allocator.watch import Watch, refuted_by
from services.allocator.whole import whole_if_told
from shared import limits, subjects
from shared.bus import Bus, BusError, Follow, StreamMessage
from shared.clock import Clock
from shared.contracts.codec import MessageError, encode
from shared.contracts.lease import RECORD, digest
from shared.contracts.witness import AskReport

log = structlog.get_logger()

CATCH_UP_S = 5.0
"""Without one record more in this time, the next is not going to come."""
MARK_ASK_EVERY_S = 0.3
HEARD_S = 30.0
"""A node that was heard of so lately is expected to answer a new leader."""


class LogReader:
    """`state` is what is folded now, by a reading or by the leader that goes on with it; `memory` what this process believed last."""

    def __init__(self, bus: Bus, facts: Facts, watch: Watch, marks: MarkStore, clock: Clock) -> None:
        self._bus = bus
        self._facts = facts
        self._watch = watch
        self._marks = marks
        self._clock = clock
        self._listening_s = 0.0
        self.state = State()
        self.memory = State()

    def listens(self) -> None:
        """From now on the nodes' marks are heard."""
        self._listening_s = self._clock.monotonic_s()

    def put_pools(self, state: State) -> None:
        names = {*self._facts.pools, *state.pools}
        state.put_pools({name: self._facts.pool_space(name) for name in names})

    async def settle(self) -> str:
        """Returns when the streams' leaders have applied all that was acknowledged; their names. Raises BusError.

        What contradicts mark or memory may be only late behind an election: it is a loss where two calls with one answer enclose
        the reading that found it.
        """
        return f"{await self._bus.settle('LEASES')}, {await self._bus.settle('SNAPSHOTS')}"

    async def read(self, lead: Callable[[Callable[[], None]], Awaitable[bool]]) -> State:
        """The state at the log's end, once `lead` has returned; it is called when all is read, and the log is followed meanwhile.
        `lead` is given what raises a failure of the following, and tells whether another led until a moment ago.

        Raises LogLost, LogRestarted, LogBroken for what cannot be understood, BusError.
        """
        self.state = state = await self.loaded()
        self.put_pools(state)
        async with self._followed(state) as follow:
            await self._catch_up(state, follow)
            self._demand_memory(state)
            self.memory = state
            followed = await lead(lambda: _demand_following(follow))
            hearing = asyncio.create_task(self._hear_marks(state, follows=followed))
            try:
                await self._catch_up(state, follow)
                await hearing
            finally:
                hearing.cancel()
        await self._demand_end(state)
        # the objects tell the shared mark, and may have come only now
        check_marks([self._facts.mark] if self._facts.mark is not None else [], state)
        for node, mark in self._watch.marks.items():
            if why := refuted_by(state, mark):
                raise LogLost(f"node {node}: {why}")
        return state

    @asynccontextmanager
    async def _followed(self, state: State) -> AsyncGenerator[Follow]:
        async def fold(message: StreamMessage) -> None:
            fold_message(state, message)

        follow = await self._bus.follow("LEASES", fold, start_sequence=state.sequence + 1)
        try:
            yield follow
        finally:
            await follow.stop()

    async def loaded(self) -> State:
        """The newest snapshot of the log that is there; where nothing is, of whatever log there was."""
        last = (await self._bus.stream_state("LEASES")).last_sequence
        message = await self._bus.get_message("LEASES", last) if last else None
        try:
            incarnation = RECORD.decode(message.data).incarnation if message is not None else ""
        except MessageError:
            incarnation = ""
        state = await snapshot.load_newest(self._bus, incarnation)
        return state if state.sequence or not incarnation else State()

    async def _catch_up(self, state: State, follow: Follow) -> None:
        """Folds to the stream's end. Raises LogLost if what is there is not what it must be.

        A damaged record at the end is counted by the server and never delivered; a damaged one before shows in the chain.
        """
        # the marks first: a leader may append and mark while this replica folds
        marks = known_marks(self._marks, self._facts)
        last = (await self._bus.stream_state("LEASES")).last_sequence
        folded, until = state.sequence, self._clock.monotonic_s() + CATCH_UP_S
        while state.sequence < last:
            _demand_following(follow)
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
        check_marks(marks, state)

    async def _hear_marks(self, state: State, *, follows: bool) -> None:
        """Asks the nodes how far they have seen the log, and waits until those that were there a moment ago have told.

        A process that has just begun and `follows` no living leader gives them time to come: everything may have been killed. A log
        without a mark is then not to be believed without them. So long it also waits for a controller that is there: what the facts
        say of the shared mark may be as old a copy as the log, for they are in the same store.
        """
        asking = None if follows else asyncio.create_task(whole_if_told(self._bus, self._facts, "the log"))
        try:
            await self._heard(state, asking)
        finally:
            if asking is not None:
                asking.cancel()

    async def _heard(self, state: State, asking: asyncio.Task[bool] | None) -> None:
        began_s = self._clock.monotonic_s()
        heard_s = self._watch.heard_s
        expected = {node for node, at_s in heard_s.items() if began_s - at_s < HEARD_S} or state.nodes()
        is_marked = bool(known_marks(self._marks, self._facts))
        patience_s = limits.MARK_COLD_WAIT_S if is_marked else limits.REBUILD_WAIT_S
        until_s = began_s + limits.MARK_WAIT_S
        if asking is not None:
            until_s = max(until_s, self._listening_s + patience_s)
        facts_until_s = max(began_s + limits.MARK_WAIT_S, self._listening_s + limits.MARK_COLD_WAIT_S)
        ask, asked_s = encode(AskReport()), began_s - 1.0
        while True:
            now_s = self._clock.monotonic_s()
            waits_for_facts = asking is not None and not asking.done() and now_s < facts_until_s
            waits_for_nodes = any(heard_s.get(node, 0.0) < began_s for node in expected) and now_s < until_s
            if not (waits_for_facts or waits_for_nodes):
                return
            if waits_for_nodes and now_s - asked_s >= MARK_ASK_EVERY_S:
                asked_s = now_s
                await self._bus.publish(subjects.ASK_WITNESS_ALL, ask)
            await asyncio.sleep(0.005)

    def _demand_memory(self, state: State) -> None:
        """What this process had folded before must be there still: a mark may be older than that."""
        known = self.memory
        if known.incarnation == state.incarnation and known.sequence > state.sequence:
            raise LogLost(
                f"the log ends at {state.sequence}, record {known.sequence} was folded: records are lost"
            )

    async def _demand_end(self, state: State) -> None:
        """A log that was replaced may have grown to where memory stands: the last record tells. Raises LogRestarted."""
        message = await self._bus.get_message("LEASES", state.sequence) if state.sequence else None
        if message is not None and digest(message.data) != state.digest:
            raise LogRestarted(f"record {state.sequence} is not the one that was folded")

    async def replay(self, until: int) -> tuple[State | None, tuple[str, ...]]:
        """What the log says at record `until`, and what in it no leader may have written; None where it cannot be read so far now."""
        wrong: list[str] = []
        try:
            said = await self.loaded()
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


def _demand_following(follow: Follow) -> None:
    if follow.failed is not None:
        raise follow.failed
