"""Leadership by a Lease of coordination.k8s.io: what a look at it means, and what to write.

Owns the rule (as Kubernetes' own components keep it): a lease that did not change for its duration, by our own clock, is free. Must
not know the client, and reads no clock. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from shared.manifests.meta import Json, Object, Part

API_VERSION = "coordination.k8s.io/v1"
DURATION_S = 15
"""Spiderpool's LEADER_DURATION: how long nobody renews before another one may lead."""
RENEW_S = 4.0
DEADLINE_S = 10.0
"""A leader that could not renew for so long writes nothing."""


class LeaseSpec(Part, frozen=True, kw_only=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Object, frozen=True, kw_only=True):
    spec: LeaseSpec = LeaseSpec()

    @property
    def holder(self) -> str:
        return self.spec.holder_identity or ""


class Observer:
    """Remembers when the lease was seen to change."""

    def __init__(self) -> None:
        self._spec: LeaseSpec | None = None
        self._since_s = 0.0

    def is_free(self, lease: Lease, now_s: float) -> bool:
        """Whether nobody holds it. `now_s` is monotonic."""
        if lease.spec != self._spec:
            self._spec, self._since_s = lease.spec, now_s
        duration_s = lease.spec.lease_duration_seconds or DURATION_S
        return not lease.holder or now_s - self._since_s >= duration_s


def body(namespace: str, name: str, holder: str, before: Lease | None, now_s: float) -> Json:
    """The lease held by `holder`, or by nobody where it is empty, as of `now_s` (Unix). With `before` it is a replacement of that one,
    and refused if that changed since."""
    at = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = before.spec if before is not None else LeaseSpec()
    same = before is not None and before.holder == holder
    meta: Json = {"name": name, "namespace": namespace}
    if before is not None:
        meta["resourceVersion"] = before.metadata.resource_version
    return {
        "apiVersion": API_VERSION,
        "kind": "Lease",
        "metadata": meta,
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": DURATION_S if holder else 1,
            "acquireTime": spec.acquire_time if same else at,
            "renewTime": at,
            "leaseTransitions": (spec.lease_transitions or 0) + (0 if same or before is None else 1),
        },
    }


def is_before(found: Lease | None, written: Lease) -> bool:
    """Whether `found` is what stood there before we wrote `written`. A write of ours whose answer was lost comes after it."""
    return found is None or (found.spec.renew_time or "") < (written.spec.renew_time or "")


def read(raw: bytes) -> Lease:
    """Raises msgspec.MsgspecError for what is none."""
    return msgspec.json.decode(raw, type=Lease)
