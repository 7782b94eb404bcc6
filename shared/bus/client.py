"""The bus client: connection, request-reply, serving, publishing.

Owns the connection and the mapping of the library's failures to shared.bus.errors; together with its neighbours
the only importer of `nats`. Must not know any message. Nothing is buffered while disconnected: what was not sent
at once fails at once, so that the caller's fence decides and no stale bytes leave later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.bus.errors import BusDenied, BusError, BusTimeout, NoResponder
from shared.settings import BusSettings

log = structlog.get_logger()

_PERMISSION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)
_INBOX = "_INBOX"
RECONNECT_WAIT_S = 0.1
CONNECT_TIMEOUT_S = 2


class Message(msgspec.Struct, kw_only=True):
    """A message as it arrived; `headers` are case-sensitive as sent."""

    subject: str
    data: bytes
    headers: dict[str, str]
    reply: str = ""


Handler = Callable[[Message], Awaitable[bytes | None]]
SyncHandler = Callable[[Message], None]


def _message(msg: Msg) -> Message:
    return Message(subject=msg.subject, data=msg.data, headers=msg.headers or {}, reply=msg.reply)


def _answer_goes_to_an_inbox(msg: Msg) -> bool:
    """Does a request ask for its answer where answers go? It is dropped otherwise.

    The server checks what a requester may publish, not where it wants the answer: whoever answered anywhere would write in its own
    name, a node's words into the lease log for instance.
    """
    if not msg.reply or msg.reply.startswith(_INBOX):
        return True
    log.warning("request dropped: its answer would go to no inbox", subject=msg.subject, reply=msg.reply)
    return False


class Serving:
    """A subscription that serves; `stop` ends it after the messages already taken."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    async def stop(self) -> None:
        with contextlib.suppress(nats.errors.Error):
            await self._subscription.unsubscribe()


class Connection:
    """One identity's connection, which reconnects for ever. `closed` is set if the library gives up: the process should end."""

    def __init__(self, settings: BusSettings, name: str) -> None:
        self.settings = settings
        self.name = name
        self.closed = asyncio.Event()
        self.connects = 0
        self._client: Any = Client()
        self._inbox = ""
        self._next_token = 0
        self._waiting: dict[str, tuple[str, asyncio.Future[Message]]] = {}
        self._denied_subscriptions: dict[str, asyncio.Future[None]] = {}
        self._on_reconnect: list[Callable[[], None]] = []

    async def open(self, attempts: int = -1) -> None:
        """Connects; waits for the server for ever unless `attempts` is given. Raises BusDenied on a wrong credential."""
        tried = 0
        while True:
            try:
                await self._client.connect(
                    list(self.settings.servers),
                    user=self.settings.user,
                    password=self.settings.password,
                    name=self.name,
                    inbox_prefix=self.settings.inbox_prefix,
                    tls=_tls(self.settings),
                    # Else the library retries a first connect by itself for ever, a refused credential included.
                    allow_reconnect=False,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]
                    connect_timeout=CONNECT_TIMEOUT_S,
                    pending_size=0,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    closed_cb=self._on_closed,
                    reconnected_cb=self._on_reconnected,
                )
                self._client.options["allow_reconnect"] = True
                break
            except (TimeoutError, nats.errors.Error, OSError) as error:
                await self.close()
                if "authorization violation" in str(error).lower():
                    raise BusDenied(
                        f"{self.settings.servers[0]} refuses user {self.settings.user!r}"
                    ) from None
                tried += 1
                if 0 <= attempts <= tried:
                    raise NoResponder(f"{self.settings.servers[0]}: {error}") from None
                self._client = Client()
                self.closed.clear()
                await asyncio.sleep(RECONNECT_WAIT_S)
        self.connects = 1
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_reply)

    async def close(self) -> None:
        with contextlib.suppress(nats.errors.Error, OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._client.close(), 2.0)

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self._on_reconnect.append(callback)

    def forget_on_reconnect(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(ValueError):
            self._on_reconnect.remove(callback)

    def new_inbox(self) -> str:
        return self._client.new_inbox()

    async def request(
        self, subject: str, payload: bytes, timeout_s: float = 2.0, headers: dict[str, str] | None = None
    ) -> Message:
        """One request and its first answer. Raises NoResponder, BusTimeout or BusDenied."""
        self._next_token += 1
        token = str(self._next_token)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[token] = (subject, future)
        try:
            await self.publish(subject, payload, headers, reply=f"{self._inbox}.{token}")
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the result.
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise BusTimeout(f"no answer on {subject} within {timeout_s:.1f} s") from None
        finally:
            self._waiting.pop(token, None)

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        """Hands a message to the connected server, else raises NoResponder (nothing was sent)."""
        if not self._client.is_connected:
            raise NoResponder(f"not connected to {self.settings.servers[0]}")
        try:
            await self._client.publish(subject, payload, reply=reply, headers=headers)
        except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionClosedError):
            raise NoResponder(f"not connected to {self.settings.servers[0]}") from None
        except nats.errors.Error as error:
            raise BusError(f"publish to {subject}: {error}") from None

    async def serve(self, subject: str, handler: Handler, *, concurrent: bool = True) -> Serving:
        """Answers requests on `subject` with what `handler` returns. An exception of the handler is logged, never answered:
        the caller's time-out says "may have happened"."""

        async def run(message: Message) -> None:
            try:
                answer = await handler(message)
                if answer is not None and message.reply:
                    await self.publish(message.reply, answer)
            except NoResponder:
                log.warning("answer lost", subject=message.subject)
            except Exception:
                log.exception("handler failed", subject=message.subject)

        # The loop keeps no strong reference to a task. The first request may come before the subscription is known to stand.
        running: set[asyncio.Task[None]] = set()

        async def on_message(msg: Msg) -> None:
            if not _answer_goes_to_an_inbox(msg):
                return
            message = _message(msg)
            if concurrent:
                task = asyncio.create_task(run(message))
                running.add(task)
                task.add_done_callback(running.discard)
            else:
                await run(message)

        return Serving(await self._subscribe(subject, on_message))

    async def listen(self, subject: str, handler: SyncHandler) -> Serving:
        """Calls `handler` for each message, in order, without a task each: for handlers that only take note."""

        own = subject.startswith(_INBOX)

        async def on_message(msg: Msg) -> None:
            # What comes to our own inbox may be JetStream's, which names its own subjects to answer on.
            if own or _answer_goes_to_an_inbox(msg):
                handler(_message(msg))

        return Serving(await self._subscribe(subject, on_message))

    async def _subscribe(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Any:
        denied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._denied_subscriptions[subject.lower()] = denied
        try:
            subscription = await self._client.subscribe(
                subject, cb=callback, pending_bytes_limit=256 * 1024 * 1024
            )
            await self._round_trip(5)
            if denied.done():
                denied.result()
            return subscription
        except nats.errors.TimeoutError:
            raise BusTimeout(f"subscribing to {subject}: the server did not answer") from None
        except nats.errors.Error as error:
            raise NoResponder(f"subscribing to {subject}: {error}") from None
        finally:
            self._denied_subscriptions.pop(subject.lower(), None)
            if denied.done():
                denied.exception()

    async def flush(self, timeout_s: float = 5) -> None:
        """Returns when the server has processed all that was published."""
        try:
            await self._round_trip(timeout_s)
        except nats.errors.Error as error:
            raise BusTimeout(f"flush: {error}") from None

    async def _round_trip(self, timeout_s: float) -> None:
        """Returns when the server has seen all that was handed to the library before.

        nats-py 2.16 writes its PING past what waits in its own buffer. That buffer is on its way before the first PONG is back,
        so the second PING comes after it.
        """
        for _ in range(2):
            await self._client.flush(timeout_s)  # type: ignore[arg-type]

    async def _on_reply(self, msg: Msg) -> None:
        waiting = self._waiting.get(msg.subject.rpartition(".")[2])
        if waiting is None or waiting[1].done():
            return
        subject, future = waiting
        if msg.headers and msg.headers.get("Status") == "503":
            future.set_exception(NoResponder(f"nobody answers {subject}"))
        else:
            future.set_result(_message(msg))

    async def _on_error(self, error: Exception) -> None:
        found = _PERMISSION.search(str(error))
        if found is None:
            log.warning("bus error", error=str(error), connection=self.name)
            return
        # nats-py 2.16 lower-cases the server's sentence, subject and all.
        verb, subject = found.group(1).lower(), found.group(2).lower()
        log.warning("bus permission denied", verb=verb, subject=subject, connection=self.name)
        denied = BusDenied(f"{self.settings.user!r} may not {verb} {subject}")
        if verb == "publish":
            for waiting_subject, future in list(self._waiting.values()):
                if waiting_subject.lower() == subject and not future.done():
                    future.set_exception(denied)
        elif (future := self._denied_subscriptions.get(subject)) is not None and not future.done():
            future.set_exception(denied)

    async def _on_closed(self) -> None:
        self.closed.set()

    async def _on_reconnected(self) -> None:
        self.connects += 1
        for callback in self._on_reconnect:
            callback()


def _eof(record: logging.LogRecord) -> bool:
    return "eof_received" not in record.getMessage()


def _tls(settings: BusSettings) -> Any:
    if not settings.tls_ca_file:
        return None
    import ssl  # only where TLS is configured: it costs an agent 2 MiB

    # Before Python 3.12 asyncio warns of the answer that its own streams give at the end of a TLS connection (cpython #79156).
    if _eof not in (log_of_asyncio := logging.getLogger("asyncio")).filters:
        log_of_asyncio.addFilter(_eof)
    return ssl.create_default_context(cafile=settings.tls_ca_file)
