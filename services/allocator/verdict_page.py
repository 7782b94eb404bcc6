"""What a dry run of garbage collection tells: one verdict for each lease, page by page. Pure.

Owns the rows. Must not know how a lease is judged, nor act on it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from services.allocator.collect import Verdict, judge_interfaces
from services.allocator.facts import Facts
from services.allocator.state import HeldInterface, Holding, Lease, State
from shared import limits
from shared.contracts.codec import encode
from shared.contracts.collect import Collect, LeaseVerdict, Verdicts
from shared.net.ranges import format_address, parse_address


def verdict_page(
    state: State, facts: Facts, judged: Callable[[Holding], Verdict], query: Collect, held_back: str
) -> Verdicts:
    """The verdicts over the leases after `after`, in the order of family and address. Raises ValueError for an `after` that is none."""
    after = parse_address(query.after) if query.after else (0, -1)
    limit = min(max(query.limit, 1), limits.PAGE_MAX_LEASES)
    rows = heapq.nsmallest(
        limit + 1,
        (
            ((lease.family, lease.address), holding, ifname, held, lease)
            for holding, ifname, held, lease in state.leases()
            if (lease.family, lease.address) > after
        ),
        key=lambda row: row[0],
    )
    told: list[LeaseVerdict] = []
    counts: dict[str, int] = {}
    size_bytes = 0
    last = ""
    for _, holding, ifname, held, lease in rows[:limit]:
        view = _view(holding, ifname, held, lease, _of_interface(facts, holding, ifname, judged(holding)))
        size_bytes += len(encode(view))
        if size_bytes > limits.PAGE_MAX_BYTES:
            break
        last = view.address
        counts[view.action] = counts.get(view.action, 0) + 1
        if query.kept or view.action != "keep":
            told.append(view)
    is_last = sum(counts.values()) == len(rows)
    return Verdicts(
        verdicts=tuple(told),
        counts=counts,
        next_after="" if is_last else last,
        held_back=held_back,
        mark=state.mark,
    )


def _of_interface(facts: Facts, holding: Holding, ifname: str, verdict: Verdict) -> Verdict:
    return next(one for names, one in judge_interfaces(facts, holding, verdict) if ifname in names)


def _view(holding: Holding, ifname: str, held: HeldInterface, lease: Lease, verdict: Verdict) -> LeaseVerdict:
    return LeaseVerdict(
        address=format_address(lease.address, lease.family),
        pool=lease.pool,
        interface=ifname,
        action=verdict.action,
        rule=verdict.rule,
        reason=verdict.reason,
        pod_namespace=holding.namespace,
        pod_name=holding.name,
        pod_uid=holding.owner if holding.namespace and not holding.owner.startswith("pod:") else "",
        node=holding.node,
        container_id=holding.container_id,
        generation=held.generation,
        due_ns=verdict.due_ns,
    )
