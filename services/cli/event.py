"""What happened to an attachment as a Kubernetes-like Event. Pure.

Owns reasons and sentences. Must not know where events are kept.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, assert_never

from shared.contracts.attach import AttachCompleted, AttachEvent, AttachFailed, Detached, SweepStopped
from shared.errors import ERRORS

Json = dict[str, Any]
COMPONENT = "spiderpool"
"""The source component that users' filters on events know."""


def event(sequence: int, happened: AttachEvent) -> Json:
    """One Event; the members beside Kubernetes' own (`time`, `node`, `containerID`, `interface`, `traceID`, …) are ours."""
    match happened:
        case AttachCompleted():
            addresses = ", ".join(happened.addresses)
            reason, kind = "Attached", "Normal"
            message = f"{happened.ifname} has {addresses} after {happened.duration_ms:.1f} ms"
        case AttachFailed():
            known = ERRORS.get(happened.error)
            hint = f" ({known.hint})" if known else ""
            reason, kind = "AttachFailed", "Warning"
            message = f"{happened.ifname}: {happened.error}: {happened.message}{hint}"
        case Detached():
            addresses = ", ".join(happened.addresses)
            reason, kind = "Detached", "Normal"
            message = f"{happened.ifname} gave back {addresses or 'no address'} ({happened.reason})"
        case SweepStopped():
            reason, kind = "SweepStopped", "Warning"
            message = (
                f"{happened.gone} of {happened.attachments} attachments looked gone at once: nothing was detached;"
                " `orbweaver doctor` compares them with the kernel"
            )
        case _:
            assert_never(happened)
    return _event(sequence, happened, reason, kind, message)


def _event(sequence: int, happened: AttachEvent, reason: str, kind: str, message: str) -> Json:
    time = timestamp(happened.at_ns)
    if isinstance(happened, SweepStopped):
        namespace, involved = "", {"apiVersion": "v1", "kind": "Node", "name": happened.node}
        ours: Json = {"node": happened.node}
    else:
        namespace = happened.pod_namespace
        involved = {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": namespace,
            "name": happened.pod_name,
            "uid": happened.pod_uid,
        }
        ours = {
            "node": happened.node,
            "containerID": happened.container_id,
            "interface": happened.ifname,
            "traceID": happened.trace_id,
            "durationMs": round(happened.duration_ms, 3),
        }
    if isinstance(happened, AttachCompleted | Detached):
        ours["addresses"] = list(happened.addresses)
    if isinstance(happened, AttachFailed):
        ours["error"] = happened.error
    seconds = f"{time[:19]}Z"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{involved['name'] or 'container'}.{sequence:016x}",
            "namespace": namespace or "default",
            "creationTimestamp": seconds,
        },
        "involvedObject": involved,
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": COMPONENT, "host": happened.node},
        "firstTimestamp": seconds,
        "lastTimestamp": seconds,
        "count": 1,
        "time": time,
        **ours,
    }


def timestamp(at_ns: int) -> str:
    """RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def is_about(happened: AttachEvent, namespace: str, name: str) -> bool:
    return not isinstance(happened, SweepStopped) and (happened.pod_namespace, happened.pod_name) == (
        namespace,
        name,
    )
