"""The clocks of one simulated machine: its monotonic time is the scheduler's, its calendar may jump."""

from __future__ import annotations

from tests.simulation.loop import Scheduler

START_UNIX_NS = 1_700_000_000 * 1_000_000_000
BOOTED_NS = 1_000 * 1_000_000_000


class SimulatedClock:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._offset_ns = START_UNIX_NS
        self._booted_s = 0.0

    def monotonic_s(self) -> float:
        return self._scheduler.now_s

    def unix_ns(self) -> int:
        return self._offset_ns + int(self._scheduler.now_s * 1e9)

    def boottime_ns(self) -> int:
        return BOOTED_NS + int((self._scheduler.now_s - self._booted_s) * 1e9)

    def start_anew(self) -> None:
        """As its machine."""
        self._booted_s = self._scheduler.now_s

    def jump(self, by_s: float) -> None:
        self._offset_ns += int(by_s * 1e9)
