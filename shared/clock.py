"""Time as services take it: given to them, so that a test or a simulation can own it.

Owns the clocks that we use and nothing else. Deadlines and intervals use `monotonic_s`; what is stored uses `unix_ns`. On a node
`boottime_ns` orders calls of several processes, suspensions of the machine included.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic_s(self) -> float:
        """Seconds that never go back; their zero means nothing."""
        ...

    def unix_ns(self) -> int:
        """Nanoseconds since 1970; may jump in either direction."""
        ...


class NodeClock(Protocol):
    def boottime_ns(self) -> int:
        """CLOCK_BOOTTIME: all processes of a machine read the same; begins anew with each start of it."""
        ...

    def unix_ns(self) -> int:
        """Nanoseconds since 1970; may jump in either direction."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_ns(self) -> int:
        return time.time_ns()

    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
