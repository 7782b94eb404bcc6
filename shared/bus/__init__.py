"""The bus as services see it: one object with request-reply, publishing and JetStream."""

from __future__ import annotations

from shared.bus.client import Connection, Message, Serving
from shared.bus.consumer import Follow, StreamMessage, Work
from shared.bus.errors import (
    ApiError,
    BusDenied,
    BusError,
    BusTimeout,
    NoResponder,
    StreamMismatch,
    StreamMissing,
    UnknownOutcome,
    WrongSequence,
)
from shared.bus.jetstream import JetStream, StreamState
from shared.settings import BusSettings

__all__ = [
    "ApiError",
    "Bus",
    "BusDenied",
    "BusError",
    "BusTimeout",
    "Follow",
    "Message",
    "NoResponder",
    "Serving",
    "StreamMessage",
    "StreamMismatch",
    "StreamMissing",
    "StreamState",
    "UnknownOutcome",
    "Work",
    "WrongSequence",
]


class Bus(JetStream):
    """A connection of one identity, with JetStream on it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.connection = connection
        self.request = connection.request
        self.publish = connection.publish
        self.serve = connection.serve
        self.listen = connection.listen
        self.flush = connection.flush
        self.close = connection.close
        self.closed = connection.closed

    @classmethod
    async def connect(cls, settings: BusSettings, name: str, attempts: int = -1) -> Bus:
        """Connects as `settings.user`; waits for the server for ever unless `attempts` is given.

        Raises BusDenied on a wrong credential, NoResponder when the attempts are used up.
        """
        connection = Connection(settings, name)
        await connection.open(attempts)
        return cls(connection)
