"""JetStream on top of the connection: streams asserted, appends with a fence, following and reading.

Owns the JSON of JetStream's API (nats-server API reference: jsm.go schemas). Must not know what a stream holds.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from shared.bus.client import Connection
from shared.bus.consumer import Follow, StreamMessage, Work
from shared.bus.errors import (
    ApiError,
    BusTimeout,
    StreamMismatch,
    StreamMissing,
    UnknownOutcome,
    WrongSequence,
)
from shared.subjects import StreamSpec

API_TIMEOUT_S = 5.0
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
        "max_msgs_per_subject": 1 if spec.last_per_subject else spec.subject_max_messages,
        "discard_new_per_subject": spec.subject_max_messages > 0,
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
        """The stream's messages up to what its leader has now, then ends: the consumer's member may be behind it."""
        queue: asyncio.Queue[StreamMessage] = asyncio.Queue()

        async def put(message: StreamMessage) -> None:
            queue.put_nowait(message)

        last = await self.get_last(stream, subject_filter)
        follow = Follow(
            self,
            self._connection,
            stream,
            put,
            subject_filter,
            start_sequence,
            last_per_subject,
            end=last.sequence if last is not None else 0,
        )
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


def _headers(raw: bytes) -> dict[str, str]:
    out: dict[str, str] = {}
    for line in raw.split(b"\r\n")[1:]:
        key, colon, value = line.partition(b":")
        if colon:
            out[key.decode()] = value.strip().decode()
    return out
