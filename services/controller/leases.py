"""Which addresses of a pool are held, asked of the leading allocator.

Owns the two questions and their paging. Must not know why it is asked.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from shared.bus import Bus, BusError
from shared.contracts.codec import MessageError, encode
from shared.contracts.query import (
    IPAM_ANSWER,
    AllocatorView,
    LeasesPage,
    LeaseView,
    QueryAllocator,
    QueryLeases,
)
from shared.subjects import IPAM_QUERY

log = structlog.get_logger()

ANSWER_TIMEOUT_S = 1.0


class Leases(Protocol):
    async def of_pool(self, pool: str, facts_at_least: int = 0) -> tuple[LeaseView, ...] | None:
        """Every lease of the pool, as of an allocator that has folded FACTS up to `facts_at_least`; None: nobody can tell now."""
        ...


class AllocatorLeases:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def of_pool(self, pool: str, facts_at_least: int = 0) -> tuple[LeaseView, ...] | None:
        try:
            if facts_at_least and not await self._has_folded(facts_at_least):
                return None
            leases: list[LeaseView] = []
            after = ""
            while True:
                page = await self._ask(QueryLeases(pool=pool, after=after))
                if not isinstance(page, LeasesPage):
                    return None
                leases += page.leases
                after = page.next_after
                if not after:
                    return tuple(leases)
        except (BusError, MessageError) as error:
            log.info("the allocator does not tell the leases of a pool", pool=pool, error=str(error))
            return None

    async def _has_folded(self, sequence: int) -> bool:
        view = await self._ask(QueryAllocator(facts_at_least=sequence))
        return isinstance(view, AllocatorView) and view.facts_sequence >= sequence

    async def _ask(self, question: QueryLeases | QueryAllocator) -> LeasesPage | AllocatorView:
        answer = await self._bus.request(IPAM_QUERY, encode(question), timeout_s=ANSWER_TIMEOUT_S)
        return IPAM_ANSWER.decode(answer.data)
