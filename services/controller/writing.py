"""Bringing the API server in line: whatever may have changed is looked at, and written where it differs.

Owns the loop and its workers. Must not know what any object should look like: each kind of work has one who knows it (`Worker`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from services.controller.kube import KubeError, KubeRefused
from services.controller.schedule import Key, Schedule
from shared.service import end
from shared.telemetry.metrics import KubernetesMetrics

log = structlog.get_logger()

WORKERS = 16
IDLE_S = 1.0
CONFLICT, NOT_FOUND = 409, 404


class Worker(Protocol):
    """One kind of work. Whoever brings an object in line compares what is there with what should be, every time."""

    async def bring(self, namespace: str, name: str) -> float:
        """Brings it in line; seconds before the next write of the object may follow, 0 where nothing was written. Raises KubeError."""
        ...


class Writing:
    """`leads` says whether this replica may write now: asked before each piece of work."""

    def __init__(
        self, leads: Callable[[], bool], dice: Callable[[], float], metrics: KubernetesMetrics
    ) -> None:
        self._leads = leads
        self._dice = dice
        self._metrics = metrics
        self._workers: Mapping[str, Worker] = {}
        self._schedule = Schedule()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Objects that wait or are being written."""
        return len(self._schedule)

    def add(self, kind: str, namespace: str, name: str, after_s: float = 0.0) -> None:
        """The object is to be looked at, soon."""
        self._schedule.add(Key(kind, namespace, name), time.monotonic(), after_s)
        self._wake.set()

    async def run(self, workers: Mapping[str, Worker]) -> None:
        """For ever; `workers` by the kind given to `add`."""
        self._workers = workers
        tasks = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        try:
            await asyncio.gather(*tasks)
        finally:
            await end(tasks)

    async def _work(self) -> None:
        while True:
            now_s = time.monotonic()
            key = self._schedule.take(now_s) if self._leads() else None
            if key is None:
                await self._pause(now_s)
                continue
            await self._bring(key)
            # What is brought in line without a request waits for nobody: else all that it depends on would wait for us.
            await asyncio.sleep(0)

    async def _pause(self, now_s: float) -> None:
        at_s = self._schedule.next_at_s()
        pause_s = min(IDLE_S, max(0.005, at_s - now_s)) if at_s is not None and self._leads() else IDLE_S
        self._wake.clear()
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _bring(self, key: Key) -> None:
        try:
            interval_s = await self._workers[key.kind].bring(key.namespace, key.name)
        except KubeRefused as error:
            outcome = "gone" if error.status in (CONFLICT, NOT_FOUND) else "refused"
            self._metrics.wrote(key.kind, outcome)
            level = log.info if outcome == "gone" else log.warning
            level("not written, tried again", object="/".join(filter(None, key)), error=str(error))
            self._schedule.failed(key, time.monotonic(), self._dice())
        except KubeError as error:
            self._metrics.wrote(key.kind, "away")
            log.info("not written yet", object="/".join(filter(None, key)), error=str(error))
            self._schedule.failed(key, time.monotonic(), self._dice())
        else:
            if interval_s:
                self._metrics.wrote(key.kind, "done")
            self._schedule.done(key, time.monotonic(), interval_s)
