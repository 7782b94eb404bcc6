"""The mark that all replicas of a cluster share: told to the controller, which keeps it, and read from the facts.

Owns when it is told, and what is known of marks here in all. Must not know where the controller keeps it, nor what a mark says against
a log (mark.py). Nothing waits for it: where no controller keeps one, the file of the machine and the nodes are the witnesses.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from services.allocator.facts import Facts
from services.allocator.mark import MarkStore, mark_of
from services.allocator.state import State
from shared import limits, subjects
from shared.bus import Bus, BusError
from shared.contracts.codec import encode
from shared.contracts.mark import KeepMark, LogMark, goes_further

log = structlog.get_logger()


def known_marks(marks: MarkStore, facts: Facts) -> tuple[LogMark, ...]:
    """That of this machine and that of the cluster, the furthest first. Raises LogBroken for a file that cannot be understood."""
    own, shared = marks.read(), facts.mark
    known = [mark for mark in (own, shared) if mark is not None]
    if len(known) == 2 and goes_further(known[1], known[0]):
        known.reverse()
    return tuple(known)


class Sharing:
    """One term's."""

    def __init__(self, bus: Bus, state: State, facts: Facts) -> None:
        self._bus = bus
        self._state = state
        self._facts = facts

    async def run(self) -> None:
        """Tells it for ever: at once, and then again as long as the one that is kept is behind."""
        while True:
            unmirrored = tuple(sorted(self._state.unmirrored()))
            own = msgspec.structs.replace(mark_of(self._state), nodes=(), unmirrored=unmirrored)
            kept = self._facts.mark
            if kept is None or not goes_further(kept, own):
                await self._tell(own)
            await asyncio.sleep(limits.MARK_SHARE_INTERVAL_S)

    async def _tell(self, mark: LogMark) -> None:
        try:
            await self._bus.publish(subjects.MARK, encode(KeepMark(mark=mark)))
        except BusError as error:
            log.debug("mark not told", error=str(error))
