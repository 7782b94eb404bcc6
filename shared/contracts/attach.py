"""What happened to attachments: agent → everybody on `orb.attach.<node>`. Times are Unix nanoseconds."""

from __future__ import annotations

import msgspec

from shared.contracts.codec import Codec


class AttachCompleted(msgspec.Struct, frozen=True, kw_only=True, tag="attach.completed.1"):
    at_ns: int
    node: str
    container_id: str
    ifname: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    addresses: tuple[str, ...]
    duration_ms: float
    trace_id: str


class AttachFailed(msgspec.Struct, frozen=True, kw_only=True, tag="attach.failed.1"):
    at_ns: int
    node: str
    container_id: str
    ifname: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    error: str
    message: str
    duration_ms: float
    trace_id: str


class Detached(msgspec.Struct, frozen=True, kw_only=True, tag="attach.detached.1"):
    """`reason`: DEL, GC, or gone (the agent found the namespace gone)."""

    at_ns: int
    node: str
    container_id: str
    ifname: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    addresses: tuple[str, ...]
    reason: str
    duration_ms: float
    trace_id: str


class SweepStopped(msgspec.Struct, frozen=True, kw_only=True, tag="attach.sweep.stopped.1"):
    """The agent found so many attachments gone at once that it believes none of it."""

    at_ns: int
    node: str
    gone: int
    attachments: int


AttachEvent = AttachCompleted | AttachFailed | Detached | SweepStopped
ATTACH_EVENT: Codec[AttachEvent] = Codec(AttachEvent)
