"""When each object is written: what changed waits until its turn, at most one write an interval for each object, never two at once.

Owns the order and the pauses. Must not know what is written, nor read a clock: times (seconds, monotonic) and lots are handed in. Pure.
"""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple

from services.controller.reflector import backoff_s

INTERVAL_S = 1.0


class Key(NamedTuple):
    """What is brought in line: `kind` says by whom."""

    kind: str
    namespace: str
    name: str


class Schedule:
    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._running: dict[Key, float] = {}
        self._free_at: dict[Key, float] = {}
        self._again: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._due) + len(self._running)

    def add(self, key: Key, now_s: float, after_s: float = 0.0) -> None:
        """The object is to be looked at, as soon as its interval allows and not before `after_s`."""
        if key in self._running:
            self._again[key] = min(now_s + after_s, self._again.get(key, math.inf))
            return
        at_s = max(now_s + after_s, self._free_at.get(key, now_s))
        if key not in self._due or at_s < self._due[key]:
            self._due[key] = at_s
            heapq.heappush(self._heap, (at_s, key))

    def take(self, now_s: float) -> Key | None:
        """The next whose time has come; it runs until `done` or `failed`."""
        while self._heap:
            at_s, key = self._heap[0]
            if self._due.get(key) != at_s:
                heapq.heappop(self._heap)
                continue
            if at_s > now_s:
                return None
            heapq.heappop(self._heap)
            del self._due[key]
            self._free_at.pop(key, None)
            self._running[key] = now_s
            return key
        return None

    def next_at_s(self) -> float | None:
        """When `take` may answer next."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def done(self, key: Key, now_s: float, interval_s: float = INTERVAL_S) -> None:
        """It was brought in line. After a write `interval_s` passes before the next; 0 where nothing was written."""
        began_s = self._running.pop(key)
        self._failures.pop(key, None)
        if interval_s:
            self._free_at[key] = began_s + interval_s
        again_at_s = self._again.pop(key, None)
        if again_at_s is not None:
            self.add(key, now_s, max(0.0, again_at_s - now_s))
        elif len(self._free_at) > 2 * len(self._due) + 1024:
            self._free_at = {one: at_s for one, at_s in self._free_at.items() if at_s > now_s}

    def failed(self, key: Key, now_s: float, dice: float) -> None:
        """It is tried again after a pause that grows."""
        del self._running[key]
        self._again.pop(key, None)
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self.add(key, now_s, max(INTERVAL_S, backoff_s(failures, dice)))
