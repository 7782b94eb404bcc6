"""Publishes what was detached, until the release is in the allocator's durable queue; then the journal forgets it.

Owns the waiting while allocator, hub or cluster are away: for ever, across restarts, because the entry stays in the
journal. Must not know how an attachment was detached.
"""

from __future__ import annotations

import asyncio
from random import Random

import structlog

from services.agent.entry import Entry
from services.agent.journal import Journal
from shared import failpoint, limits, subjects
from shared.bus import Bus, BusError, BusTimeout
from shared.clock import NodeClock
from shared.contracts.codec import encode
from shared.contracts.ipam import Release, ReleasedInterface
from shared.errors import OrbweaverError
from shared.ids import AttachmentId

log = structlog.get_logger()

PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 5.0
IN_FLIGHT = 32


def releases_of(entry: Entry, node: str) -> tuple[Release, ...]:
    """What is given back: the generations that were judged, and every attempt that no reply came to. Pure."""
    judged = [(entry.answered, entry.generation)] if entry.generation else []
    others = tuple(ReleasedInterface(ifname=one.ifname, generation=one.generation) for one in entry.others)
    return tuple(
        Release(
            node=node,
            container_id=entry.container_id,
            ifname=entry.ifname,
            attempt=attempt,
            generation=generation,
            pod_uid=entry.pod_uid,
            cooldown_s=limits.COOLDOWN_IPAM_S if entry.mode == "ipam" else 0.0,
            reason=entry.reason,
            others=others if generation else (),
        )
        for attempt, generation in (*judged, *((attempt, 0) for attempt in entry.unanswered))
    )


class Releases:
    def __init__(self, bus: Bus, journal: Journal, node: str, *, clock: NodeClock, random: Random) -> None:
        self._bus = bus
        self._journal = journal
        self._node = node
        self._clock = clock
        self._random = random
        self._subject = subjects.release(node)
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._tasks: dict[AttachmentId, asyncio.Task[None]] = {}
        self._connected = asyncio.Event()
        self.latest_ns = 0
        """When the last release was begun or acknowledged (CLOCK_BOOTTIME)."""
        bus.connection.on_reconnect(self._connected.set)

    def begin(self, entry: Entry) -> None:
        """Publishes in the background; nothing of the entry is on this node any more."""
        if entry.attachment not in self._tasks:
            self.latest_ns = self._clock.boottime_ns()
            self._tasks[entry.attachment] = asyncio.create_task(self._settle(entry))

    def is_begun(self, attachment: AttachmentId) -> bool:
        return attachment in self._tasks

    def waiting(self) -> int:
        return len(self._tasks)

    async def settled(self, attachment: AttachmentId, timeout_s: float) -> bool:
        """Whether the release is acknowledged within the time."""
        task = self._tasks.get(attachment)
        if task is not None:
            await asyncio.wait({task}, timeout=max(0.0, timeout_s))
        return attachment not in self._tasks

    async def stop(self) -> None:
        """What waits stays in the journal."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle(self, entry: Entry) -> None:
        try:
            for release in releases_of(entry, self._node):
                await self._publish(release)
            self.latest_ns = self._clock.boottime_ns()
            await self._forget(entry)
        finally:
            del self._tasks[entry.attachment]

    async def _publish(self, release: Release) -> None:
        message_id = f"{release.container_id}/{release.ifname}/{release.attempt}"
        pause_s = PAUSE_MIN_S
        while True:
            try:
                async with self._slots:
                    if failpoint.hit("agent.release.publish"):
                        raise BusTimeout("lost by a failpoint")
                    await self._bus.append(self._subject, encode(release), message_id=message_id)
                    failpoint.hit("agent.release.published")
            except BusError as error:
                log.info(
                    "release waits", attachment=f"{release.container_id}/{release.ifname}", error=str(error)
                )
            else:
                return
            self._connected.clear()
            try:
                await asyncio.wait_for(self._connected.wait(), pause_s * self._random.uniform(0.7, 1.0))
            except TimeoutError:
                pause_s = min(pause_s * 2, PAUSE_MAX_S)

    async def _forget(self, entry: Entry) -> None:
        try:
            await self._journal.drop(entry.attachment)
            failpoint.hit("agent.journal.dropped")
        except OrbweaverError as error:
            # It is published again after the next start, which changes nothing.
            log.warning("entry stays in the journal", attachment=str(entry.attachment), error=error.message)
