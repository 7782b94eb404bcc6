"""What can go wrong on the bus, told apart by what the caller may conclude."""

from __future__ import annotations


class BusError(Exception):
    """Any failure of the bus."""


class NoResponder(BusError):
    """Nobody listens, or we are not connected: the request reached no one."""


class BusTimeout(BusError):
    """No answer in time: the request may have had its effect."""


class BusDenied(BusError):
    """The server refuses this subject to our identity."""


class WrongSequence(BusError):
    """An append's fence did not fit: somebody else appended, or our own lost append is there."""


class UnknownOutcome(BusError):
    """An append was sent and not acknowledged: it may be there now, or come to be there later."""


class StreamMissing(BusError):
    """The stream does not exist."""


class StreamMismatch(BusError):
    """A stream exists with settings that are not ours; the message names setting, wanted and found."""


class ApiError(BusError):
    """JetStream refused: `code` is its err_code."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"JetStream error {code}: {description}")
        self.code = code
        self.description = description
