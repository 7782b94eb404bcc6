"""Consumers on a stream: following in order for ever, and taking from a work queue.

Owns what makes a follower skip nothing. Must not know what a stream holds. Consumers are ours: push, ordered, in memory, without
acknowledgement; a gap, a silence or a reconnect makes a new one from the last sequence seen. One that follows the last of each
subject reads all of them again then: such streams are not synced, and come back shorter and refilled after a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from shared.bus.client import Connection, Message
from shared.bus.errors import BusError, BusTimeout, NoResponder

if TYPE_CHECKING:
    from shared.bus.jetstream import JetStream

log = structlog.get_logger()

HEARTBEAT_S = 2.0
SHORTER_S = 2.0
"""So long the leader of a replicated stream must say that it is shorter before it is believed."""
WORK_ACK_WAIT_S = 2.0
"""What a leader that was killed had taken comes again after so long; twice is harmless."""


class StreamMessage(msgspec.Struct, frozen=True, kw_only=True):
    """`pending` is how many of the stream's messages this consumer still has before it."""

    subject: str
    data: bytes
    headers: dict[str, str]
    sequence: int
    pending: int


class Work:
    """Takes messages from a work queue through one durable pull consumer, a batch at a time."""

    def __init__(self, jetstream: JetStream, connection: Connection, stream: str, durable: str) -> None:
        self._jetstream = jetstream
        self._connection = connection
        self._stream = stream
        self._durable = durable
        self._arrived: asyncio.Queue[Message] = asyncio.Queue()

    async def start(self) -> None:
        """Creates the durable consumer, or finds it. Raises as `JetStream.api`."""
        self._inbox = self._connection.new_inbox()
        self._serving = await self._connection.listen(self._inbox, self._arrived.put_nowait)
        config = {
            "durable_name": self._durable,
            "ack_policy": "explicit",
            "ack_wait": int(WORK_ACK_WAIT_S * 1e9),
            "max_deliver": -1,
            "max_ack_pending": 10_000,
        }
        await self._jetstream.api(
            f"CONSUMER.DURABLE.CREATE.{self._stream}.{self._durable}",
            {"stream_name": self._stream, "config": config},
        )

    async def take(self, batch: int, wait_s: float) -> list[Message]:
        """Up to `batch` messages, waiting at most `wait_s` for the first. Each must be acked, else it comes again."""
        await self._connection.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}",
            msgspec.json.encode({"batch": batch, "expires": int(wait_s * 1e9)}),
            reply=self._inbox,
        )
        taken: list[Message] = []
        limit_s = wait_s + 1.0
        while len(taken) < batch:
            try:
                # Not wait_for: before Python 3.12 it loses a cancellation that comes together with a message.
                async with asyncio.timeout(limit_s):
                    message = await self._arrived.get()
            except TimeoutError:
                break
            if _status(message):
                break
            taken.append(message)
            limit_s = 0.005
        return taken

    async def ack(self, message: Message) -> None:
        await self._connection.publish(message.reply, b"+ACK")

    async def stop(self) -> None:
        await self._serving.stop()


class Follow:
    """One ordered consumer and its renewals. `failed` holds the handler's exception: following ended there."""

    def __init__(
        self,
        jetstream: JetStream,
        connection: Connection,
        stream: str,
        handler: Callable[[StreamMessage], Awaitable[None]],
        subject_filter: str,
        start_sequence: int,
        last_per_subject: bool,
        end: int = 0,
    ) -> None:
        self._jetstream = jetstream
        self._connection = connection
        self._stream = stream
        self._handler = handler
        self._filter = subject_filter
        self._next_sequence = start_sequence
        self._last_per_subject = last_per_subject
        self._end = end
        self._created = ""
        self._shorter_s = 0.0
        self._consumer = ""
        self._delivered = 0
        self._idle_heartbeats = 0
        self._arrived: asyncio.Queue[Message | None] = asyncio.Queue()
        self._caught_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last_sequence = start_sequence - 1
        self.failed: BaseException | None = None

    async def start(self) -> None:
        """Makes the first consumer; raises StreamMissing, BusTimeout, NoResponder."""
        self._inbox = self._connection.new_inbox()
        self._serving = await self._connection.listen(self._inbox, self._arrived.put_nowait)
        self._connection.on_reconnect(self._renew_soon)
        try:
            await self._renew()
        except BaseException:
            self._connection.forget_on_reconnect(self._renew_soon)
            await self._serving.stop()
            raise
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._connection.forget_on_reconnect(self._renew_soon)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._serving.stop()
        if self._connection.connected:
            with contextlib.suppress(BusError):
                await self._jetstream.api(f"CONSUMER.DELETE.{self._stream}.{self._consumer}")

    async def caught_up(self) -> None:
        """Returns when everything that was in the stream at the start, to `end` at least, was handled. Raises what the handler raised.

        A damaged message at the stream's end is counted and never delivered: two idle heartbeats end the wait for it.
        """
        waiter = asyncio.ensure_future(self._caught_up.wait())
        assert self._task is not None
        await asyncio.wait({waiter, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if self.failed is not None:
            raise self.failed

    def _renew_soon(self) -> None:
        self._arrived.put_nowait(None)

    async def _begin_anew_if_replaced(self) -> None:
        """A stream that ends below what was handled, or was created since, is another one: all of it is new."""
        info = await self._jetstream.api(f"STREAM.INFO.{self._stream}")
        last, created = int(info["state"]["last_seq"]), str(info["created"])
        is_shorter = last < self._next_sequence - 1
        if is_shorter and created == self._created and int(info["config"]["num_replicas"]) > 1:
            # a member that was just elected has not applied all yet
            now_s = asyncio.get_running_loop().time()
            self._shorter_s = self._shorter_s or now_s
            if now_s - self._shorter_s < SHORTER_S:
                raise BusTimeout(f"stream {self._stream} ends before what was handled: looked at again")
        self._shorter_s = 0.0
        if self._created and (created != self._created or is_shorter):
            log.warning(
                "stream was replaced", stream=self._stream, last=last, handled=self._next_sequence - 1
            )
            self._next_sequence = 1
        self._created = created

    async def _renew(self) -> None:
        if not self._last_per_subject:
            await self._begin_anew_if_replaced()
        config: dict[str, Any] = {
            "deliver_subject": self._inbox,
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
            "inactive_threshold": int(30e9),
        }
        if self._filter != ">":
            config["filter_subject"] = self._filter
        if self._last_per_subject:
            config["deliver_policy"] = "last_per_subject"
            if self._filter == ">":
                config["filter_subject"] = ">"
        else:
            config["deliver_policy"] = "by_start_sequence"
            config["opt_start_seq"] = max(1, self._next_sequence)
        if self._consumer and self._connection.connected:
            with contextlib.suppress(BusError):
                await self._jetstream.api(f"CONSUMER.DELETE.{self._stream}.{self._consumer}")
        self._delivered = self._idle_heartbeats = 0
        created = await self._jetstream.api(
            f"CONSUMER.CREATE.{self._stream}", {"stream_name": self._stream, "config": config}
        )
        self._consumer = created["name"]
        # what it has delivered is still on its way here; the stream sequence is beside the point, for it stands before the first message
        # that is left of the stream
        if created["num_pending"] == 0 and created["delivered"]["consumer_seq"] == 0:
            self._is_at_end()

    async def _renew_until_done(self) -> None:
        while True:
            try:
                return await self._renew()
            except (BusError, ValueError, KeyError) as error:
                log.warning("consumer not renewed yet", stream=self._stream, error=str(error))
                await asyncio.sleep(0.2)

    async def _run(self) -> None:
        try:
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S * 3):
                        message = await self._arrived.get()
                except TimeoutError:
                    message = None
                if (message is None or not await self._take(message)) and self._connection.connected:
                    await self._renew_until_done()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.failed = error
            log.exception("following ended", stream=self._stream)

    async def _take(self, message: Message) -> bool:
        """False when the consumer must be made anew."""
        status = _status(message)
        if status == "100":
            stalled = message.headers.get("Nats-Consumer-Stalled") or message.reply
            if stalled:
                with contextlib.suppress(NoResponder):
                    await self._connection.publish(stalled, b"")
                return True
            last = message.headers.get("Nats-Last-Consumer")
            if last is not None and int(last) != self._delivered:
                return False
            self._idle_heartbeats += 1
            if self._idle_heartbeats >= 2:
                self._caught_up.set()
            return True
        if status:
            return False
        consumer, sequence, delivered, pending = _ack_subject(message.reply)
        if consumer != self._consumer:
            return True
        if delivered != self._delivered + 1:
            return False
        self._delivered = delivered
        self._idle_heartbeats = 0
        await self._handler(
            StreamMessage(
                subject=message.subject,
                data=message.data,
                headers=message.headers,
                sequence=sequence,
                pending=pending,
            )
        )
        self.last_sequence = sequence
        self._next_sequence = sequence + 1
        if pending == 0:
            self._is_at_end()
        return True

    def _is_at_end(self) -> None:
        if self._next_sequence > self._end:
            self._caught_up.set()


def _status(message: Message) -> str:
    """The server's own word about a consumer (100 heartbeat, 404 nothing, …), empty for a message of the stream.

    A stored message is delivered with the headers of whoever published it: one that calls itself a status is none.
    """
    return "" if message.reply.startswith("$JS.ACK.") else message.headers.get("Status", "")


def _ack_subject(reply: str) -> tuple[str, int, int, int]:
    """Consumer, stream sequence, consumer sequence, pending of a delivery (ADR-15; nine tokens, or eleven with the domain)."""
    tokens = reply.split(".")
    base = 2 if len(tokens) == 9 else 4
    return tokens[base + 1], int(tokens[base + 3]), int(tokens[base + 4]), int(tokens[base + 6])
