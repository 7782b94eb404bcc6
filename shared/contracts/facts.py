"""Facts: what the objects of the user say, on `orb.facts.<kind>.<ns>.<name>`, last per subject; and asking for one.

Owns the envelope. The object itself is the manifest as JSON: its types are in shared.manifests.
"""

from __future__ import annotations

import msgspec

from shared.contracts.codec import Codec


class ObjectFact(msgspec.Struct, frozen=True, kw_only=True, tag="facts.object.1"):
    """An object as of `version` (an older version of the same object is ignored). `uid` may be empty: it then takes the caller's.

    `source` says where it came from (file:line, or empty)."""

    kind: str
    api_version: str
    namespace: str
    name: str
    uid: str
    version: int
    object: bytes
    source: str = ""


class ObjectGone(msgspec.Struct, frozen=True, kw_only=True, tag="facts.gone.1"):
    """A tombstone: the object with this UID is deleted."""

    kind: str
    namespace: str
    name: str
    uid: str
    version: int


class FactsSynced(msgspec.Struct, frozen=True, kw_only=True, tag="facts.synced.1"):
    """A full list was published under `incarnation` (one start of the controller); what is absent now is absent."""

    incarnation: str
    version: int
    objects: int


class FactsTerm(msgspec.Struct, frozen=True, kw_only=True, tag="facts.term.1"):
    """A controller begins to tell. Every fact after it names this message as its fence, so that one who told before and wakes up
    late is refused."""

    incarnation: str
    replica: str


Fact = ObjectFact | ObjectGone | FactsSynced
"""What a source tells."""


class AskFact(msgspec.Struct, frozen=True, kw_only=True, tag="ask.fact.1"):
    """Read one object through to the source, at once."""

    kind: str
    namespace: str
    name: str


class FactAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="ask.fact.answer.1"):
    fact: ObjectFact | None = None


class AskSync(msgspec.Struct, frozen=True, kw_only=True, tag="ask.sync.1"):
    """Read the whole source now."""


class SourceProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a file, or an object in it, is not in force (its last good objects are); or what is wrong with an annotation, which
    keeps no object out."""

    file: str
    line: int
    object: str
    field: str
    message: str


class SyncAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="ask.sync.answer.1"):
    """Everything of the source is published up to stream sequence `facts_sequence`, but for `problems`."""

    facts_sequence: int
    objects: int
    problems: tuple[SourceProblem, ...] = ()
    warnings: tuple[SourceProblem, ...] = ()
    """What is in force as it is written and has no effect, or another than was meant."""


_METADATA = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.resourceVersion",
    "metadata.labels",
    "metadata.annotations",
    "metadata.deletionTimestamp",
)
FIELDS_READ: dict[str, tuple[str, ...]] = {
    "Pod": (
        *_METADATA,
        "metadata.ownerReferences",
        "metadata.deletionGracePeriodSeconds",
        "spec.nodeName",
        "spec.hostNetwork",
        "spec.restartPolicy",
        "spec.terminationGracePeriodSeconds",
        "status.phase",
        "status.reason",
        "status.podIPs",
        "status.containerStatuses[].state.terminated.finishedAt",
    ),
    "StatefulSet": (*_METADATA, "spec.replicas", "spec.ordinals.start"),
    "Namespace": _METADATA,
    "Node": (*_METADATA, "spec.taints", "status.conditions[].type", "status.conditions[].status"),
}
"""What is read of objects of these kinds; a source may leave out everything else of them, and gives all of every other kind.

A path goes by JSON members from the object; `[]` is each element of a list. A member that the object does not have stays away: a
pod without `status` is one whose status nobody knows. Facts of pods are needed for each of these changes, of Nodes for a change
of labels, taints, or the status of condition Ready (not for each heartbeat), of StatefulSets for every change of the spec.
"""
POD_ANNOTATIONS_READ = (
    "ipam.spidernet.io/",
    "cni.spidernet.io/",
    "orbweaver.io/",
    "k8s.v1.cni.cncf.io/",
    "v1.multus-cni.io/",
    "kubernetes.io/config.hash",
    "kubevirt.io/",
)
"""Prefixes of the annotations of pods that are read; a source may leave out the others."""

ASK_FACTS_TIMEOUT_S = 3.0

FACT: Codec[Fact | FactsTerm] = Codec(Fact | FactsTerm)
ASK_FACT: Codec[AskFact] = Codec(AskFact)
FACT_ANSWER: Codec[FactAnswer] = Codec(FactAnswer)
ASK_SYNC: Codec[AskSync] = Codec(AskSync)
SYNC_ANSWER: Codec[SyncAnswer] = Codec(SyncAnswer)
