"""What the agent tells of an attachment, as events. Pure.

Owns which fields come from where. Must not know who hears them.
"""

from __future__ import annotations

from services.agent.call import Call
from services.agent.entry import Entry, network_status
from shared.contracts.attach import AttachCompleted, AttachFailed, Detached
from shared.errors import OrbweaverError


def completed(entry: Entry, node: str, at_ns: int, duration_ns: int) -> AttachCompleted:
    return AttachCompleted(
        at_ns=at_ns,
        node=node,
        container_id=entry.container_id,
        ifname=entry.ifname,
        pod_namespace=entry.pod_namespace,
        pod_name=entry.pod_name,
        pod_uid=entry.pod_uid,
        addresses=entry.addresses,
        duration_ms=duration_ns / 1e6,
        trace_id=entry.trace_id,
        network_status=network_status(entry),
    )


def failed(
    call: Call, error: OrbweaverError, node: str, at_ns: int, duration_ns: int, trace_id: str
) -> AttachFailed:
    return AttachFailed(
        at_ns=at_ns,
        node=node,
        container_id=call.container_id,
        ifname=call.ifname,
        pod_namespace=call.pod.namespace,
        pod_name=call.pod.name,
        pod_uid=call.pod.uid,
        error=error.kind.name,
        message=error.message,
        duration_ms=duration_ns / 1e6,
        trace_id=trace_id,
    )


def detached(entry: Entry, node: str, at_ns: int, duration_ns: int, trace_id: str) -> Detached:
    return Detached(
        at_ns=at_ns,
        node=node,
        container_id=entry.container_id,
        ifname=entry.ifname,
        pod_namespace=entry.pod_namespace,
        pod_name=entry.pod_name,
        pod_uid=entry.pod_uid,
        addresses=entry.addresses,
        reason=entry.reason,
        duration_ms=duration_ns / 1e6,
        trace_id=trace_id,
    )
