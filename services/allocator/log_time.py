"""Whether the calendar goes as time does: it may be set while a term lasts, and the next leader's may be another.

Owns that comparison. Pure. Must not know what waits for which time.
"""

from __future__ import annotations

from shared.contracts.lease import ClockMoved

MOVED_NS = 1_000_000_000
"""A calendar that is disciplined gently goes ahead by less between two looks."""


class LogTime:
    """One term's. `at_ns` is the time of the last record before it: how long ago that really was, nobody knows."""

    def __init__(self, at_ns: int, monotonic_s: float) -> None:
        self._at_ns = at_ns
        self._at_s = monotonic_s

    def moved(self, now_ns: int, monotonic_s: float) -> tuple[ClockMoved, ...]:
        """What is to be told before anything is decided at `now_ns`. A calendar that went back needs nothing: whoever waits, waits
        longer."""
        ahead_ns = now_ns - self._at_ns - int((monotonic_s - self._at_s) * 1e9)
        is_first = not self._at_ns
        self._at_ns, self._at_s = now_ns, monotonic_s
        return () if is_first or ahead_ns <= MOVED_NS else (ClockMoved(by_ns=ahead_ns),)
