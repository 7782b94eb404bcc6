"""What happened to attachments: agent → everybody on `orb.attach.<node>`. Times are Unix nanoseconds."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.contracts.codec import Codec


class NetworkStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One element of the pod annotation `k8s.v1.cni.cncf.io/network-status`, as Multus writes it (Network Plumbing WG
    specification 1.3, section 4.1.4). `ips` carry no prefix length."""

    name: str
    interface: str
    dns: dict[str, Any]
    ips: tuple[str, ...] = ()
    mac: str = ""
    default: bool = False


class AttachCompleted(msgspec.Struct, frozen=True, kw_only=True, tag="attach.completed.1"):
    """`network_status` tells all interfaces of the attachment, `addresses` those of `ifname`."""

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
    network_status: tuple[NetworkStatus, ...] = ()


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
