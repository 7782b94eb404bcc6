"""Requests to adopt what another IPAM gave: they wait here for the leader's next batch, and are answered after its append.

Owns the order "facts, decision, append, answer". Must not know which record becomes whose lease (adopt.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec
import structlog

from services.allocator.adopt import decide_adopt
from services.allocator.facts import Facts
from services.allocator.state import State
from shared.bus import Message
from shared.clock import Clock
from shared.contracts.adopt import (
    ADOPTION,
    AdoptedAddress,
    Adoption,
    AdoptionView,
    AdoptRecords,
    AskAdoption,
    EndAdoption,
)
from shared.contracts.codec import MessageError, encode
from shared.contracts.lease import AdoptionEnded, LeaseEvent

log = structlog.get_logger()

FACTS_WAIT_S = 20.0


def _request(message: Message, refused: Callable[[str], None]) -> Adoption | None:
    try:
        return ADOPTION.decode(message.data)
    except MessageError as error:
        refused("orb.ipam.adopt")
        log.warning("adoption refused", error=str(error))
        return None


class Gathering:
    """While the index of a lost log is rebuilt: what is told is kept for the rebuild, and answered at once. Whoever told it then says that
    the objects are all known, for which the rebuild waits."""

    def __init__(self, refused: Callable[[str], None]) -> None:
        self.records: dict[AdoptedAddress, None] = {}
        self._refused = refused

    async def on_ask(self, message: Message) -> bytes | None:
        request = _request(message, self._refused)
        if request is None:
            return None
        if isinstance(request, AdoptRecords):
            self.records.update(dict.fromkeys(request.records))
        return encode(AdoptionView(open=not isinstance(request, EndAdoption)))


class Pending(msgspec.Struct):
    request: AdoptRecords | EndAdoption
    done: asyncio.Future[AdoptionView]


class Adopting:
    """`wake` is called when a request waits. One that is not whole when its term ends is not answered: it is asked again."""

    def __init__(
        self,
        state: State,
        facts: Facts,
        clock: Clock,
        wake: Callable[[], None],
        refused: Callable[[str], None],
    ) -> None:
        self._state = state
        self._facts = facts
        self._clock = clock
        self._wake = wake
        self._refused = refused
        self._waiting: deque[Pending] = deque()

    @property
    def is_due(self) -> bool:
        return bool(self._waiting)

    async def on_ask(self, message: Message) -> bytes | None:
        request = _request(message, self._refused)
        if request is None:
            return None
        if isinstance(request, AskAdoption):
            return encode(AdoptionView(open=self._state.adoption_open, mark=self._state.mark))
        if isinstance(request, AdoptRecords) and not await self._knows(request.facts_at_least):
            return None
        pending = Pending(request, asyncio.get_running_loop().create_future())
        self._waiting.append(pending)
        self._wake()
        return encode(await pending.done)

    async def _knows(self, sequence: int) -> bool:
        until = self._clock.monotonic_s() + FACTS_WAIT_S
        while self._facts.sequence < sequence:
            if self._clock.monotonic_s() > until:
                return False
            await asyncio.sleep(0.01)
        return True

    def decide(self) -> tuple[tuple[LeaseEvent, ...], Pending, AdoptionView]:
        """The next request, judged; `answer` it when its events are durable."""
        pending = self._waiting.popleft()
        if not self._state.adoption_open:
            return (), pending, AdoptionView(open=False)
        if isinstance(pending.request, EndAdoption):
            return (AdoptionEnded(reason="all is told"),), pending, AdoptionView(open=False)
        adopted = decide_adopt(self._state, self._facts, pending.request.records)
        for one in adopted.refused:
            log.warning("not adopted", address=one.address, pod=one.pod, reason=one.reason)
        view = AdoptionView(open=True, adopted=adopted.count, refused=adopted.refused)
        return adopted.events, pending, view

    def answer(self, pending: Pending, view: AdoptionView) -> None:
        if not pending.done.done():
            pending.done.set_result(msgspec.structs.replace(view, mark=self._state.mark))

    def close(self) -> None:
        for pending in self._waiting:
            pending.done.cancel()
        self._waiting.clear()
