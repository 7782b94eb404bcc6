"""What a node knows of leases: agent → allocator on `orb.witness.<node>`, and what the leading allocator asks of agents on
`orb.ask.witness` (all) and `orb.ask.witness.<node>` (one).

Owns the messages, and the digest by which both sides compare without sending what they know. Must not know what a
difference means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from shared.contracts.codec import Codec
from shared.contracts.ipam import Mark


class Claim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attachment as its node has it. `addresses` are CIDR; `state` is the journal's, or `kernel` for addresses that were found
    on links of ours in a namespace and stand in no journal: then there is no container. `live`: the kernel shows all of them."""

    container_id: str
    ifname: str
    addresses: tuple[str, ...]
    generation: int = 0
    state: str = "completed"
    attempt: str = ""
    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    live: bool = False


class WitnessReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="witness.report.1"):
    """Sent every 10 s and after changes. `digest` stands for the completed attachments but those of `unsettled` containers (IDs),
    with which something is under way; `crowded`: there are more of these than are named."""

    node: str
    seen: Mark
    digest: bytes
    attachments: int
    unsettled: tuple[str, ...] = ()
    crowded: bool = False


class WitnessDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="witness.detail.1"):
    """All claims of a node in `parts` messages, as answer to `question`. `scanned`: its namespaces were looked through, so what is
    not claimed is not there."""

    node: str
    question: str
    seen: Mark
    part: int
    parts: int
    claims: tuple[Claim, ...]
    unsettled: tuple[str, ...] = ()
    scanned: bool = False


class AskReport(msgspec.Struct, frozen=True, kw_only=True, tag="ask.witness.report.1"):
    """Report now: a new leader wants the marks."""


class AskDetail(msgspec.Struct, frozen=True, kw_only=True, tag="ask.witness.detail.1"):
    """Tell all claims. The same question again is the same exchange."""

    question: str


class Adopt(msgspec.Struct, frozen=True, kw_only=True, tag="ask.witness.adopt.1"):
    """What the node told in answer to `question` is in the log of `mark`: replies of that incarnation may be taken from now on."""

    question: str
    mark: Mark


WitnessMessage = WitnessReport | WitnessDetail
WitnessQuestion = AskReport | AskDetail | Adopt

WITNESS: Codec[WitnessMessage] = Codec(WitnessMessage)
WITNESS_QUESTION: Codec[WitnessQuestion] = Codec(WitnessQuestion)

Item = tuple[str, str, int, tuple[str, ...]]
"""Container ID, interface, generation, addresses (CIDR, sorted)."""


def digest_of(items: Iterable[Item]) -> bytes:
    """Stands for a set of attachments whatever their order: the sum of their BLAKE2b-128, modulo 2^128."""
    total = 0
    for item in items:
        hashed = hashlib.blake2b(msgspec.msgpack.encode(item), digest_size=16).digest()
        total += int.from_bytes(hashed, "big")
    return (total % (1 << 128)).to_bytes(16, "big")
