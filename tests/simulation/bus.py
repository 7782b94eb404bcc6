"""One process's connection to the simulated hub, with the interface and the errors of `shared.bus.Bus`.

Owns what a client does and sees: time-outs, no responders, following in order, work taken and acknowledged. Must not know
what the hub does with a message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from shared.bus import (
    ApiError,
    Bus,
    BusError,
    BusTimeout,
    Message,
    NoResponder,
    StreamMessage,
    StreamState,
    UnknownOutcome,
)
from shared.bus.client import Handler, SyncHandler
from shared.bus.jetstream import API_TIMEOUT_S
from shared.subjects import StreamSpec
from tests.simulation.hub import Hub, Link, Stored, Stream, following, view
from tests.simulation.loop import Process

T = TypeVar("T")

HEARTBEAT_LOST_S = 6.0
_NO_STREAM = 10059


class SimulatedConnection:
    """What the product asks of `Bus.connection`. `is_local`: the connection is to a leaf that stands beside the process."""

    def __init__(self, bus: SimulatedBus, *, is_local: bool) -> None:
        self._bus = bus
        self._is_local = is_local
        self.reconnected: list[Callable[[], None]] = []

    @property
    def connected(self) -> bool:
        return self._bus.process.is_alive and (self._is_local or self._bus.reaches_hub)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self.reconnected.append(callback)


class _Serving:
    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop

    async def stop(self) -> None:
        self._stop()


class SimulatedBus(Bus):
    """`local` holds the subjects that never leave the node: they are served whatever the link to the hub does."""

    def __init__(self, hub: Hub, process: Process, link: Link, *, is_local: bool = False) -> None:
        self.hub = hub
        self.process = process
        self.link = link
        self.connection = SimulatedConnection(self, is_local=is_local)  # type: ignore[assignment]
        self.closed = asyncio.Event()
        self.handlers: dict[str, list[Callable[[Message], None]]] = {}
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._follows: dict[SimulatedFollow, None] = {}
        self._works: list[SimulatedWork] = []
        self._arrived: deque[tuple[str, Message]] = deque()
        self._tokens = 0
        self._inbox = f"_INBOX_{process.name}"
        hub.inboxes[self._inbox] = self

    @property
    def reaches_hub(self) -> bool:
        return self.process.is_alive and self.hub.reachable(self.link)

    def cut_off(self) -> None:
        """The process was killed: its sockets are closed, the hub forgets it."""
        for clients in (*self.hub.subscriptions.values(), *self.hub.followers.values()):
            clients.pop(self, None)
        self.hub.inboxes.pop(self._inbox, None)

    def reconnect(self) -> None:
        """The link came back after both ends knew that it was gone."""
        for callback in self.connection.reconnected:
            self.process.call_soon(callback)
        for follow in self._follows:
            self.process.call_soon(follow.reconnected)

    # core

    def deliver(self, subject: str, message: Message) -> None:
        """A message has come: from the hub, or from the node itself."""
        self._arrived.append((subject, message))
        self.process.call_soon(self._take)

    def _take(self) -> None:
        subject, message = self._arrived.popleft()
        star = subject.rpartition(".")[0] + ".*"
        for pattern in (subject, star):
            for handler in self.handlers.get(pattern, ()):
                handler(message)

    def serves(self, subject: str) -> bool:
        return self.process.is_alive and bool(self.handlers.get(subject))

    async def request(  # type: ignore[override]
        self, subject: str, payload: bytes, timeout_s: float = 2.0, headers: dict[str, str] | None = None
    ) -> Message:
        if not self.reaches_hub:
            raise NoResponder(f"the hub is away: {subject}")
        self._tokens += 1
        token = str(self._tokens)
        future: asyncio.Future[Message] = self.process.create_future()
        self._waiting[token] = future
        message = Message(
            subject=subject, data=payload, headers=headers or {}, reply=f"{self._inbox}.{token}"
        )
        self.hub.up(self.link, lambda: self._ask(subject, message, token))
        timer = self.process.call_later(
            timeout_s, _expire, future, BusTimeout(f"no answer on {subject} within {timeout_s:.1f} s")
        )
        try:
            return await future
        finally:
            timer.cancel()
            del self._waiting[token]

    def _ask(self, subject: str, message: Message, token: str) -> None:
        """At the hub."""
        there = [c for c in self.hub.subscribers(subject) if self.hub.reachable(c.link)]
        for client in there:
            self.hub.down(client.link, lambda client=client: client.deliver(subject, message))
        if not there:
            self.hub.down(self.link, lambda: self._nobody(token, subject))

    def _nobody(self, token: str, subject: str) -> None:
        future = self._waiting.get(token)
        if future is not None and not future.done():
            self._settle(_expire, future, NoResponder(f"nobody answers {subject}"))

    def _settle(self, how: Callable[..., None], future: asyncio.Future[T], outcome: object) -> None:
        """What waits for the future goes on in a step of its own anyhow."""
        if self.process.is_stopped:
            self.process.call_soon(how, future, outcome)
        else:
            how(future, outcome)

    def answered(self, token: str, message: Message) -> None:
        future = self._waiting.get(token)
        if future is not None:
            self._settle(_give, future, message)

    async def publish(  # type: ignore[override]
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        if not self.process.is_alive:
            raise NoResponder("killed")
        message = Message(subject=subject, data=payload, headers=headers or {}, reply=reply)
        if subject.startswith("_INBOX_"):
            self._answer(subject, message)
            return
        if not self.reaches_hub:
            if self.connection.connected:
                return  # the leaf takes it, nobody beyond hears it
            raise NoResponder(f"the hub is away: {subject}")
        self.hub.up(self.link, lambda: self._publish(subject, message))

    def _answer(self, subject: str, message: Message) -> None:
        """To an inbox: of a shim beside us, or of another client beyond the hub. Raises NoResponder."""
        self.hub.on_reply(subject, message.data)
        inbox, _, token = subject.rpartition(".")
        if inbox == "_INBOX_shim":
            self.hub.shims.deliver(subject, message)
            return
        if not self.reaches_hub:
            raise NoResponder(f"the hub is away: {subject}")
        there = self.hub.inboxes.get(inbox)
        if there is not None:
            self.hub.up(self.link, lambda: self.hub.down(there.link, lambda: there.answered(token, message)))

    def _publish(self, subject: str, message: Message) -> None:
        """At the hub."""
        stream = self.hub.stream_of(subject)
        if stream is not None:
            self.hub.store(stream, subject, message.data)
        for client in self.hub.subscribers(subject):
            self.hub.down(client.link, lambda client=client: client.deliver(subject, message))

    async def serve(self, subject: str, handler: Handler, *, concurrent: bool = True) -> _Serving:  # type: ignore[override]
        async def run(message: Message) -> None:
            try:
                answer = await handler(message)
                if answer is not None and message.reply:
                    await self.publish(message.reply, answer)
            except NoResponder:
                pass

        def on_message(message: Message) -> None:
            self.process.create_task(run(message))

        return await self._subscribe(subject, on_message)

    async def listen(self, subject: str, handler: SyncHandler) -> _Serving:  # type: ignore[override]
        return await self._subscribe(subject, handler)

    async def _subscribe(self, subject: str, handler: Callable[[Message], None]) -> _Serving:
        def stop() -> None:
            self.handlers[subject].remove(handler)
            if not self.handlers[subject]:
                self.hub.unsubscribe(self, subject)

        self.handlers.setdefault(subject, []).append(handler)
        self.hub.subscribe(self, subject)
        if not self.connection.connected:
            stop()
            raise NoResponder(f"subscribing to {subject}")
        await asyncio.sleep(0)
        return _Serving(stop)

    async def flush(self, timeout_s: float = 5) -> None:  # type: ignore[override]
        if not self.reaches_hub:
            raise BusTimeout("flush")

    async def close(self) -> None:  # type: ignore[override]
        pass

    # streams

    async def call(self, act: Callable[[], T], timeout_s: float = API_TIMEOUT_S) -> T:
        """`act` at the hub and its result here: late, twice or never, as the weather is. Raises BusTimeout, NoResponder."""
        if not self.reaches_hub:
            raise NoResponder("the hub is away")
        future: asyncio.Future[T] = self.process.create_future()

        def there() -> None:
            try:
                result = act()
            except BusError as error:
                failure = error
                self.hub.down(self.link, lambda: self._settle(_expire, future, failure))
            else:
                self.hub.down(self.link, lambda: self._settle(_give, future, result))

        self.hub.up(self.link, there)
        timer = self.process.call_later(timeout_s, _expire, future, BusTimeout(f"no answer in {timeout_s} s"))
        try:
            return await future
        finally:
            timer.cancel()

    async def ensure_stream(self, spec: StreamSpec, replicas: int = 1) -> None:
        await self.call(lambda: self.hub.create(spec))

    async def stream_state(self, name: str) -> StreamState:
        def act() -> StreamState:
            stream = self.hub.stream(name)
            return StreamState(
                messages=len(stream.messages),
                first_sequence=stream.first_sequence,
                last_sequence=stream.last_sequence,
            )

        return await self.call(act)

    async def settle(self, name: str) -> str:
        await self.call(lambda: self.hub.stream(name))
        return "the hub"

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
        def act() -> int:
            stream = self.hub.stream_of(subject)
            if stream is None:
                raise NoResponder(f"no stream takes {subject}")
            return self.hub.store(
                stream,
                subject,
                payload,
                message_id=message_id,
                last=expected_last_sequence,
                last_of_subject=expected_last_subject_sequence,
                ttl_s=ttl_s,
            )

        try:
            return await self.call(act, timeout_s)
        except BusTimeout as error:
            raise UnknownOutcome(str(error)) from None

    async def get_message(self, stream: str, sequence: int) -> StreamMessage | None:
        def act() -> StreamMessage | None:
            stored = self.hub.stream(stream).messages.get(sequence)
            return None if stored is None else view(stored)

        return await self.call(act)

    async def get_last(self, stream: str, subject: str) -> StreamMessage | None:
        def act() -> StreamMessage | None:
            stored = self.hub.last(self.hub.stream(stream), subject)
            return None if stored is None else view(stored)

        return await self.call(act)

    async def purge(self, stream: str, *, subject: str = "", up_to_sequence: int = 0) -> None:
        await self.call(lambda: self.hub.purge(self.hub.stream(stream), subject, up_to_sequence))

    async def read(
        self,
        stream: str,
        *,
        subject_filter: str = ">",
        start_sequence: int = 1,
        last_per_subject: bool = False,
    ) -> AsyncIterator[StreamMessage]:
        def act() -> list[Stored]:
            found = self.hub.stream(stream)
            return list(following(found, start_sequence, subject_filter, last_per_subject=last_per_subject))

        stored = await self.call(act)
        for place, one in enumerate(stored, 1):
            yield view(one, len(stored) - place)

    async def work(self, stream: str, durable: str) -> SimulatedWork:  # type: ignore[override]
        await self.call(lambda: self.hub.stream(stream))
        work = SimulatedWork(self, stream)
        self._works.append(work)
        self.hub.followers.setdefault(stream, {})[self] = None
        return work

    async def follow(  # type: ignore[override]
        self,
        stream: str,
        handler: Callable[[StreamMessage], Awaitable[None]],
        *,
        subject_filter: str = ">",
        start_sequence: int = 1,
        last_per_subject: bool = False,
    ) -> SimulatedFollow:
        follow = SimulatedFollow(self, stream, handler, subject_filter, start_sequence, last_per_subject)
        await follow.start()
        return follow

    def following(self, follow: SimulatedFollow) -> None:
        self._follows[follow] = None
        self.hub.followers.setdefault(follow.stream, {})[self] = None

    def followed(self, follow: SimulatedFollow) -> None:
        self._follows.pop(follow, None)
        if not any(other.stream == follow.stream for other in self._follows):
            self.hub.followers.get(follow.stream, {}).pop(self, None)

    def stopped(self, work: SimulatedWork) -> None:
        if work in self._works:
            self._works.remove(work)
            self.hub.followers.get(work.stream, {}).pop(self, None)

    def woken(self, stream: str) -> None:
        for follow in self._follows:
            if follow.stream == stream:
                self.process.call_soon(follow.wake)
        for work in self._works:
            if work.stream == stream:
                self.process.call_soon(work.wake)


class SimulatedWork:
    """The one durable consumer of a work queue, as one client uses it."""

    def __init__(self, bus: SimulatedBus, stream: str) -> None:
        self._bus = bus
        self.stream = stream
        self._arrived = asyncio.Event()

    def wake(self) -> None:
        self._arrived.set()

    async def take(self, batch: int, wait_s: float) -> list[Message]:
        bus = self._bus
        self._arrived.clear()
        taken = await bus.call(lambda: bus.hub.take_work(bus.hub.stream(self.stream), batch), wait_s + 1.0)
        if not taken:
            timer = bus.process.call_later(min(wait_s, 1.0), self._arrived.set)
            await self._arrived.wait()
            timer.cancel()
        return [
            Message(subject=one.subject, data=one.data, headers={}, reply=f"$ACK.{one.sequence}")
            for one in taken
        ]

    async def ack(self, message: Message) -> None:
        bus = self._bus
        if not bus.reaches_hub:
            raise NoResponder("the hub is away")
        sequence = int(message.reply.rpartition(".")[2])

        def act() -> None:
            stream = bus.hub.streams.get(self.stream)
            if stream is not None:
                stream.remove(sequence)

        bus.hub.up(bus.link, act)

    async def stop(self) -> None:
        self._bus.stopped(self)


class SimulatedFollow:
    """Following in order, for ever; `failed` holds the handler's exception, as in the product's own."""

    def __init__(
        self,
        bus: SimulatedBus,
        stream: str,
        handler: Callable[[StreamMessage], Awaitable[None]],
        subject_filter: str,
        start_sequence: int,
        last_per_subject: bool,
    ) -> None:
        self._bus = bus
        self.stream = stream
        self._handler = handler
        self._filter = subject_filter
        self._next = start_sequence
        self._last_per_subject = last_per_subject
        self._wants_last = last_per_subject
        self._arrived = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last_sequence = start_sequence - 1
        self.failed: BaseException | None = None

    async def start(self) -> None:
        await self._bus.call(lambda: self._bus.hub.stream(self.stream))
        self._bus.following(self)
        self._arrived.set()
        self._task = self._bus.process.create_task(self._run())

    def wake(self) -> None:
        self._arrived.set()

    def reconnected(self) -> None:
        """The last of each subject are read again; a stream that ends below what was handled is another one."""
        stream = self._bus.hub.streams.get(self.stream)
        self._wants_last = self._last_per_subject
        if self._last_per_subject or (stream is not None and stream.last_sequence < self._next - 1):
            self._next = 1
        self.wake()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._bus.followed(self)

    async def caught_up(self) -> None:
        waiter = asyncio.ensure_future(self._caught_up.wait())
        assert self._task is not None
        await asyncio.wait({waiter, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if self.failed is not None:
            raise self.failed

    async def _run(self) -> None:
        try:
            while True:
                timer = self._bus.process.call_later(HEARTBEAT_LOST_S, self._arrived.set)
                await self._arrived.wait()
                timer.cancel()
                self._arrived.clear()
                if self._bus.reaches_hub and self._bus.link.state == "up":
                    await self._catch_up()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.failed = error

    async def _catch_up(self) -> None:
        stream: Stream | None = self._bus.hub.streams.get(self.stream)
        if stream is None:
            return
        found = list(following(stream, self._next, self._filter, last_per_subject=self._wants_last))
        for place, stored in enumerate(found, 1):
            await self._handler(view(stored, len(found) - place))
            self.last_sequence = stored.sequence
            self._next = stored.sequence + 1
        # after the first full pass "last per subject" is what follows in order
        self._wants_last = False
        self._caught_up.set()


def _give(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _expire(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


__all__ = ["ApiError", "SimulatedBus", "SimulatedFollow", "SimulatedWork"]
