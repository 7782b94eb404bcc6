"""What the nodes have told, and what of it must be looked into: digests compared, details put together, marks kept.

Owns the rule that only a difference which lasts is acted on: two reports show it, then two details. Must not know the bus or
clocks; times are given.
"""

from __future__ import annotations

import msgspec

from services.allocator.disagreement import Disagreement
from services.allocator.facts import Facts
from services.allocator.rebuild import Merged, NodeClaims, merge
from services.allocator.state import State
from shared import limits
from shared.contracts.ipam import Mark
from shared.contracts.lease import LeaseEvent, NodeReported
from shared.contracts.witness import Claim, WitnessDetail, WitnessReport, digest_of
from shared.net.ranges import format_address

ASK_AGAIN_S = 1.0
COMPARE_EVERY_S = 0.1
"""A node that reports faster is not compared each time."""
RECHECK_S = 60.0
PARTS_MAX = limits.WITNESS_CLAIMS_MAX // 100


class Testimony(msgspec.Struct, frozen=True, kw_only=True):
    """All parts of one node's answer."""

    question: str
    seen: Mark
    claims: NodeClaims


class _Parts(msgspec.Struct):
    question: str
    claims: dict[int, tuple[Claim, ...]]
    room: int = limits.WITNESS_CLAIMS_MAX
    overflows: bool = False


def digest_of_node(state: State, node: str, unsettled: frozenset[str]) -> bytes:
    """What the node's own digest is if it has what the state says."""
    return digest_of(
        (
            holding.container_id,
            ifname,
            held.generation,
            tuple(sorted(f"{format_address(o.address, o.family)}/{o.prefix_len}" for o in held.leases)),
        )
        for holding in state.holdings_of_node(node)
        for ifname, held in holding.interfaces.items()
        if not held.is_over and holding.container_id not in unsettled
    )


def refuted_by(state: State, mark: Mark) -> str:
    """Why the log cannot be whole if somebody has seen this mark, or empty."""
    if not mark.incarnation or mark.incarnation != state.incarnation:
        return ""
    if mark.sequence > state.sequence:
        return f"record {mark.sequence} was seen, the log ends at {state.sequence}: records are lost"
    known = state.recent.get(mark.sequence)
    if known is not None and mark.digest and known.hex() != mark.digest:
        return f"record {mark.sequence} is another one than was seen: the log was replaced"
    return ""


class Watch:
    """`marks` are the furthest places in the log that nodes have named, `heard_s` when each was heard of last."""

    def __init__(self) -> None:
        self.marks: dict[str, Mark] = {}
        self.heard_s: dict[str, float] = {}
        self.disagreements: dict[str, tuple[Disagreement, ...]] = {}
        self.disbelieved: set[str] = set()
        """Nodes for whose mark the log was rebuilt once already."""
        self._differing: set[str] = set()
        self._settled: dict[str, tuple[bytes, bytes]] = {}
        self._parts: dict[str, _Parts] = {}
        self._before: dict[str, frozenset[LeaseEvent]] = {}
        self._pending: set[str] = set()
        """Nodes whose last testimony showed what the one before did not: another one tells whether it lasts."""
        self._asked_s: dict[str, float] = {}
        self._compared_s: dict[str, float] = {}

    def begin(self) -> None:
        """A term begins: what an earlier one has found is to be found again. Marks stay."""
        self.disagreements.clear()
        for kept in (self._differing, self._settled, self._parts, self._before, self._pending):
            kept.clear()

    def note(self, node: str, seen: Mark, now_s: float) -> None:
        self.heard_s[node] = now_s
        if seen.incarnation:
            self.marks[node] = seen

    def told(self) -> tuple[Disagreement, ...]:
        return tuple(one for node in sorted(self.disagreements) for one in self.disagreements[node])

    def forget(self, node: str) -> None:
        """The node is no more."""
        for kept in (self.marks, self.heard_s, self.disagreements, self._settled, self._parts, self._before):
            kept.pop(node, None)
        self._differing.discard(node)
        self._pending.discard(node)

    def differs(self, state: State, report: WitnessReport, now_s: float) -> bool:
        """Whether the detail is wanted: the second report in a row that differs from what the state has. What was found once is
        looked at again now and then, as long as anything is in quarantine for it or unexplained."""
        node = report.node
        if report.crowded or now_s - self._compared_s.get(node, -COMPARE_EVERY_S) < COMPARE_EVERY_S:
            return False
        self._compared_s[node] = now_s
        if node in self._pending:
            return True
        own = digest_of_node(state, node, frozenset(report.unsettled))
        is_open = node in self.disagreements or self._keeps_quarantine(state, node)
        if (own == report.digest and not is_open) or self._settled.get(node) == (report.digest, own):
            self._differing.discard(node)
            return is_open and now_s - self._asked_s.get(node, -RECHECK_S) >= RECHECK_S
        if node in self._differing:
            return True
        self._differing.add(node)
        return False

    def _keeps_quarantine(self, state: State, node: str) -> bool:
        return any(kept.claim.node == node for kept in state.quarantine.values())

    def may_ask(self, node: str, now_s: float) -> bool:
        """At most once a second for one node."""
        if now_s - self._asked_s.get(node, -ASK_AGAIN_S) < ASK_AGAIN_S:
            return False
        self._asked_s[node] = now_s
        return True

    def put_together(self, detail: WitnessDetail) -> Testimony | None:
        """The whole answer when its last part is here. A node is listened to up to a limit."""
        if not 0 <= detail.part < detail.parts <= PARTS_MAX:
            return None
        kept = self._parts.get(detail.node)
        if kept is None or kept.question != detail.question:
            kept = self._parts[detail.node] = _Parts(detail.question, {})
        if detail.part not in kept.claims:
            kept.claims[detail.part] = detail.claims[: kept.room]
            kept.room -= len(kept.claims[detail.part])
            kept.overflows |= len(detail.claims) > len(kept.claims[detail.part])
        if len(kept.claims) < detail.parts:
            return None
        del self._parts[detail.node]
        claims = tuple(claim for _, part in sorted(kept.claims.items()) for claim in part)
        return Testimony(
            question=detail.question,
            seen=detail.seen,
            claims=NodeClaims(
                node=detail.node,
                claims=claims,
                unsettled=frozenset(detail.unsettled),
                scanned=detail.scanned and not kept.overflows,
            ),
        )

    def judge(self, state: State, facts: Facts, testimony: Testimony) -> tuple[LeaseEvent, ...]:
        """What is to be appended now. After a loss a node that was silent is believed at once; else what two testimonies show."""
        node = testimony.claims.node
        if node in state.silent:
            self._pending.discard(node)
            merged = merge(state, facts, (testimony.claims,), trusted=True)
            self._note(state, testimony.claims, merged)
            return (*merged.events, NodeReported(node=node))
        # who comes from another log, and was not waited for, is bound to claim what this one does not have
        merged = merge(state, facts, (testimony.claims,), trusted=False)
        self._note(state, testimony.claims, merged)
        before = self._before.get(node, frozenset())
        if testimony.seen.incarnation not in ("", state.incarnation):
            before = frozenset(merged.events)
        self._before[node] = frozenset(merged.events)
        lasting = tuple(event for event in merged.events if event in before)
        (self._pending.add if len(lasting) < len(merged.events) else self._pending.discard)(node)
        if not merged.events or lasting:
            # nothing more can come of the same two digests
            self._settled[node] = self._digests(state, testimony.claims)
        return lasting

    def _note(self, state: State, claims: NodeClaims, merged: Merged) -> None:
        self.disagreements.pop(claims.node, None)
        if merged.disagreements:
            self.disagreements[claims.node] = merged.disagreements

    def _digests(self, state: State, claims: NodeClaims) -> tuple[bytes, bytes]:
        theirs = digest_of(
            (claim.container_id, claim.ifname, claim.generation, tuple(sorted(claim.addresses)))
            for claim in claims.claims
            if claim.container_id
            and claim.state == "completed"
            and claim.container_id not in claims.unsettled
        )
        return theirs, digest_of_node(state, claims.node, claims.unsettled)
