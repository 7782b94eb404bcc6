"""The mirror of the leases, kept: loaded from the allocator, then the log from there on.

Owns the questions and the following. Must not know what is done with what changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from services.controller.mirror import Mirror
from shared.bus import Bus, BusError, StreamMessage
from shared.contracts.codec import MessageError, encode
from shared.contracts.ipam import Mark
from shared.contracts.lease import RECORD
from shared.contracts.query import IPAM_ANSWER, LeasesPage, QueryLeases
from shared.subjects import IPAM_QUERY, LEASES

log = structlog.get_logger()

PAGE_LEASES = 2000
PAGE_PAUSE_S = 0.05
"""A page costs the leading allocator a look at all leases: others get their turn in between."""
ANSWER_TIMEOUT_S = 5.0
RETRY_S = 1.0


class Mirroring:
    """`ready`: the mirror is what the log says, up to `sequence` of log `incarnation`. `mirror` is another one after each new start."""

    def __init__(self, bus: Bus, changed: Callable[[], None]) -> None:
        """`changed` is called when there may be something in `mirror.changed()`."""
        self.mirror = Mirror()
        self.ready = False
        self.incarnation = ""
        self.sequence = 0
        self._bus = bus
        self._changed = changed

    async def run(self) -> None:
        said = ""
        while True:
            try:
                await self._keep()
            except (BusError, MessageError) as error:
                if str(error) != said:
                    log.info("leases are not mirrored yet", error=str(error))
                said = str(error)
            self.ready = False
            await asyncio.sleep(RETRY_S)

    async def _keep(self) -> None:
        mirror = Mirror()
        mark = await self._load(mirror)
        broken = asyncio.Event()
        self.incarnation, self.sequence = mark.incarnation, mark.sequence

        async def take(message: StreamMessage) -> None:
            try:
                record = RECORD.decode(message.data)
            except MessageError as error:
                log.warning("a record that this version does not know", error=str(error))
                broken.set()
                return
            for event in record.events:
                mirror.fold(event)
            if mirror.lost or record.incarnation != mark.incarnation:
                broken.set()
            elif not broken.is_set():
                self.sequence = message.sequence
                if self.ready:
                    self._changed()

        following = await self._bus.follow(LEASES.name, take, start_sequence=mark.sequence + 1)
        try:
            await following.caught_up()
            if not broken.is_set():
                self.mirror, self.ready = mirror, True
                log.info("leases are mirrored", holders=len(mirror.holders))
                self._changed()
            await broken.wait()
        finally:
            await following.stop()

    async def _load(self, mirror: Mirror) -> Mark:
        """All leases by pages; where in the log the mirror must go on."""
        after, first = "", None
        while True:
            question = encode(QueryLeases(after=after, limit=PAGE_LEASES))
            answer = await self._bus.request(IPAM_QUERY, question, timeout_s=ANSWER_TIMEOUT_S)
            page = IPAM_ANSWER.decode(answer.data)
            if not isinstance(page, LeasesPage):
                raise MessageError("the allocator answers with something else than leases")
            first = first or page.mark
            mirror.load(page.leases)
            after = page.next_after
            if not after:
                return first
            await asyncio.sleep(PAGE_PAUSE_S)
