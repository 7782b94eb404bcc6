"""Disagreements on the bus: the stream follows what the leader knows to be open.

Owns what was published, also by the leader before, and the order of publishing. Must not know what a disagreement is about. What
cannot be published now is published later, as it is then: nothing waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from services.allocator.disagreement import Disagreement, news
from shared import subjects
from shared.bus import Bus, BusError
from shared.clock import Clock
from shared.contracts.codec import MessageError, encode
from shared.contracts.disagreement import (
    DISAGREEMENT_EVENT,
    DisagreementAppeared,
    DisagreementEvent,
)

log = structlog.get_logger()

RETRY_WAIT_S = 1.0


class Bulletin:
    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._told: dict[str, dict[str, DisagreementAppeared]] = {}
        self._now: dict[str, tuple[Disagreement, ...]] = {}
        self._changed = asyncio.Event()
        self.inherited: set[str] = set()
        """Nodes about which the leader before left something open, and which nobody has heard in this term."""

    def tell(self, node: str, now: tuple[Disagreement, ...]) -> None:
        """All that is open about a node from now on."""
        self.inherited.discard(node)
        self._now[node] = now
        self._changed.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self._read()
                break
            except BusError as error:
                log.info("disagreements not read yet", error=str(error))
                await asyncio.sleep(RETRY_WAIT_S)
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                while self._now:
                    await self._publish(next(iter(self._now)))
            except BusError as error:
                log.info("disagreements not told yet", error=str(error))
                self._changed.set()
                await asyncio.sleep(RETRY_WAIT_S)

    async def _read(self) -> None:
        self._told.clear()
        async for message in self._bus.read(subjects.DISAGREEMENTS.name):
            with contextlib.suppress(MessageError):
                self._take(DISAGREEMENT_EVENT.decode(message.data))
        self.inherited = set(self._told) - self._now.keys()

    async def _publish(self, node: str) -> None:
        now = self._now[node]
        for event in news(self._told.get(node, {}), now, self._clock.unix_ns()):
            await self._bus.append(subjects.disagreement(node), encode(event))
            self._take(event)
        if self._now.get(node) is now:
            del self._now[node]

    def _take(self, event: DisagreementEvent) -> None:
        open_ = self._told.setdefault(event.node, {})
        if isinstance(event, DisagreementAppeared):
            open_[event.id] = event
        else:
            open_.pop(event.id, None)
        if not open_:
            del self._told[event.node]
