"""A state as of one record, encoded in steps while the state goes on.

Owns the bytes of a snapshot in the making. Must not know where they are stored. Pure. A holding that is about to change is encoded
before it does, so that what comes out is what was there when the picture was begun. All else is encoded at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from services.allocator.state import Holding, Snapshot
from shared.contracts.codec import encode
from shared.contracts.lease import (
    AddressesQuarantined,
    AdoptionEnded,
    AttachConfirmed,
    AttachmentDetached,
    AttemptVoided,
    ClockMoved,
    LeaseEvent,
    LeasesAdopted,
    LeasesAllocated,
    LeasesInherited,
    LeasesRebound,
    LeasesReleased,
    LogRebuilt,
    NodeDeparted,
    NodeReported,
    QuarantineLifted,
    TermStarted,
)

STEP_HOLDINGS = 512
"""About half a millisecond."""
_KEY = msgspec.msgpack.encode("holdings")
_EMPTY = _KEY + msgspec.msgpack.encode([])


class Picture:
    """`pieces` gives the bytes, to the last; `before` must be called with each event before the state takes it."""

    def __init__(self, snapshot: Snapshot, holdings: dict[str, Holding] | None = None) -> None:
        """`holdings` are those of `snapshot` by owner, for the picture to keep: a dict copied is made far faster than one from a list."""
        self._waiting = holdings or {holding.owner: holding for holding in snapshot.holdings}
        snapshot.holdings = []
        head, key, self._tail = encode(snapshot).partition(_EMPTY)
        if not key:
            raise AssertionError("a snapshot has holdings")
        self._early: list[bytes] = []
        # MessagePack: array 32
        self._head = head + _KEY + b"\xdd" + len(self._waiting).to_bytes(4, "big")
        self.incarnation = snapshot.incarnation
        self.term = snapshot.term
        self.sequence = snapshot.sequence
        self.digest = snapshot.digest
        self.at_ns = snapshot.at_ns

    def before(self, event: LeaseEvent) -> None:
        """The state is about to take this event."""
        match event:
            case (
                LeasesAllocated()
                | AttachConfirmed()
                | LeasesRebound()
                | LeasesInherited()
                | LeasesAdopted()
                | AttachmentDetached()
                | LeasesReleased()
            ):
                holding = self._waiting.pop(event.owner, None)
                if holding is not None:
                    self._early.append(encode(holding))
            case (
                AdoptionEnded()
                | AttemptVoided()
                | AddressesQuarantined()
                | QuarantineLifted()
                | LogRebuilt()
                | NodeReported()
                | NodeDeparted()
                | TermStarted()
                | ClockMoved()
            ):
                pass

    def pieces(self) -> Iterator[bytes]:
        """One after the other; between two of them the state may change."""
        yield self._head
        while self._waiting or self._early:
            early, self._early = self._early, []
            owners = list(islice(self._waiting, STEP_HOLDINGS))
            yield b"".join((*early, *(encode(self._waiting.pop(owner)) for owner in owners)))
        yield self._tail
