"""The lease log: records on `orb.lease.<incarnation>.<term>` and the snapshot's manifest.

Owns what the log remembers. Events are past tense, only ever added to; `evolve` is total over all of them.
"""

from __future__ import annotations

import hashlib

import msgspec

from shared.contracts.codec import Codec


class TermStarted(msgspec.Struct, frozen=True, kw_only=True, tag="term.started.1"):
    replica: str


class ClockMoved(msgspec.Struct, frozen=True, kw_only=True, tag="clock.moved.1"):
    """The leader's clock went ahead of time itself, or of the clock that the record before was made by. What rests and what is
    remembered goes on for as long as it would have: until `by_ns` later."""

    by_ns: int


class LeaseItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One address (text, no prefix) of one pool on one interface."""

    ifname: str
    address: str
    pool: str
    prefix_len: int
    clean_gateway: bool = False


class LeasesAllocated(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="leases.allocated.1"
):
    """`owner` is the pod UID, or `container:<node>/<id>`. `attached` are the interfaces this attempt attaches; others of `items` were
    taken ahead for the pod's later ADDs. All items get `generation`. `reason` says why a lease was made of what a node had
    already; it is empty where addresses were asked for."""

    owner: str
    node: str
    container_id: str
    attempt: str
    generation: int
    items: tuple[LeaseItem, ...]
    attached: tuple[str, ...]
    pod_namespace: str = ""
    pod_name: str = ""
    reason: str = ""


class AttachConfirmed(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="attach.confirmed.1"
):
    """The same addresses were asked for again by the same container, or one taken ahead is attached now.

    `generation` is the interface's from now on, 0 where it stays: another attempt may follow a DEL whose release is still on
    its way, which must then change nothing."""

    owner: str
    container_id: str
    ifname: str
    attempt: str
    generation: int = 0


class LeasesRebound(msgspec.Struct, frozen=True, kw_only=True, tag="leases.rebound.1"):
    """The pod has a new sandbox: every lease of the owner takes `generation`, a release that names an older one changes nothing."""

    owner: str
    node: str
    container_id: str
    attempt: str
    generation: int
    attached: tuple[str, ...]


class AttachmentDetached(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="attachment.detached.1"
):
    """A DEL was heard for a pod that lives: the addresses stay with it until it is known to be gone.

    Whoever gets them then must not before `rest_until_ns` (Unix time, 0 = no rest).
    """

    owner: str
    ifname: str
    generation: int
    rest_until_ns: int = 0


class LeasesReleased(msgspec.Struct, frozen=True, kw_only=True, tag="leases.released.1"):
    """The addresses of these interfaces are free after `rest_until_ns` (Unix time, 0 = at once)."""

    owner: str
    ifnames: tuple[str, ...]
    reason: str
    rest_until_ns: int = 0


class AttemptVoided(msgspec.Struct, frozen=True, kw_only=True, tag="attempt.voided.1"):
    """A release named this attempt: an allocate of it that comes later is refused until `until_ns`."""

    attempt: str
    until_ns: int


class LogRebuilt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="log.rebuilt.1"):
    """The first record of an incarnation that follows a loss. It stands on the snapshot of its own sequence, which holds what was
    rebuilt. `lost` is the incarnation before, known up to record `lost_sequence`; `epoch` counts the losses. Nodes of `silent` have not told their journals; unless it is `complete`, they may
    hold what nobody knows of, and no new address is given before they tell."""

    lost: str
    reason: str
    reported: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    complete: bool = True
    generation: int = 0
    epoch: int = 1
    lost_sequence: int = 0


class NodeReported(msgspec.Struct, frozen=True, kw_only=True, tag="node.reported.1"):
    """A node that was silent at the rebuild has told its journal; what it claims is in events of the same record."""

    node: str


class NodeDeparted(msgspec.Struct, frozen=True, kw_only=True, tag="node.departed.1"):
    """The Node object is deleted: nobody waits for its report, and what only it claimed is no longer kept from others."""

    node: str


class QuarantinedItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An address that `node` claims without a lease. `container_id` is empty where only its kernel shows the address."""

    address: str
    pool: str
    node: str
    container_id: str = ""
    ifname: str = ""
    generation: int = 0
    reason: str = ""


class AddressesQuarantined(msgspec.Struct, frozen=True, kw_only=True, tag="addresses.quarantined.1"):
    """Nobody is given these until their claims end."""

    items: tuple[QuarantinedItem, ...]


class QuarantineLifted(msgspec.Struct, frozen=True, kw_only=True, tag="quarantine.lifted.1"):
    addresses: tuple[str, ...]
    reason: str


class LeasesInherited(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="leases.inherited.1"
):
    """A pod took the place of another of the same stable identity: all that `owner` holds is `heir`'s, with `generation`.

    `attached` are the interfaces that this attempt attaches; the others wait for the pod's later ADDs."""

    owner: str
    heir: str
    node: str
    container_id: str
    attempt: str
    generation: int
    attached: tuple[str, ...]


class LeasesAdopted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="leases.adopted.1"):
    """Addresses that another IPAM gave a pod are leases from now on. No agent of ours has attached them; `node` is empty where
    nobody told it."""

    owner: str
    generation: int
    items: tuple[LeaseItem, ...]
    pod_namespace: str
    pod_name: str
    node: str = ""


class AdoptionEnded(msgspec.Struct, frozen=True, kw_only=True, tag="adoption.ended.1"):
    """Nothing is adopted after this."""

    reason: str = ""


LeaseEvent = (
    TermStarted
    | ClockMoved
    | LogRebuilt
    | NodeReported
    | NodeDeparted
    | AddressesQuarantined
    | QuarantineLifted
    | LeasesAllocated
    | AttachConfirmed
    | LeasesRebound
    | LeasesInherited
    | LeasesAdopted
    | AdoptionEnded
    | AttachmentDetached
    | LeasesReleased
    | AttemptVoided
)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One append: everything decided while the last one was in flight. `previous` is the digest of the record before."""

    version: int = 1
    incarnation: str
    term: int
    at_ns: int
    previous: bytes
    events: tuple[LeaseEvent, ...]


class SnapshotManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Stands for the log up to `sequence`, whose record has `digest`; `chunks` messages of `size_bytes` in all, SHA-256 `sha256`."""

    version: int = 1
    incarnation: str
    term: int
    sequence: int
    digest: bytes
    at_ns: int
    chunks: int
    size_bytes: int
    sha256: bytes


def digest(record: bytes) -> bytes:
    """The link of the chain: BLAKE2b-128 over the record's bytes, which hold the digest of the one before."""
    return hashlib.blake2b(record, digest_size=16).digest()


RECORD: Codec[Record] = Codec(Record)
SNAPSHOT_MANIFEST: Codec[SnapshotManifest] = Codec(SnapshotManifest)
