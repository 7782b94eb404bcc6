"""The mark outside JetStream: which log this is and how far it surely goes.

Owns one small file. An empty or shorter log beside a mark is a loss; an empty log without a mark is a first start.
Neither the stream's creation time nor its metadata tells a restored older copy, so the mark must live elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import msgspec

from services.allocator.log import LogBroken, LogLost
from services.allocator.state import State
from shared import failpoint


class LogMark(msgspec.Struct, frozen=True, kw_only=True):
    """`digest` is the record's (hex). `epoch` counts the losses that were lived through, so that a leader of an earlier log takes
    nothing back. `nodes` are those that hold leases: after a loss they must tell what they hold."""

    incarnation: str
    sequence: int
    digest: str = ""
    epoch: int = 0
    nodes: tuple[str, ...] = ()


class MarkStore(Protocol):
    """Where the mark lives: a file, later a ConfigMap, in a simulation a variable."""

    def read(self) -> LogMark | None:
        """The mark, or None if there is none. Raises LogBroken if it cannot be understood: guessing would be a first start."""
        ...

    def write(self, mark: LogMark) -> None:
        """Replaces the mark atomically and durably, unless the one there `goes_further`: a leader that was stopped while another took
        over must not take back what the other has noted."""
        ...


def goes_further(known: LogMark, mark: LogMark) -> bool:
    if known.epoch != mark.epoch:
        return known.epoch > mark.epoch
    return known.incarnation == mark.incarnation and known.sequence >= mark.sequence


def mark_of(state: State) -> LogMark:
    return LogMark(
        incarnation=state.incarnation,
        sequence=state.sequence,
        digest=state.digest.hex(),
        epoch=state.epoch,
        nodes=tuple(sorted(state.nodes())),
    )


class MarkFile:
    """The mark as a file that all replicas of a machine share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> LogMark | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=LogMark)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise LogBroken(f"the mark {self._path} cannot be read: {error}") from None

    def write(self, mark: LogMark) -> None:
        known = self.read()
        if known is not None and goes_further(known, mark):
            return
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(mark))
            file.flush()
            os.fsync(file.fileno())
        failpoint.hit("allocator.mark.write")
        temporary.replace(self._path)
        failpoint.hit("allocator.mark.written")


def check_mark(mark: LogMark | None, state: State) -> None:
    """Raises LogLost when the log is not the one that the mark knows, or is shorter. A mark of sequence 0 promises nothing."""
    if mark is None or (not mark.sequence and not state.sequence):
        # a leader that ended between its mark and its first record has acknowledged nothing
        return
    if not state.sequence:
        raise LogLost(
            f"the log is empty, record {mark.sequence} of log {mark.incarnation} was acknowledged: it is lost"
        )
    if state.incarnation != mark.incarnation:
        raise LogLost(f"this is log {state.incarnation}, the mark knows log {mark.incarnation}")
    if state.sequence < mark.sequence:
        raise LogLost(
            f"the log ends at {state.sequence}, record {mark.sequence} was acknowledged: records are lost"
        )
    known = state.recent.get(mark.sequence)
    if known is not None and mark.digest and known.hex() != mark.digest:
        raise LogLost(
            f"record {mark.sequence} of log {mark.incarnation} is another one than was acknowledged"
        )
