"""The mark of the lease log outside JetStream: which log there surely was, how far it had surely come, and how far of it the objects of
Kubernetes tell.

Owns its form, in a file, in a ConfigMap and on the bus, and which of two marks stands. Must not know where one is kept. A mark may lag
behind by any time: it is read as "the log had at least come to here", and never as the log's end.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from shared.contracts.codec import Codec
from shared.limits import MARK_COUNT_MAX

CONFIG_MAP = "orbweaver-lease-log"
"""Where the replicas of a cluster share the mark, in the installation's namespace."""
KEY = "mark"
KEY_MIRRORED = "mirrored"
Count = Annotated[int, msgspec.Meta(ge=0, le=MARK_COUNT_MAX)]


class LogMark(msgspec.Struct, frozen=True, kw_only=True):
    """`digest` is the record's (hex). `epoch` counts the losses that were lived through, so that a leader of an earlier log takes
    nothing back. `nodes` are those that hold leases: after a loss they must tell what they hold. The shared mark leaves them out, a
    cluster's Node objects name them; it names the `unmirrored`: nodes that may have what no SpiderEndpoint tells."""

    incarnation: str
    sequence: Count
    digest: str = ""
    epoch: Count = 0
    nodes: tuple[str, ...] = ()
    unmirrored: tuple[str, ...] = ()


class Mirrored(msgspec.Struct, frozen=True, kw_only=True):
    """What pods had at this record of the log, or were given later and have still, is in the SpiderEndpoints."""

    incarnation: str
    sequence: Count


class KeepMark(msgspec.Struct, frozen=True, kw_only=True, tag="mark.keep.1"):
    """The leading allocator asks the controller to keep this for all replicas; it asks again while the one kept is behind."""

    mark: LogMark


KEEP_MARK: Codec[KeepMark] = Codec(KeepMark)


def goes_further(known: LogMark, mark: LogMark) -> bool:
    """Whether `mark` says nothing that `known` does not."""
    if known.epoch != mark.epoch:
        return known.epoch > mark.epoch
    return known.incarnation == mark.incarnation and known.sequence >= mark.sequence


def contradicts(known: LogMark, mark: LogMark) -> bool:
    """Whether they name two logs of which neither followed the other: one of them began where the other was not known to be lost."""
    return (
        known.epoch == mark.epoch
        and known.incarnation != mark.incarnation
        and bool(known.sequence and mark.sequence)
    )


def read_mark(data: dict[str, str]) -> LogMark:
    """The mark in a ConfigMap. Raises ValueError for what is none: guessing would be a first start."""
    try:
        return msgspec.json.decode(data[KEY], type=LogMark)
    except KeyError:
        raise ValueError(f"it has no key {KEY}") from None
    except msgspec.MsgspecError as error:
        raise ValueError(f"key {KEY}: {error}") from None


def written_mark(mark: LogMark) -> dict[str, str]:
    """The inverse of `read_mark`."""
    return {KEY: msgspec.json.encode(mark).decode()}


def read_mirrored(data: dict[str, str]) -> Mirrored | None:
    """None where nothing is told, or nothing that can be read: then nothing is promised."""
    try:
        return msgspec.json.decode(data[KEY_MIRRORED], type=Mirrored)
    except (KeyError, msgspec.MsgspecError):
        return None


def written_mirrored(mirrored: Mirrored) -> dict[str, str]:
    """The inverse of `read_mirrored`."""
    return {KEY_MIRRORED: msgspec.json.encode(mirrored).decode()}
