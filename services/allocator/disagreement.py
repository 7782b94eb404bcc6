"""What witnesses disagree on, as people are told of it: pure.

Owns the words for what is in quarantine, what makes two disagreements the same, and what of them is new or over. Must not know how
a disagreement was found (rebuild.py) or where it is published (bulletin.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from services.allocator.state import Quarantined, State
from shared.contracts.disagreement import DisagreementAppeared, DisagreementEvent, DisagreementSettled

PUBLISHED_PER_NODE_MAX = 64
"""A sick node's are more than anybody reads, and the stream is for all nodes."""


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """Two witnesses tell different things; `settles` is what ends it. The pod is empty where it is about none."""

    node: str
    sentence: str
    settles: str
    addresses: tuple[str, ...] = ()
    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""


def of_quarantine(kept: Quarantined) -> Disagreement:
    claim = kept.claim
    return Disagreement(
        node=claim.node,
        sentence=f"{claim.address} is given to nobody: node {claim.node} has it ({claim.reason})",
        settles="it is free as soon as the node has it no more, or its Node object is deleted",
        addresses=(claim.address,),
    )


def of_node(state: State, node: str, found: Iterable[Disagreement]) -> tuple[Disagreement, ...]:
    """All that is open about a node: what was `found` of its claims, and what is kept from others for it."""
    kept = (of_quarantine(one) for one in state.quarantine.values() if one.claim.node == node)
    return (*found, *kept)


def identity(one: Disagreement) -> str:
    """The same for the same disagreement, whichever replica tells it."""
    return hashlib.blake2b(f"{one.node}\0{one.sentence}".encode(), digest_size=8).hexdigest()


def news(
    told: Mapping[str, DisagreementAppeared], now: Iterable[Disagreement], at_ns: int
) -> tuple[DisagreementEvent, ...]:
    """What is to be published of one node, of which `told` is open by what was published."""
    present: dict[str, Disagreement] = {}
    for one in now:
        if len(present) < PUBLISHED_PER_NODE_MAX:
            present.setdefault(identity(one), one)
    settled = tuple(
        DisagreementSettled(
            id=known.id,
            at_ns=at_ns,
            node=known.node,
            sentence=known.sentence,
            addresses=known.addresses,
            pod_namespace=known.pod_namespace,
            pod_name=known.pod_name,
            pod_uid=known.pod_uid,
        )
        for id_, known in told.items()
        if id_ not in present
    )
    appeared = tuple(
        DisagreementAppeared(
            id=id_,
            at_ns=at_ns,
            node=one.node,
            sentence=one.sentence,
            settles=one.settles,
            addresses=one.addresses,
            pod_namespace=one.pod_namespace,
            pod_name=one.pod_name,
            pod_uid=one.pod_uid,
        )
        for id_, one in present.items()
        if id_ not in told
    )
    return (*settled, *appeared)
