"""A pod as the allocator knows it: what selection asks of it, and how far its life has come.

Owns what is read of a Pod object. Must not know leases, other objects, or what time it is.
"""

from __future__ import annotations

from datetime import UTC, datetime

from shared.manifests.meta import OwnerReference
from shared.manifests.workload import Pod
from shared.selection.cluster import PodFact

SECOND_NS = 1_000_000_000
DEFAULT_GRACE_S = 30
"""terminationGracePeriodSeconds where the object has none, as an API server fills it in."""


class KnownPod(PodFact, frozen=True, kw_only=True):
    """`phase` is empty, and `has_addresses` means nothing, for an object without status. Times are Unix time, 0 where not told.

    `deletion_ns` is the deletionTimestamp (its grace period is in it already), `finished_ns` when the last container ended."""

    owner: OwnerReference | None = None
    host_network: bool = False
    phase: str = ""
    has_addresses: bool = False
    deletion_ns: int = 0
    deletion_grace_s: int = 0
    termination_grace_s: int = DEFAULT_GRACE_S
    finished_ns: int = 0

    @property
    def is_finished(self) -> bool:
        return self.phase in ("Succeeded", "Failed")


def known_pod(namespace: str, name: str, manifest: Pod) -> KnownPod:
    meta, spec, status = manifest.metadata, manifest.spec, manifest.status
    owner = meta.controller
    grace_s = spec.termination_grace_period_seconds
    ended = [
        one.state.terminated.finished_at
        for one in status.container_statuses
        if one.state.terminated is not None
    ]
    return KnownPod(
        namespace=namespace,
        name=name,
        uid=meta.uid,
        node=spec.node_name,
        labels=meta.labels,
        annotations=meta.annotations,
        dead=why_dead(manifest),
        controlled=owner is not None,
        config_hash=meta.annotations.get("kubernetes.io/config.hash", ""),
        owner=owner,
        host_network=spec.host_network,
        phase=status.phase,
        has_addresses=any(one.ip for one in status.pod_ips),
        deletion_ns=unix_ns(meta.deletion_timestamp),
        deletion_grace_s=max(0, meta.deletion_grace_period_seconds or 0),
        termination_grace_s=max(0, DEFAULT_GRACE_S if grace_s is None else grace_s),
        finished_ns=max(map(unix_ns, ended), default=0),
    )


def why_dead(pod: Pod) -> str:
    """Spec of the reference, "alive": not terminating, not finished for good, not evicted."""
    phase, policy = pod.status.phase, pod.spec.restart_policy
    if pod.metadata.terminating:
        return "it is terminating"
    if phase == "Succeeded" and policy != "Always":
        return "it has succeeded"
    if phase == "Failed" and (policy == "Never" or pod.status.reason == "Evicted"):
        return "it was evicted" if pod.status.reason == "Evicted" else "it has failed"
    return ""


def unix_ns(text: str) -> int:
    """A timestamp of the Kubernetes API (RFC 3339) as Unix time, 0 for what is none."""
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return 0
    return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()) * SECOND_NS
