"""Who keeps addresses beyond a pod's life: pods of a StatefulSet, by their stable identity (namespace, StatefulSet, ordinal).

Owns the rule of §3.6 in the reference's behaviour: which names a StatefulSet stands for, and whether it wants the pod of such a
name. Must not know leases, or what becomes of addresses. The identity is read off the pod's name, which only the pod of that
ordinal can have while its StatefulSet is there: so it is known as well for a pod that is gone, or that other witnesses told of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from services.allocator.pod import KnownPod
from shared.manifests.settings import Settings
from shared.manifests.workload import Workload

STATEFUL_SET = "StatefulSet"
_GROUP = "apps/"


class StatefulSetFact(msgspec.Struct, frozen=True, kw_only=True):
    """Ordinals from `start`, `replicas` of them."""

    start: int
    replicas: int
    terminating: bool

    def wants(self, ordinal: int) -> bool:
        """One that is being deleted makes no pod any more."""
        return not self.terminating and self.start <= ordinal < self.start + self.replicas


class Owners(Protocol):
    @property
    def settings(self) -> Settings: ...
    @property
    def stateful_sets(self) -> Mapping[tuple[str, str], StatefulSetFact]: ...


def stateful_set_fact(manifest: Workload) -> StatefulSetFact:
    spec = manifest.spec
    return StatefulSetFact(
        start=spec.ordinals.start,
        replicas=1 if spec.replicas is None else spec.replicas,
        terminating=manifest.metadata.terminating,
    )


def ordinal_of(pod: str) -> tuple[str, int] | None:
    """The StatefulSet and the ordinal that the name of a pod stands for, if it can be one's."""
    name, dash, digits = pod.rpartition("-")
    if not (name and dash and digits.isascii() and digits.isdecimal()) or len(digits) > 10:
        return None
    return (name, int(digits)) if str(int(digits)) == digits else None


def is_static(owners: Owners, pod: KnownPod) -> bool:
    """Whether a StatefulSet owns the pod, and its addresses are to outlive it."""
    owner = pod.owner
    return (
        owners.settings.enable_stateful_set
        and owner is not None
        and owner.kind == STATEFUL_SET
        and owner.api_version.startswith(_GROUP)
    )


def is_wanted(owners: Owners, namespace: str, pod: str) -> bool:
    """Whether a StatefulSet wants a pod of this name, be there one or not: its addresses wait for the next one."""
    if not owners.settings.enable_stateful_set:
        return False
    identity = ordinal_of(pod)
    if identity is None:
        return False
    name, ordinal = identity
    stateful_set = owners.stateful_sets.get((namespace, name))
    return stateful_set is not None and stateful_set.wants(ordinal)
