"""What tools ask of the leader: a page of leases, how it fares and whether memory is sound, why a pod gets what it gets.

Owns the answers' order and the audit. Must not change anything itself, nor know how a term begins or ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from services.allocator import snapshot
from services.allocator.audit import audit
from services.allocator.collect import DEL_PATIENCE_S
from services.allocator.facts import Facts
from services.allocator.leader import Leader
from services.allocator.pool_index import PoolSpace
from services.allocator.reading import LogReader
from services.allocator.state import State
from services.allocator.verdict_page import verdict_page
from services.allocator.view import disagreements, explain, kept_from_others, leases_page
from services.allocator.watch import Watch
from shared import subjects
from shared.bus import Bus, Message
from shared.clock import Clock
from shared.contracts.codec import MessageError, encode
from shared.contracts.collect import COLLECT
from shared.contracts.query import EXPLAIN, IPAM_QUERY, AllocatorView, QueryAllocator, QueryLeases

log = structlog.get_logger()

FACTS_WAIT_S = 5.0
"""An answer waits so long for facts that the asker knows to be there."""


class Queries:
    """Answers for one leader. `refused` counts what is no question, by its subject."""

    def __init__(
        self,
        bus: Bus,
        replica: str,
        leader: Leader,
        reader: LogReader,
        facts: Facts,
        watch: Watch,
        clock: Clock,
        refused: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._replica = replica
        self._leader = leader
        self._reader = reader
        self._facts = facts
        self._watch = watch
        self._clock = clock
        self._refused = refused
        self._auditing = asyncio.Lock()

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None]:
        async with AsyncExitStack() as servings:
            for subject, handler in (
                (subjects.IPAM_QUERY, self._on_query),
                (subjects.IPAM_EXPLAIN, self._on_explain),
                (subjects.IPAM_COLLECT, self._on_collect),
            ):
                servings.push_async_callback((await self._bus.serve(subject, handler)).stop)
            yield

    async def _on_query(self, message: Message) -> bytes | None:
        try:
            query = IPAM_QUERY.decode(message.data)
            if isinstance(query, QueryLeases):
                async with self._leader.settled:
                    return encode(leases_page(self._leader.state, self._facts, query))
        except (MessageError, ValueError) as error:
            self._refused("orb.ipam.query")
            log.warning("query refused", error=str(error))
            return None
        return encode(await self._view(query))

    async def _view(self, query: QueryAllocator) -> AllocatorView:
        until = self._clock.monotonic_s() + FACTS_WAIT_S
        while self._facts.sequence < query.facts_at_least and self._clock.monotonic_s() < until:
            await asyncio.sleep(0.005)
        violations = await self._audit() if query.audit else ()
        async with self._leader.settled:
            state = self._leader.state
            return AllocatorView(
                replica=self._replica,
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

    async def _audit(self) -> tuple[str, ...]:
        """Checks a copy in a thread: the loop must go on renewing leadership, however many leases there are. The log is read anew
        from its newest snapshot, and must say what memory has."""
        async with self._auditing:
            async with self._leader.settled:
                copy = encode(self._leader.state.snapshot())
                until = self._leader.state.sequence
            spaces = {name: self._facts.pool_space(name) for name in self._facts.pools}
            said, wrong = await self._reader.replay(until)
            return (*wrong, *await asyncio.to_thread(_audit_copy, copy, spaces, said))

    async def _on_explain(self, message: Message) -> bytes | None:
        try:
            query = EXPLAIN.decode(message.data)
        except MessageError as error:
            self._refused("orb.ipam.explain")
            log.warning("query refused", error=str(error))
            return None
        async with self._leader.settled:
            return encode(explain(self._leader.state, self._facts, query))

    async def _on_collect(self, message: Message) -> bytes | None:
        """The verdicts as of now; if they are wanted done, all is judged at once by whoever appends, this page's leases as well."""
        leader = self._leader
        collector = leader.collector
        now_ns = max(leader.state.at_ns, self._clock.unix_ns())
        try:
            query = COLLECT.decode(message.data)
            async with leader.settled:
                patience_s = DEL_PATIENCE_S if query.dry_run else 0.0
                page = verdict_page(
                    leader.state,
                    self._facts,
                    lambda holding: collector.verdict(holding, now_ns, patience_s),
                    query,
                    leader.collects_nothing(),
                )
        except (MessageError, ValueError) as error:
            self._refused("orb.ipam.collect")
            log.warning("collection refused", error=str(error))
            return None
        if not query.dry_run and not query.after:
            collector.hurry()
        return encode(page)


def _audit_copy(copy: bytes, spaces: dict[str, PoolSpace | None], said: State | None) -> tuple[str, ...]:
    state = State.from_snapshot(snapshot.SNAPSHOT.decode(copy))
    state.put_pools(spaces)
    if said is not None and (said.holdings, said.quarantine) != (state.holdings, state.quarantine):
        return (f"memory is not what the log says at record {state.sequence}", *audit(state))
    return audit(state)
