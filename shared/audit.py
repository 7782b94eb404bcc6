"""What must be true between the lease log, the journals of the nodes and their kernels: one pure check of a whole system.

Owns the invariants that no single memory can show. The simulator, `orbweaver doctor` and tests judge by it; what the log and
the allocator's memory must be by themselves is `services.allocator.audit`. Must not know how the evidence was collected, nor
change anything. One look is judged: what is under way looks wrong for a moment, so whoever watches a running system looks twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from shared.contracts.query import AttachmentView, LeaseView

Kind = Literal["used twice", "no lease", "not attached", "ahead of the log", "kernel differs", "no journal"]


class Up(msgspec.Struct, frozen=True, kw_only=True):
    """An address that a kernel shows, in the network namespace of that container. `container_id` is empty where the address is of no
    attachment of that namespace, `pod_uid` where no pod stands behind it."""

    node: str
    netns: str
    address: str
    container_id: str
    pod_uid: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the witnesses say at one moment. `leases` is the log's word, without what rests; `kept` are the addresses in quarantine;
    `attachments` has the journal of each node that told it; `up` what kernels show, as far as that was looked at."""

    leases: tuple[LeaseView, ...] = ()
    kept: frozenset[str] = frozenset()
    attachments: Mapping[str, tuple[AttachmentView, ...]] = {}
    up: tuple[Up, ...] = ()


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """`settles` is what ends it."""

    kind: Kind
    node: str
    sentence: str
    settles: str


def judge(evidence: Evidence) -> tuple[Violation, ...]:
    """Every violated invariant; empty when all hold."""
    leased: dict[str, list[LeaseView]] = {}
    for lease in evidence.leases:
        if lease.state != "resting":
            leased.setdefault(lease.address, []).append(lease)
    return (
        *_used_twice(evidence, leased),
        *_without_lease(evidence, leased),
        *_not_attached(evidence),
        *_ahead_of_log(evidence, leased),
        *_kernel_differs(evidence),
        *_without_journal(evidence, leased),
    )


def bare(address: str) -> str:
    """Without the prefix length."""
    return address.partition("/")[0]


def _used_twice(evidence: Evidence, leased: Mapping[str, Iterable[LeaseView]]) -> Iterator[Violation]:
    """An address has one user: all sandboxes of a pod count as one, in the log and in journals, but two namespaces never."""
    users: dict[str, set[str]] = {
        a: {f"{name_of(one)}/{one.interface}" for one in of} for a, of in leased.items()
    }
    nodes: dict[str, str] = {}
    for attachment in _attachments(evidence):
        for address in map(bare, attachment.addresses):
            users.setdefault(address, set()).add(f"{name_of(attachment)}/{attachment.interface}")
            nodes[address] = attachment.node
    places: dict[str, set[str]] = {}
    for up in evidence.up:
        places.setdefault(up.address, set()).add(f"{up.netns} of {up.node}")
    strays = {up.address for up in evidence.up if not up.container_id}
    for address, found in places.items():
        if address in strays and address in nodes:
            users[address] |= found
        elif len(found) > 1:
            users[address] = found
    for address, by in users.items():
        if len(by) > 1:
            yield Violation(
                kind="used twice",
                node=nodes.get(address, ""),
                sentence=f"{address} is used by {' and '.join(sorted(by))}",
                settles="delete the pod whose sandbox is older",
            )


def _without_lease(evidence: Evidence, leased: Mapping[str, Iterable[LeaseView]]) -> Iterator[Violation]:
    """What an attachment uses is leased to it, or kept from everybody."""
    for attachment in _attachments(evidence):
        for address in map(bare, attachment.addresses):
            known = any(_may_use(attachment, lease) for lease in leased.get(address, ()))
            if attachment.state == "completed" and not known and address not in evidence.kept:
                yield Violation(
                    kind="no lease",
                    node=attachment.node,
                    sentence=f"{name_of(attachment)} on {attachment.node} uses {address}, for which the log has no lease",
                    settles="re-create the pod; until then its address may be given again",
                )


def _not_attached(evidence: Evidence) -> Iterator[Violation]:
    """What is leased as attached is in the journal of its node, all addresses of it."""
    attached = {(bare(a), one.container_id) for one in _attachments(evidence) for a in one.addresses}
    for lease in evidence.leases:
        is_told = lease.node in evidence.attachments
        if lease.state == "held" and is_told and (lease.address, lease.container_id) not in attached:
            yield Violation(
                kind="not attached",
                node=lease.node,
                sentence=f"{lease.address} is leased to {name_of(lease)} on {lease.node}, where no attachment has it",
                settles="delete the pod, or wait: its sandbox may be on its way",
            )


def _ahead_of_log(evidence: Evidence, leased: Mapping[str, Iterable[LeaseView]]) -> Iterator[Violation]:
    """A node has a generation from the log only: one that the log does not know yet was lost."""
    for attachment in _attachments(evidence):
        known = [
            lease.generation
            for address in attachment.addresses
            for lease in leased.get(bare(address), ())
            if lease.container_id == attachment.container_id
        ]
        if known and attachment.state == "completed" and attachment.generation > max(known):
            yield Violation(
                kind="ahead of the log",
                node=attachment.node,
                sentence=f"{name_of(attachment)} on {attachment.node} has generation {attachment.generation} of its lease, "
                f"the log has {max(known)}: a record was lost",
                settles="re-create the pod",
            )


def _kernel_differs(evidence: Evidence) -> Iterator[Violation]:
    for attachment in _attachments(evidence):
        if attachment.differences:
            yield Violation(
                kind="kernel differs",
                node=attachment.node,
                sentence=f"{name_of(attachment)} on {attachment.node} differs from the kernel: "
                f"{'; '.join(attachment.differences)}",
                settles="re-create the pod",
            )


def _without_journal(evidence: Evidence, leased: Mapping[str, Iterable[LeaseView]]) -> Iterator[Violation]:
    """What a kernel shows is in its node's journal, and leased to whose namespace it is, or kept from everybody. What another plugin
    attached before we came is in no journal: its lease says so."""
    adopted = {(one.node, a) for a, of in leased.items() for one in of if one.state == "adopted"}
    told = {(one.node, one.container_id, bare(a)) for one in _attachments(evidence) for a in one.addresses}
    for up in evidence.up:
        name = f"{up.address} is up in {up.netns} of {up.node}"
        is_told = (up.node, up.container_id, up.address) in told or (up.node, up.address) in adopted
        if up.node in evidence.attachments and not is_told:
            yield Violation(
                kind="no journal",
                node=up.node,
                sentence=f"{name}, and in no journal of the node",
                settles="re-create the pod that has it",
            )
        elif up.address not in evidence.kept and not any(
            _is_of(up, one) for one in leased.get(up.address, ())
        ):
            yield Violation(
                kind="no lease",
                node=up.node,
                sentence=f"{name}, for which the log has no lease",
                settles="re-create the pod; until then its address may be given again",
            )


def _attachments(evidence: Evidence) -> Iterator[AttachmentView]:
    for attachments in evidence.attachments.values():
        yield from attachments


def _is_of(up: Up, lease: LeaseView) -> bool:
    if up.pod_uid:
        return lease.pod_uid == up.pod_uid
    return (lease.container_id, lease.node) == (up.container_id, up.node)


def _may_use(attachment: AttachmentView, lease: LeaseView) -> bool:
    """Is the lease of this container, or of another sandbox of the same pod? All sandboxes of a pod have its addresses, and the
    lease names the one that was attached last, also after that went."""
    if lease.container_id == attachment.container_id:
        return True
    same_uid = not lease.pod_uid or not attachment.pod_uid or lease.pod_uid == attachment.pod_uid
    return bool(lease.pod_name) and same_uid and name_of(lease) == name_of(attachment)


def name_of(one: LeaseView | AttachmentView) -> str:
    return f"{one.pod_namespace}/{one.pod_name}" if one.pod_name else f"container {one.container_id[:12]}"
