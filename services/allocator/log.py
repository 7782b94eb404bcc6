"""The lease log on JetStream: append with a fence, settle unknown outcomes, replay.

Owns the bytes of records and their chain. Must not know what an event means. A record is appended on the term's own
subject with both fences: the stream's last sequence, and the subject's. A sequence alone does not fence, because after a
loss and a refill a stale leader's number can fit again.
"""

from __future__ import annotations

import asyncio

import structlog

from services.allocator.state import State
from shared import failpoint, limits, subjects
from shared.bus import (
    ApiError,
    Bus,
    BusDenied,
    BusTimeout,
    NoResponder,
    StreamMessage,
    StreamMissing,
    UnknownOutcome,
    WrongSequence,
)
from shared.contracts.codec import MessageError, encode
from shared.contracts.lease import RECORD, LeaseEvent, LogRebuilt, Record, digest

log = structlog.get_logger()

APPEND_TIMEOUT_S = 2.0
RETRY_WAIT_S = 0.05
MISSING_LOOKS = 10


class Fenced(Exception):
    """Another leader appended: this term is over, and what memory holds beyond the log is void."""


class LogBroken(Exception):
    """The log contradicts itself or what is known of it; the sentence says where."""


class LogLost(LogBroken):
    """Records that were acknowledged are not there, or are others: the index must be rebuilt from the witnesses."""


class LogRestarted(Exception):
    """The log goes on in another incarnation, rebuilt by another replica: it must be read anew."""


def fold_message(state: State, message: StreamMessage) -> None:
    """Folds one record of the stream. Raises LogLost if the chain or the order is broken, LogBroken for what this version does not
    understand (JetStream gives no altered bytes: it skips what its checksum refuses), LogRestarted after somebody's rebuild."""
    try:
        record = RECORD.decode(message.data)
    except MessageError as error:
        raise LogBroken(f"record {message.sequence} cannot be read: {error}") from None
    if record.version != 1:
        raise LogBroken(f"record {message.sequence} has version {record.version}: a newer allocator wrote it")
    if any(isinstance(event, LogRebuilt) for event in record.events):
        if not state.sequence:
            raise LogLost(
                f"record {message.sequence} begins log {record.incarnation}, whose snapshot is missing"
            )
        raise LogRestarted(f"record {message.sequence} begins log {record.incarnation}")
    if state.sequence and record.incarnation != state.incarnation:
        raise LogLost(
            f"record {message.sequence} is of incarnation {record.incarnation}, the log's is {state.incarnation}"
        )
    if record.previous != state.digest:
        raise LogLost(
            f"record {message.sequence} does not follow record {state.sequence}: one is missing or altered"
        )
    if message.subject != subjects.lease(record.incarnation, record.term):
        raise LogBroken(f"record {message.sequence} of term {record.term} stands on {message.subject}")
    try:
        state.fold(record, message.sequence, digest(message.data))
    except (ValueError, LookupError) as error:
        # No leader wrote it. Memory may hold a part of it: whoever folds drops that memory with this error.
        raise LogBroken(f"record {message.sequence} tells of what cannot be: {error}") from error


class LeaseLog:
    """Appends of one term. `sequence` and `digest` are the fence: the last record that is known to be there."""

    def __init__(self, bus: Bus, incarnation: str, term: int, sequence: int, last_digest: bytes) -> None:
        self._bus = bus
        self._subject = subjects.lease(incarnation, term)
        self._subject_sequence = 0
        self.incarnation = incarnation
        self.term = term
        self.sequence = sequence
        self.digest = last_digest

    async def append(self, events: tuple[LeaseEvent, ...], at_ns: int) -> Record:
        """Appends one record and returns it when it is durable, however long that takes. Raises Fenced.

        While the outcome is unknown the same bytes are sent again with the same fence: a read settles nothing, since an
        append may still come to be there after it.
        """
        record = Record(
            incarnation=self.incarnation, term=self.term, at_ns=at_ns, previous=self.digest, events=events
        )
        payload = encode(record)
        if len(payload) > 2 * limits.RECORD_MAX_BYTES:
            raise LogBroken(f"a record of {len(payload)} bytes is over the limit")
        while True:
            try:
                if failpoint.hit("allocator.append"):
                    raise UnknownOutcome("lost by a failpoint")
                sequence = await self._bus.append(
                    self._subject,
                    payload,
                    expected_last_sequence=self.sequence,
                    expected_last_subject_sequence=self._subject_sequence,
                    timeout_s=APPEND_TIMEOUT_S,
                )
                failpoint.hit("allocator.append.acked")
                break
            except WrongSequence:
                if await self._is_ours(payload):
                    sequence = self.sequence + 1
                    break
            except (UnknownOutcome, NoResponder, BusDenied, ApiError) as error:
                log.warning("append not settled", error=str(error), sequence=self.sequence + 1)
                await asyncio.sleep(RETRY_WAIT_S)
                if isinstance(error, NoResponder):
                    await self._demand_stream()
        if sequence != self.sequence + 1:
            raise LogBroken(f"the append after record {self.sequence} was given sequence {sequence}")
        self.sequence = self._subject_sequence = sequence
        self.digest = digest(payload)
        return record

    async def _demand_stream(self) -> None:
        """Raises LogLost if the server says, again and again, that there is no such stream: its store is gone."""
        for _ in range(MISSING_LOOKS):
            try:
                await self._bus.stream_state("LEASES")
                return
            except StreamMissing:
                await asyncio.sleep(RETRY_WAIT_S)
            except (BusTimeout, NoResponder, ApiError, BusDenied):
                return
        raise LogLost(f"the stream of the log is gone, record {self.sequence} was acknowledged")

    async def _is_unreadable(self, sequence: int) -> bool:
        """A record that came to be there between the two looks can be read at the third."""
        try:
            return await self._bus.get_message("LEASES", sequence) is None
        except (BusTimeout, NoResponder, ApiError, BusDenied):
            return False

    async def _is_ours(self, payload: bytes) -> bool:
        """Compares the record after the fence. False means: try again. Raises Fenced if it is somebody else's."""
        while True:
            try:
                found = await self._bus.get_message("LEASES", self.sequence + 1)
                if found is not None and found.data == payload:
                    return True
                if found is not None:
                    raise Fenced(f"record {self.sequence + 1} is on {found.subject}")
                last = (await self._bus.stream_state("LEASES")).last_sequence
            except (BusTimeout, NoResponder, ApiError, BusDenied) as error:
                log.warning("fence not read", error=str(error))
                await asyncio.sleep(RETRY_WAIT_S)
                continue
            if last < self.sequence:
                raise LogLost(f"the log ends at {last}, record {self.sequence} was acknowledged")
            if last > self.sequence + 1:
                raise Fenced(f"the log has grown to {last} past {self.sequence}")
            if last == self.sequence + 1 and await self._is_unreadable(last):
                raise LogLost(f"record {last} is counted and cannot be read: it is damaged")
            # the server may answer "wrong last sequence" although it fits (nats-server #7281): try again
            await asyncio.sleep(RETRY_WAIT_S)
            return False
