"""JetStream on top of the connection: streams asserted, appends with a fence, following and reading.

Owns the JSON of JetStream's API (nats-server API reference: jsm.go schemas). Must not know what a stream holds.
Consumers are ours: push, ordered, in memory, without acknowledgement; a gap, a silence or a reconnect makes a new one
from the last sequence seen, so that a follower never skips silently. One that follows the last of each subject reads all of
them again then: such streams are not synced, and come back shorter and refilled after a power cut.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import structlog

from shared.bus.client import Connection, Message
from shared.bus.errors import (
    ApiError,
    BusError,
    BusTimeout,
    NoResponder,
    StreamMismatch,
    StreamMissing,
    UnknownOutcome,
    WrongSequence,
)
from shared.subjects import StreamSpec

log = structlog.get_logger()

API_TIMEOUT_S = 5.0
HEARTBEAT_S = 2.0
WORK_ACK_WAIT_S = 2.0
"""What a leader that was killed had taken comes again after so long; twice is harmless."""
_STREAM_NOT_FOUND = 10059
_NO_MESSAGE = 10037
_NO_SUBJECT = "orb.none"
"""Nothing is ever stored on it."""
_WRONG_LAST = {10071, 10164}
"""10071 wrong last sequence; 10164 the same for a subject (nats-server errors.json)."""


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    messages: int
    first_sequence: int
    last_sequence: int


class StreamMessage(msgspec.Struct, frozen=True, kw_only=True):
    """`pending` is how many of the stream's messages this consumer still has before it."""

    subject: str
    data: bytes
    headers: dict[str, str]
    sequence: int
    pending: int


def stream_config(spec: StreamSpec, replicas: int) -> dict[str, Any]:
    """The configuration that a stream of this spec must have; every key is asserted against what the server has."""
    config: dict[str, Any] = {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "retention": "workqueue" if spec.work_queue else "limits",
        "storage": "memory" if spec.memory else "file",
        "num_replicas": replicas,
        "discard": "new" if spec.durable else "old",
        "max_age": int(spec.max_age_s * 1e9),
        "max_msgs": -1,
        "max_bytes": spec.max_bytes,
        "max_msgs_per_subject": 1 if spec.last_per_subject else -1,
        "allow_direct": False,
        "deny_delete": spec.deny_delete,
        "allow_msg_ttl": spec.message_ttl,
        "duplicate_window": int(120e9 if spec.max_age_s == 0 else min(120.0, spec.max_age_s) * 1e9),
    }
    if not spec.durable and not spec.memory and replicas == 1:
        # what can be rebuilt does not pay for the fsync of `sync_interval: always`; JetStream refuses it on replicated streams
        config["persist_mode"] = "async"
    return config


def acknowledged_sequence(subject: str, answer: bytes) -> int:
    """What an append was answered: its sequence. Pure. Raises WrongSequence, ApiError, or UnknownOutcome for what is no answer."""
    try:
        decoded: dict[str, Any] = msgspec.json.decode(answer)
    except msgspec.MsgspecError:
        raise UnknownOutcome(f"{subject}: an acknowledgement that is not JSON") from None
    error = decoded.get("error")
    if error is None:
        return int(decoded["seq"])
    code = int(error.get("err_code", 0))
    if code in _WRONG_LAST:
        raise WrongSequence(str(error.get("description", "")))
    raise ApiError(code, str(error.get("description", "")))


class JetStream:
    """JetStream as one identity may use it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def api(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call of `$JS.API.<verb>`. Raises ApiError, StreamMissing, BusTimeout, NoResponder or BusDenied."""
        payload = msgspec.json.encode(body) if body is not None else b""
        answer = await self._connection.request(f"$JS.API.{verb}", payload, API_TIMEOUT_S)
        decoded: dict[str, Any] = msgspec.json.decode(answer.data)
        error = decoded.get("error")
        if error is not None:
            if error.get("err_code") == _STREAM_NOT_FOUND:
                raise StreamMissing(verb.rpartition(".")[2])
            raise ApiError(int(error.get("err_code", 0)), str(error.get("description", "")))
        return decoded

    async def ensure_stream(self, spec: StreamSpec, replicas: int = 1) -> None:
        """Creates the stream, or asserts that it is as we need it. Raises StreamMismatch that names the setting."""
        wanted = stream_config(spec, replicas)
        try:
            found = (await self.api(f"STREAM.INFO.{spec.name}"))["config"]
        except StreamMissing:
            found = (await self.api(f"STREAM.CREATE.{spec.name}", wanted))["config"]
        for key, value in wanted.items():
            default: Any = False if isinstance(value, bool) else value if key == "persist_mode" else None
            if found.get(key, default) != value:
                raise StreamMismatch(f"stream {spec.name}: {key} is {found.get(key)!r}, must be {value!r}")

    async def stream_state(self, name: str) -> StreamState:
        """What the stream's leader says. An answer without a leader is not believed (BusTimeout)."""
        decoded = await self.api(f"STREAM.INFO.{name}")
        cluster = decoded.get("cluster")
        if cluster is not None and not cluster.get("leader"):
            raise BusTimeout(f"stream {name} has no leader now")
        state = decoded["state"]
        return StreamState(
            messages=state["messages"], first_sequence=state["first_seq"], last_sequence=state["last_seq"]
        )

    async def settle(self, name: str) -> str:
        """Returns when the stream's leader has applied all that was acknowledged before; the name of its leadership.

        A member that was just elected answers from what it has applied so far, which lacks what the one before acknowledged last.
        A purge that takes nothing away is ordered behind all of it (nats-server 2.15, jsClusteredStreamPurgeRequest). What two
        calls with the same answer enclose was read from that leader. Raises BusTimeout while leaders change, and as `api`.
        """
        before = await self._leadership(name)
        await self.purge(name, subject=_NO_SUBJECT, up_to_sequence=1)
        after = await self._leadership(name)
        if before != after:
            raise BusTimeout(f"stream {name} has another leader now")
        return after

    async def _leadership(self, name: str) -> str:
        cluster: dict[str, Any] = (await self.api(f"STREAM.INFO.{name}")).get("cluster") or {}
        if cluster and not cluster.get("leader"):
            raise BusTimeout(f"stream {name} has no leader now")
        return f"{cluster.get('leader', '')} since {cluster.get('leader_since', '')}"

    async def append(
        self,
        subject: str,
        payload: bytes,
        *,
        message_id: str | None = None,
        expected_last_sequence: int | None = None,
        expected_last_subject_sequence: int | None = None,
        ttl_s: int | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> int:
        """Publishes into a stream and returns the sequence acknowledged.

        Raises WrongSequence (the fence did not fit), NoResponder (not sent, or no stream takes the subject),
        UnknownOutcome (sent, not acknowledged), ApiError, BusDenied.
        """
        sent = dict(headers) if headers else {}
        if message_id is not None:
            sent["Nats-Msg-Id"] = message_id
        if expected_last_sequence is not None:
            sent["Nats-Expected-Last-Sequence"] = str(expected_last_sequence)
        if expected_last_subject_sequence is not None:
            sent["Nats-Expected-Last-Subject-Sequence"] = str(expected_last_subject_sequence)
        if ttl_s is not None:
            sent["Nats-TTL"] = f"{ttl_s}s"
        try:
            answer = await self._connection.request(subject, payload, timeout_s, sent or None)
        except BusTimeout as error:
            raise UnknownOutcome(str(error)) from None
        return acknowledged_sequence(subject, answer.data)

    async def get_message(self, stream: str, sequence: int) -> StreamMessage | None:
        """One message by its sequence from the stream's leader, or None if there is none."""
        return await self._get(stream, {"seq": sequence})

    async def get_last(self, stream: str, subject: str) -> StreamMessage | None:
        """The last message of one subject from the stream's leader, or None."""
        return await self._get(stream, {"last_by_subj": subject})

    async def _get(self, stream: str, body: dict[str, Any]) -> StreamMessage | None:
        try:
            found = (await self.api(f"STREAM.MSG.GET.{stream}", body))["message"]
        except ApiError as error:
            if error.code == _NO_MESSAGE:
                return None
            raise
        return StreamMessage(
            subject=found["subject"],
            data=base64.b64decode(found.get("data", "")),
            headers=_headers(base64.b64decode(found.get("hdrs", ""))),
            sequence=found["seq"],
            pending=0,
        )

    async def purge(self, stream: str, *, subject: str = "", up_to_sequence: int = 0) -> None:
        """Removes messages of a subject, or those below a sequence."""
        body: dict[str, Any] = {}
        if subject:
            body["filter"] = subject
        if up_to_sequence:
            body["seq"] = up_to_sequence
        await self.api(f"STREAM.PURGE.{stream}", body)

    async def read(
        self,
        stream: str,
        *,
        subject_filter: str = ">",
        start_sequence: int = 1,
        last_per_subject: bool = False,
    ) -> AsyncIterator[StreamMessage]:
        """The stream's messages up to what is there now, then ends."""
        queue: asyncio.Queue[StreamMessage] = asyncio.Queue()

        async def put(message: StreamMessage) -> None:
            queue.put_nowait(message)

        follow = Follow(self, self._connection, stream, put, subject_filter, start_sequence, last_per_subject)
        await follow.start()
        caught_up = asyncio.ensure_future(follow.caught_up())
        try:
            while True:
                if queue.empty() and caught_up.done():
                    caught_up.result()
                    return
                getting = asyncio.ensure_future(queue.get())
                await asyncio.wait({getting, caught_up}, return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    yield getting.result()
                else:
                    getting.cancel()
        finally:
            caught_up.cancel()
            await follow.stop()

    async def work(self, stream: str, durable: str) -> Work:
        """Opens the work queue's one durable consumer."""
        work = Work(self, self._connection, stream, durable)
        await work.start()
        return work

    async def follow(
        self,
        stream: str,
        handler: Callable[[StreamMessage], Awaitable[None]],
        *,
        subject_filter: str = ">",
        start_sequence: int = 1,
        last_per_subject: bool = False,
    ) -> Follow:
        """Calls `handler` with each message in order, for ever, from what is there on.

        With `last_per_subject` a message may come again after a reconnect: the handler must be idempotent.
        """
        follow = Follow(
            self, self._connection, stream, handler, subject_filter, start_sequence, last_per_subject
        )
        await follow.start()
        return follow


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
    ) -> None:
        self._jetstream = jetstream
        self._connection = connection
        self._stream = stream
        self._handler = handler
        self._filter = subject_filter
        self._next_sequence = start_sequence
        self._last_per_subject = last_per_subject
        self._created = ""
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
        """Returns when everything that was in the stream at the start was handled. Raises what the handler raised.

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
        if self._created and (created != self._created or last < self._next_sequence - 1):
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
        if created["num_pending"] == 0 and created["delivered"]["stream_seq"] < self._next_sequence:
            self._caught_up.set()

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
            self._caught_up.set()
        return True


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


def _headers(raw: bytes) -> dict[str, str]:
    out: dict[str, str] = {}
    for line in raw.split(b"\r\n")[1:]:
        key, colon, value = line.partition(b":")
        if colon:
            out[key.decode()] = value.strip().decode()
    return out
