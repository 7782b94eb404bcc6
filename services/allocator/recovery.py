"""After a loss: the journals of all nodes are heard, the index is rebuilt, and the log begins anew with it.

Owns the order: everybody is asked, the state is made, its snapshot stored, the first record of the new incarnation appended
behind what is left of the old, and only then the old put away. Whoever ends in between leaves what the next can begin with.
Must not know how claims are judged (rebuild.py) or who leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Generator, Sequence

import msgspec
import structlog

from services.allocator import snapshot
from services.allocator.adopt import decide_adopt, no_longer_kept
from services.allocator.facts import Facts
from services.allocator.log import LeaseLog, LogBroken
from services.allocator.log_time import LogTime
from services.allocator.mark import MarkStore, mark_of, refutation
from services.allocator.picture import Picture
from services.allocator.rebuild import STEP_ITEMS, Merged, merging
from services.allocator.sharing import known_marks
from services.allocator.silent import kept_for_silent, told_by_endpoints
from services.allocator.state import State
from services.allocator.watch import Testimony, Watch
from services.allocator.whole import whole
from shared import failpoint, limits, subjects
from shared.bus import Bus, BusError, BusTimeout
from shared.clock import Clock
from shared.contracts.adopt import RECORDS_PER_PART_MAX, AdoptedAddress
from shared.contracts.codec import MessageError, encode
from shared.contracts.lease import LogRebuilt, Record, digest
from shared.contracts.mark import LogMark, Mirrored
from shared.contracts.mirrored import ASK_MIRRORED_TIMEOUT_S, MIRRORED_PAGE, AskMirrored
from shared.contracts.witness import Adopt, AskDetail

log = structlog.get_logger()

ASK_EVERY_S = 0.5
GENERATIONS_SKIPPED = 1_000_000
"""Lost records may have given generations that nobody tells of; no release may name one that is given anew."""


def readable_of(read: State, memory: State, marks: Sequence[LogMark]) -> State:
    """What is known best: the log as far as it can be read, or what this process had folded before. Of two logs the one that lived
    through more losses, of equals the one that a mark knows. Pure."""
    if not memory.sequence or not read.sequence:
        return memory if memory.sequence else read
    if memory.incarnation == read.incarnation:
        return memory if memory.sequence > read.sequence else read
    if _lived(memory) != _lived(read):
        return memory if _lived(memory) > _lived(read) else read
    known = {mark.incarnation for mark in marks}
    return memory if memory.incarnation in known and read.incarnation not in known else read


def _lived(state: State) -> int:
    """A log on which nobody has led yet is no more than the one it was rebuilt of, which memory may know better."""
    return state.epoch - state.has_no_term


def is_complete(readable: State, marks: Sequence[LogMark], watch: Watch, last_sequence: int) -> bool:
    """Whether nobody has seen anything that is not in `readable`. Pure."""
    if not readable.sequence or last_sequence > readable.sequence or refutation(marks, readable):
        return False
    return all(
        seen.incarnation == readable.incarnation and seen.sequence <= readable.sequence
        for seen in watch.marks.values()
    )


def beyond(readable: State, marks: Sequence[LogMark]) -> tuple[LogMark, ...]:
    """Those that promise records which are not in `readable`; those of before a loss that it lived through do not. Pure."""
    return tuple(
        mark
        for mark in marks
        if mark.sequence
        and (mark.incarnation != readable.incarnation or mark.sequence > readable.sequence)
        and (not readable.sequence or mark.epoch >= readable.epoch)
    )


def lost_log(readable: State, unread: Sequence[LogMark]) -> str:
    """The log that was lost: the furthest that a mark knows `beyond` what is readable, else the readable one. Pure."""
    return unread[0].incarnation if unread else readable.incarnation


class _Endpoints(msgspec.Struct):
    through: Mirrored | None = None
    addresses: tuple[AdoptedAddress, ...] = ()


class Recovery:
    """One rebuild. `hear` takes testimonies while it is under way."""

    def __init__(
        self,
        bus: Bus,
        facts: Facts,
        watch: Watch,
        marks: MarkStore,
        clock: Clock,
        new_incarnation: Callable[[], str],
    ) -> None:
        self._bus = bus
        self._facts = facts
        self._watch = watch
        self._marks = marks
        self._clock = clock
        self._incarnation = new_incarnation()
        self._told: dict[str, Testimony] = {}

    def hear(self, testimony: Testimony) -> None:
        if testimony.question == self._incarnation:
            self._told[testimony.claims.node] = testimony

    async def rebuild(
        self, read: State, memory: State, reason: str, given: Collection[AdoptedAddress] = ()
    ) -> State:
        """The state that the new log begins with, durable. `given` is what the objects' status says that pods have; it may grow until the
        objects are known. Raises LogBroken while they are not, Fenced if another
        replica was faster, and what the bus raises."""
        marks = known_marks(self._marks, self._facts)
        readable = readable_of(read, memory, marks)
        last = (await self._bus.stream_state("LEASES")).last_sequence
        facts = asyncio.create_task(whole(self._bus, self._facts, "the rebuild"))
        try:
            silent = await self._ask(readable, marks, last, facts)
        finally:
            facts.cancel()
        if not self._facts.synced:
            raise LogBroken(f"{reason}; the index is rebuilt as soon as the objects are known")
        # the objects may have told the shared mark by now
        marks = known_marks(self._marks, self._facts)
        complete = is_complete(readable, marks, self._watch, last)
        unread = beyond(readable, marks)
        lost = lost_log(readable, unread)
        known = readable.sequence if readable.incarnation == lost else 0
        endpoints = _Endpoints()
        if silent and not complete:
            endpoints = await self._endpoints(silent)
            silent -= self._told.keys()
            seen = tuple(self._watch.marks.values())
            if silent <= told_by_endpoints(silent, endpoints.through, unread, self._facts.mark, seen):
                complete = True
                known = max(known, endpoints.through.sequence if endpoints.through is not None else 0)
        state = await self._merged(readable)
        await self._adopt(state, tuple(given))
        for event in kept_for_silent(state, silent, endpoints.addresses):
            state.evolve(event)
        began = LogRebuilt(
            lost=lost,
            reason=reason,
            reported=tuple(sorted(self._told)),
            silent=tuple(sorted(silent)),
            complete=complete,
            generation=state.generation + GENERATIONS_SKIPPED,
            epoch=1 + max((state.epoch, *(mark.epoch for mark in marks))),
            lost_sequence=known,
        )
        await self._begin(state, began, last)
        log.warning(
            "log rebuilt",
            reason=reason,
            incarnation=state.incarnation,
            leases=state.lease_count(),
            reported=began.reported,
            silent=began.silent,
            complete=complete,
        )
        return state

    async def _ask(
        self, readable: State, marks: Sequence[LogMark], last: int, facts: asyncio.Task[None]
    ) -> frozenset[str]:
        """Asks all nodes until they have told, or long enough. Those that were waited for in vain. The `facts` are waited for
        too, if not as long: what a node claims for a pod that the objects do not show is kept from the pod as well."""
        began_s = self._clock.monotonic_s()
        known = any(mark.nodes for mark in marks)
        listen_s = 0.0 if known else limits.REBUILD_LISTEN_S
        ask = encode(AskDetail(question=self._incarnation))
        asked_s = began_s - ASK_EVERY_S
        while True:
            now_s = self._clock.monotonic_s()
            expected = self._expected(readable, marks)
            silent = expected - self._told.keys()
            over_s = now_s - began_s
            are_whole = facts.done() or (self._facts.synced and over_s >= limits.REBUILD_LISTEN_S)
            if not silent and over_s >= listen_s and are_whole and expected | self._told.keys():
                return silent
            if over_s >= limits.REBUILD_WAIT_S:
                return silent
            if over_s >= limits.REBUILD_LISTEN_S and is_complete(readable, marks, self._watch, last):
                # what the silent ones hold is known: they are not worth the pods that wait
                return silent
            if now_s - asked_s >= ASK_EVERY_S:
                asked_s = now_s
                await self._bus.publish(subjects.ASK_WITNESS_ALL, ask)
            await asyncio.sleep(0.01)

    async def _endpoints(self, silent: frozenset[str]) -> _Endpoints:
        """What they say of these nodes, or nothing where that is not to be had in time."""
        nodes, after, found = tuple(sorted(silent)), "", _Endpoints()
        until_s = self._clock.monotonic_s() + limits.REBUILD_MIRRORED_WAIT_S
        while self._clock.monotonic_s() < until_s:
            question = encode(AskMirrored(nodes=nodes, after=after))
            try:
                reply = await self._bus.request(subjects.ASK_MIRRORED, question, ASK_MIRRORED_TIMEOUT_S)
                page = MIRRORED_PAGE.decode(reply.data)
            except BusTimeout as error:
                log.info("the rebuild asks for the endpoints again", error=str(error))
                continue
            except (BusError, MessageError) as error:
                log.info("the rebuild does without the endpoints", error=str(error))
                return _Endpoints()
            found.addresses += page.addresses
            # the first page's word: a pod that comes later is in the log that is to be
            found.through = found.through if after else page.through
            after = page.next_after
            if not after:
                return found
        return _Endpoints()

    def _expected(self, readable: State, marks: Sequence[LogMark]) -> frozenset[str]:
        nodes = set(self._facts.nodes) | readable.nodes() | readable.silent | self._watch.heard_s.keys()
        nodes.update(*(mark.nodes for mark in marks))
        return frozenset(nodes - self._facts.departed)

    async def _merged(self, state: State) -> State:
        """In small steps: leadership must be renewed meanwhile."""
        claims = [one.claims for one in self._told.values()]
        merged = await _gently(merging(state, self._facts, claims, trusted=True))
        for number, event in enumerate(merged.events):
            state.evolve(event)
            if number % STEP_ITEMS == 0:
                await asyncio.sleep(0)
        for disagreement in merged.disagreements:
            known = self._watch.disagreements.get(disagreement.node, ())
            self._watch.disagreements[disagreement.node] = (*known, disagreement)
        return state

    async def _adopt(self, state: State, given: tuple[AdoptedAddress, ...]) -> None:
        """What another plugin attached is in no journal. What journals tell goes first."""
        for begin in range(0, len(given), RECORDS_PER_PART_MAX):
            adopted = decide_adopt(state, self._facts, given[begin : begin + RECORDS_PER_PART_MAX])
            for event in adopted.events:
                state.evolve(event)
            for event in no_longer_kept(state, adopted.events):
                state.evolve(event)
            for one in adopted.refused:
                log.warning("not adopted", address=one.address, pod=one.pod, reason=one.reason)
            await asyncio.sleep(0)

    async def _begin(self, state: State, began: LogRebuilt, last: int) -> None:
        now_ns = max(state.at_ns, self._clock.unix_ns())
        record = Record(
            incarnation=self._incarnation, term=state.term + 1, at_ns=now_ns, previous=b"", events=(began,)
        )
        for moved in LogTime(state.at_ns, 0.0).moved(now_ns, 0.0):
            state.evolve(moved)
        state.evolve(began)
        state.recent.clear()
        state.rebuilt_at = last + 1
        state.advance(record, last + 1, digest(encode(record)))
        failpoint.hit("allocator.rebuild.merged")
        await snapshot.store(self._bus, Picture(state.snapshot()))
        failpoint.hit("allocator.rebuild.stored")
        lease_log = LeaseLog(self._bus, self._incarnation, record.term, last, b"")
        await lease_log.append(record.events, now_ns)
        if (lease_log.sequence, lease_log.digest) != (state.sequence, state.digest):
            raise LogBroken(f"the first record of log {self._incarnation} is not the one that was meant")
        failpoint.hit("allocator.rebuild.begun")
        self._marks.write(mark_of(state))
        await put_away(self._bus, state)
        for node in self._told:
            adopt = encode(Adopt(question=self._incarnation, mark=state.mark))
            await self._bus.publish(subjects.ask_witness(node), adopt)
        await self._bus.flush()


async def put_away(bus: Bus, state: State) -> None:
    """Forgets what is left of the log before, once the one that was rebuilt of it stands. Whoever finds it standing may do it again."""
    await bus.purge("LEASES", up_to_sequence=state.rebuilt_at)
    failpoint.hit("allocator.rebuild.purged")
    await snapshot.drop_others(bus, state.incarnation)


async def _gently(steps: Generator[None, None, Merged]) -> Merged:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value
        await asyncio.sleep(0)
