"""The bus of a simulated cluster: links that fail, subjects, and streams that keep, forget and refuse as JetStream does.

Owns what is stored and what gets through. Must not know any message of ours. The facts of nats-server 2.15 that the product
relies on, or must survive, are here: no responders, both fences, a message ID's window, TTL, last per subject, a work queue
that delivers again, "wrong last sequence" although it fits (#7281), appends that land after their time-out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from random import Random
from typing import Literal, Protocol

import msgspec

from shared.bus import ApiError, BusError, Message, StreamMessage, StreamMissing, WrongSequence
from shared.subjects import STREAMS, StreamSpec
from tests.simulation.loop import Scheduler

DEDUPLICATE_S = 120.0
ACK_WAIT_S = 10.0


class Weather(msgspec.Struct, kw_only=True):
    """How messages fare between a client and the hub, as probabilities of one way of one message.

    What is late holds up what comes behind it on the same connection, as TCP does: NATS keeps the order of one publisher.
    Between connections, and by way of a stream, everything is reordered."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    late_s: float = 6.0
    lying_fence: float = 0.0


class Way(msgspec.Struct, gc=False):
    """One direction of a connection: what is under way, in order, and when the last of it arrives."""

    acts: deque[tuple[int, Callable[[], None]]] = msgspec.field(default_factory=lambda: deque())
    last_s: float = 0.0


class Link(msgspec.Struct, kw_only=True, gc=False):
    """The way of one client to the hub. `silent`: messages vanish; `closed`: both ends know that nobody is there."""

    name: str
    state: Literal["up", "silent", "closed"] = "up"
    up: Way = msgspec.field(default_factory=lambda: Way())
    down: Way = msgspec.field(default_factory=lambda: Way())


class Client(Protocol):
    """What the hub needs of a connection."""

    link: Link

    def deliver(self, subject: str, message: Message) -> None: ...
    def woken(self, stream: str) -> None: ...


class Answered(Client, Protocol):
    """A client that asks: its inbox is known to the hub."""

    def answered(self, token: str, message: Message) -> None: ...


class Stored(msgspec.Struct, gc=False):
    subject: str
    data: bytes
    sequence: int
    expires_s: float


class Stream:
    """One stream. Sequences never come back, unless the stream forgets its end."""

    def __init__(self, spec: StreamSpec) -> None:
        self.spec = spec
        self.messages: dict[int, Stored] = {}
        self.last_sequence = 0
        self.last_of: dict[str, int] = {}
        self.ids: dict[str, tuple[int, float]] = {}
        self.taken_until: dict[int, float] = {}

    @property
    def first_sequence(self) -> int:
        return next(iter(self.messages), self.last_sequence + 1)

    def copy(self) -> Stream:
        copy = Stream(self.spec)
        copy.messages, copy.last_of, copy.ids = dict(self.messages), dict(self.last_of), dict(self.ids)
        copy.last_sequence = self.last_sequence
        return copy

    def remove(self, sequence: int) -> None:
        stored = self.messages.pop(sequence, None)
        self.taken_until.pop(sequence, None)
        if stored is not None and self.last_of.get(stored.subject) == sequence:
            del self.last_of[stored.subject]

    def forget_after(self, sequence: int) -> None:
        """The end is gone, as after a power cut that JetStream did not survive: the next append takes its numbers."""
        for gone in [s for s in self.messages if s > sequence]:
            del self.messages[gone]
        self.last_sequence = min(self.last_sequence, sequence)
        self.last_of = {stored.subject: stored.sequence for stored in self.messages.values()}
        self.ids = {i: (s, at) for i, (s, at) in self.ids.items() if s <= sequence}


class Hub:
    """`on_stored` sees each message that a stream took, `on_lost` where the log ends when its end is lost, `on_reply` each answer as
    it leaves its writer."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.process = scheduler.process("hub")
        self.random: Random = scheduler.random
        self.weather = Weather()
        self.epoch = 0
        self.is_up = True
        self.streams: dict[str, Stream] = {}
        self.followers: dict[str, dict[Client, None]] = {}
        self.subscriptions: dict[str, dict[Client, None]] = {}
        self.on_stored: Callable[[Stream, Stored], None] = lambda _stream, _stored: None
        self.on_lost: Callable[[int], None] = lambda _sequence: None
        self.on_reply: Callable[[str, bytes], None] = lambda _subject, _data: None
        self.inboxes: dict[str, Answered] = {}
        self.shims: Client

    # the way of a message

    def reachable(self, link: Link) -> bool:
        """Whether both ends believe in the connection."""
        return self.is_up and link.state != "closed"

    def up(self, link: Link, act: Callable[[], None]) -> None:
        """`act` happens at the hub: later, twice or never."""
        delay_s = self._delay_s(link, link.up, act)
        if delay_s >= 0:
            self._send(link, link.up, act, delay_s)

    def down(self, link: Link, act: Callable[[], None], *, safe: bool = False) -> None:
        """`act` happens at the client. A `safe` message tells of something that the client would find out anyhow."""
        delay_s = self._delay_s(link, link.down, None if safe else act)
        if delay_s >= 0:
            self._send(link, link.down, act, delay_s)

    def _send(self, link: Link, way: Way, act: Callable[[], None], delay_s: float) -> None:
        way.last_s = max(way.last_s, self.scheduler.now_s + delay_s)
        way.acts.append((self.epoch, act))
        self.process.call_at(way.last_s, self._arrive, link, way)

    def _delay_s(self, link: Link, way: Way, doubles: Callable[[], None] | None) -> float:
        """Negative for a message that is lost."""
        if not self.is_up or link.state != "up":
            return -1.0
        weather, random = self.weather, self.random.random
        delay_s = 2e-4 + 6e-4 * random()
        if doubles is not None and (weather.lost or weather.doubled or weather.late):
            r = random()
            if r < weather.lost:
                return -1.0
            if r < weather.lost + weather.doubled:
                self._send(link, way, doubles, delay_s)
            elif r < weather.lost + weather.doubled + weather.late:
                delay_s += random() * weather.late_s
        return delay_s

    def _arrive(self, link: Link, way: Way) -> None:
        epoch, act = way.acts.popleft()
        if epoch == self.epoch and self.is_up and link.state == "up":
            act()

    # core subjects

    def subscribe(self, client: Client, subject: str) -> None:
        self.subscriptions.setdefault(subject, {})[client] = None

    def unsubscribe(self, client: Client, subject: str) -> None:
        self.subscriptions.get(subject, {}).pop(client, None)

    def subscribers(self, subject: str) -> list[Client]:
        found = list(self.subscriptions.get(subject, ()))
        star = subject.rpartition(".")[0] + ".*"
        return found + list(self.subscriptions.get(star, ()))

    # streams; what follows happens at the hub, now

    def create(self, spec: StreamSpec) -> None:
        self.streams.setdefault(spec.name, Stream(spec))

    def stream(self, name: str) -> Stream:
        try:
            return self.streams[name]
        except KeyError:
            raise StreamMissing(name) from None

    def stream_of(self, subject: str) -> Stream | None:
        return self.streams.get(_stream_name(subject))

    def store(
        self,
        stream: Stream,
        subject: str,
        data: bytes,
        *,
        message_id: str | None = None,
        last: int | None = None,
        last_of_subject: int | None = None,
        ttl_s: int | None = None,
    ) -> int:
        """The sequence of the message. Raises WrongSequence."""
        now_s = self.scheduler.now_s
        if message_id is not None:
            known = stream.ids.get(message_id)
            if known is not None and known[1] > now_s:
                return known[0]
        fenced = last is not None or last_of_subject is not None
        if fenced and self.weather.lying_fence and self.random.random() < self.weather.lying_fence:
            raise WrongSequence("wrong last sequence, although it fits (nats-server #7281)")
        if last is not None and last != stream.last_sequence:
            raise WrongSequence(f"wrong last sequence: {stream.last_sequence}")
        if last_of_subject is not None and last_of_subject != self._last_of(stream, subject):
            raise WrongSequence(f"wrong last sequence of {subject}")
        stream.last_sequence += 1
        sequence = stream.last_sequence
        stored = Stored(subject, data, sequence, now_s + ttl_s if ttl_s is not None else float("inf"))
        if stream.spec.last_per_subject and subject in stream.last_of:
            stream.remove(stream.last_of[subject])
        stream.messages[sequence] = stored
        stream.last_of[subject] = sequence
        if message_id is not None:
            stream.ids[message_id] = (sequence, now_s + DEDUPLICATE_S)
        self.on_stored(stream, stored)
        for client in self.followers.get(stream.spec.name, ()):
            self.down(client.link, lambda client=client: client.woken(stream.spec.name), safe=True)
        return sequence

    def _last_of(self, stream: Stream, subject: str) -> int:
        found = self.last(stream, subject)
        return 0 if found is None else found.sequence

    def last(self, stream: Stream, subject: str) -> Stored | None:
        sequence = stream.last_of.get(subject)
        if sequence is None:
            return None
        stored = stream.messages[sequence]
        if stored.expires_s <= self.scheduler.now_s:
            stream.remove(sequence)
            return None
        return stored

    def purge(self, stream: Stream, subject: str, up_to_sequence: int) -> None:
        for stored in list(stream.messages.values()):
            if (not subject or fits(subject, stored.subject)) and (
                not up_to_sequence or stored.sequence < up_to_sequence
            ):
                stream.remove(stored.sequence)

    def take_work(self, stream: Stream, batch: int) -> list[Stored]:
        now_s = self.scheduler.now_s
        taken: list[Stored] = []
        for sequence, stored in stream.messages.items():
            if stream.taken_until.get(sequence, 0.0) <= now_s:
                stream.taken_until[sequence] = now_s + ACK_WAIT_S
                taken.append(stored)
                if len(taken) == batch:
                    break
        return taken

    # what happens to servers

    def go_down(self, *, power_cut: bool = False) -> None:
        """kill -9 of the server: what is under way is lost, memory streams are gone; acknowledged files are not. A power cut
        takes the end, or all, of those that are not synced at each append."""
        self.is_up = False
        self.epoch += 1
        for name, stream in list(self.streams.items()):
            if stream.spec.memory:
                del self.streams[name]
            elif power_cut and not stream.spec.durable:
                if self.random.random() < 0.5:
                    del self.streams[name]
                else:
                    stream.forget_after(int(self.random.random() * stream.last_sequence))

    def lose(self, *, everything: bool, marked: int) -> None:
        """What must not happen and does: acknowledged records are gone, from the end of the log or with the whole directory.

        The loss reaches below the mark that is kept outside. One that only takes what came after it (a second at most) is seen by
        the nodes alone; if just those that were answered are away when the next leader asks, nobody can know of it."""
        if everything:
            self.streams.clear()
            self.on_lost(0)
        elif (log := self.streams.get("LEASES")) is not None:
            kept = min(log.last_sequence, marked) - 1 - int(self.random.random() * 40)
            log.forget_after(max(log.first_sequence - 1, kept))
            self.on_lost(log.last_sequence)

    def copy(self) -> dict[str, Stream]:
        """The whole store, as somebody saves it."""
        return {name: stream.copy() for name, stream in self.streams.items() if not stream.spec.memory}

    def restore(self, copy: dict[str, Stream]) -> None:
        """Puts an older store in the place of the present one."""
        self.streams = {name: stream.copy() for name, stream in copy.items()}

    def come_up(self) -> None:
        self.is_up = True


def fits(pattern: str, subject: str) -> bool:
    """A subject under a NATS pattern; fnmatch serves, as our subjects hold none of its characters but `*` and `>`."""
    if pattern.endswith(".>"):
        head = pattern[:-1]
        if "*" not in head:
            return subject.startswith(head)
        parts = head.count(".")
        return fnmatchcase(".".join(subject.split(".")[:parts]) + ".", head)
    if "*" not in pattern:
        return pattern in (subject, ">")
    return subject.count(".") == pattern.count(".") and fnmatchcase(subject, pattern)


@lru_cache(4096)
def _stream_name(subject: str) -> str:
    specs = (spec for spec in STREAMS if any(fits(pattern, subject) for pattern in spec.subjects))
    return next((spec.name for spec in specs), "")


def view(stored: Stored, pending: int = 0) -> StreamMessage:
    return StreamMessage(
        subject=stored.subject, data=stored.data, headers={}, sequence=stored.sequence, pending=pending
    )


def following(stream: Stream, start: int, pattern: str, *, last_per_subject: bool) -> Iterator[Stored]:
    """What a consumer from `start` on gets of what is there now."""
    messages = stream.messages
    if start > stream.last_sequence:
        return
    if start > 1 and not last_per_subject and stream.last_sequence - start < len(messages):
        found = (messages[s] for s in range(start, stream.last_sequence + 1) if s in messages)
    else:
        found = (m for m in list(messages.values()) if m.sequence >= start)
    for stored in found:
        if last_per_subject and stream.last_of.get(stored.subject) != stored.sequence:
            continue
        if pattern == ">" or fits(pattern, stored.subject):
            yield stored


__all__ = [
    "ApiError",
    "BusError",
    "Client",
    "Hub",
    "Link",
    "Stored",
    "Stream",
    "Weather",
    "fits",
    "following",
    "view",
]
