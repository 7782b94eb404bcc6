"""Time as services take it: given to them, so that a test or a simulation can own it.

Owns the two clocks that we use and nothing else. Deadlines and intervals use `monotonic_s`; what is stored uses `unix_ns`.
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


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_ns(self) -> int:
        return time.time_ns()
