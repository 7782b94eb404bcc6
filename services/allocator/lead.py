"""Who leads: one message with a TTL on the stream LEAD, created and renewed by compare-and-set.

Owns the election only. Leadership is for speed; the log's fence is for safety, so that two who both believe to lead
harm nothing. A slow answer is no lost leadership: it is lost when another has written, or when nothing was heard for long.
"""

from __future__ import annotations

import asyncio

import structlog

from shared import limits, subjects
from shared.bus import (
    ApiError,
    Bus,
    BusDenied,
    BusTimeout,
    NoResponder,
    StreamMissing,
    UnknownOutcome,
    WrongSequence,
)
from shared.clock import Clock

log = structlog.get_logger()

POLL_S = 0.1
RETRY_S = 0.05
LAPSE_S = 15.0
"""Past its TTL a leader may be followed by another at any moment, and goes on while none does: an election among three servers takes
up to 9 s, and whoever begins a term after it must read the log anew."""


class Election:
    """One replica's part in the election of `service`. `lost` is set when leadership can no longer be believed."""

    def __init__(self, bus: Bus, service: str, candidate: str, stream_replicas: int, clock: Clock) -> None:
        """`candidate` is nobody else's word, not that of an earlier process of the same name either."""
        self._bus = bus
        self._subject = subjects.lead(service)
        self._candidate = candidate.encode()
        self._stream_replicas = stream_replicas
        self._clock = clock
        self._sequence = 0
        self._renewing: asyncio.Task[None] | None = None
        self._seen = 0
        self.saw_another = False
        """Whether another replica renewed its leadership while this one waited: then it led until a moment ago."""
        self.lost = asyncio.Event()

    @property
    def leads(self) -> bool:
        return self._renewing is not None and not self.lost.is_set()

    async def wait(self) -> None:
        """Returns when this replica leads."""
        while True:
            try:
                found = await self._bus.get_last("LEAD", self._subject)
                if found is None:
                    self._sequence = await self._write(0)
                    break
                if found.data == self._candidate:
                    # written by an append whose outcome was not known
                    self._sequence = found.sequence
                    break
                self.saw_another |= self._seen not in (0, found.sequence)
                self._seen = found.sequence
            except WrongSequence:
                pass
            except (StreamMissing, NoResponder):
                # it is not fsynced on one server: it may be gone after a restart
                await self._ensure()
            except (BusTimeout, UnknownOutcome, ApiError, BusDenied) as error:
                log.info("election waits", error=str(error))
            await asyncio.sleep(POLL_S)
        self.lost.clear()
        self._renewing = asyncio.create_task(self._renew())

    async def _ensure(self) -> None:
        try:
            await self._bus.ensure_stream(subjects.LEAD, self._stream_replicas)
        except (NoResponder, BusTimeout, ApiError) as error:
            log.info("election waits for its stream", error=str(error))

    async def _write(self, expected: int) -> int:
        return await self._bus.append(
            self._subject,
            self._candidate,
            expected_last_subject_sequence=expected,
            ttl_s=int(limits.LEADER_TTL_S),
            timeout_s=limits.LEADER_TTL_S / 2,
        )

    async def _renew(self) -> None:
        renewed_s, wait_s = self._clock.monotonic_s(), limits.LEADER_RENEW_S
        while True:
            await asyncio.sleep(wait_s)
            began_s = self._clock.monotonic_s()
            try:
                self._sequence = await self._write(self._sequence)
                renewed_s, wait_s = began_s, limits.LEADER_RENEW_S
                continue
            except WrongSequence:
                if await self._is_anothers():
                    log.warning("leadership lost: another replica wrote")
                    break
            except (StreamMissing, NoResponder):
                await self._ensure()
            except (BusTimeout, UnknownOutcome, ApiError, BusDenied) as error:
                log.info("leadership not renewed yet", error=str(error))
            if self._clock.monotonic_s() >= renewed_s + LAPSE_S:
                log.warning("leadership lost: not renewed for long")
                break
            wait_s = RETRY_S
        self.lost.set()

    async def _is_anothers(self) -> bool:
        """After "wrong sequence": the last word may be our own, of a write that was answered too late; or nobody's, expired."""
        try:
            found = await self._bus.get_last("LEAD", self._subject)
        except (NoResponder, StreamMissing, BusTimeout, ApiError, BusDenied):
            return False
        if found is not None and found.data != self._candidate:
            return True
        self._sequence = found.sequence if found is not None else 0
        return False

    async def resign(self) -> None:
        """Stops renewing and, if still the leader, makes room at once."""
        if self._renewing is None:
            return
        self._renewing.cancel()
        if not self.lost.is_set():
            try:
                # up to our own message: one that came after it is another's
                await self._bus.purge("LEAD", subject=self._subject, up_to_sequence=self._sequence + 1)
            except (NoResponder, BusTimeout, ApiError, StreamMissing, BusDenied) as error:
                log.info("resigned without a purge", error=str(error))
        self.lost.set()
