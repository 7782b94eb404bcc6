"""Which addresses of a pool are leased: asked of the allocator when an admission takes addresses away, never otherwise.

Owns the question. Must not know the rules.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from shared import subjects
from shared.bus import Bus, BusError
from shared.contracts.codec import MessageError, encode
from shared.contracts.query import IPAM_ANSWER, LeasesPage, QueryLeases

TOTAL_S = 3.0
"""Kubernetes gives a webhook 10 s by default; the rest is for the way."""


_RESTING = "resting"
"""Released, and only kept back for a while: nobody uses the address."""


class LeasesUnknownError(Exception):
    """The allocator did not tell in time; the message says why."""


class Leases(Protocol):
    async def of_pool(self, pool: str) -> dict[str, str]:
        """Address → `ns/name` of its pod. Raises LeasesUnknownError."""
        ...


class AllocatorLeases:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def of_pool(self, pool: str) -> dict[str, str]:
        try:
            return await asyncio.wait_for(self._pages(pool), TOTAL_S)
        except TimeoutError:
            raise LeasesUnknownError(f"no answer within {TOTAL_S:.0f} s") from None
        except (BusError, MessageError) as error:
            raise LeasesUnknownError(str(error)) from None

    async def _pages(self, pool: str) -> dict[str, str]:
        out: dict[str, str] = {}
        after = ""
        while True:
            question = encode(QueryLeases(pool=pool, after=after))
            page = IPAM_ANSWER.decode((await self._bus.request(subjects.IPAM_QUERY, question, TOTAL_S)).data)
            if not isinstance(page, LeasesPage):
                raise MessageError("an answer to another question")
            for lease in page.leases:
                if lease.state == _RESTING:
                    continue
                pod = f"{lease.pod_namespace}/{lease.pod_name}" if lease.pod_name else lease.container_id
                out[lease.address] = pod
            after = page.next_after
            if not after:
                return out
