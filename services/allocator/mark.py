"""The mark outside JetStream, as the allocator keeps and reads it: a file of its machine, and what a mark says against a log.

Owns the file and the judgement. An empty or shorter log beside a mark is a loss; an empty log without a mark is a first start.
Neither the stream's creation time nor its metadata tells a restored older copy, so the mark must live elsewhere. Must not know how
the replicas of a cluster share one (sharing.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from services.allocator.log import LogBroken, LogLost
from services.allocator.state import State
from shared import failpoint
from shared.contracts.mark import LogMark, goes_further


class MarkStore(Protocol):
    """Where the mark of this machine lives: a file, in a simulation a variable."""

    def read(self) -> LogMark | None:
        """The mark, or None if there is none. Raises LogBroken if it cannot be understood: guessing would be a first start."""
        ...

    def write(self, mark: LogMark) -> None:
        """Replaces the mark atomically and durably, unless the one there `goes_further`: a leader that was stopped while another took
        over must not take back what the other has noted."""
        ...


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


def refutation(marks: Iterable[LogMark], state: State) -> str:
    """Why this cannot be the log that the marks know, or not all of it; empty where it can. Pure.

    A mark of sequence 0 promises nothing: a leader that ended between it and its first record has acknowledged nothing. A mark from
    before a loss says nothing against the log that was rebuilt after it, for the rebuild has asked who knows; unless nobody has led
    on it (the rebuild was perhaps cut short, by somebody who knew less), or it took for complete what ends before the mark while a
    node that may have the rest is silent still.
    """
    told = [mark for mark in marks if mark.sequence]
    is_known = any(mark.incarnation == state.incarnation for mark in told)
    for mark in told:
        if not state.sequence:
            return f"the log is empty, record {mark.sequence} of log {mark.incarnation} was acknowledged: it is lost"
        if state.incarnation == mark.incarnation:
            why = _cut(mark, state)
        elif mark.epoch >= state.epoch or (state.has_no_term and not is_known):
            why = f"this is log {state.incarnation}, the mark knows log {mark.incarnation}"
        else:
            why = _unheard(mark, state)
        if why:
            return why
    return ""


def _cut(mark: LogMark, state: State) -> str:
    if state.sequence < mark.sequence:
        return f"the log ends at {state.sequence}, record {mark.sequence} was acknowledged: records are lost"
    known = state.recent.get(mark.sequence)
    if known is not None and mark.digest and known.hex() != mark.digest:
        return f"record {mark.sequence} of log {mark.incarnation} is another one than was acknowledged"
    return ""


def _unheard(mark: LogMark, state: State) -> str:
    is_after = mark.incarnation == state.lost and mark.sequence > state.lost_sequence
    if not (is_after and state.complete and state.silent):
        return ""
    return (
        f"log {state.incarnation} was rebuilt from record {state.lost_sequence} of log {mark.incarnation}, "
        f"record {mark.sequence} was acknowledged"
    )


def check_marks(marks: Iterable[LogMark], state: State) -> None:
    """Raises LogLost where they refute it."""
    if why := refutation(marks, state):
        raise LogLost(why)
