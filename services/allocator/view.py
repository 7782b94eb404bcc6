"""What tools are told of leases and decisions: pure views of the state.

Owns the rows. Must not change anything, nor know the bus.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from services.allocator.decide import Identity, Rejected, identify
from services.allocator.facts import Facts
from services.allocator.selection import select
from services.allocator.state import HeldInterface, Holding, Lease, State
from shared import limits
from shared.contracts.ipam import Allocate, InterfaceRequest
from shared.contracts.query import Explain, Explained, LeasesPage, LeaseView, PoolVerdict, QueryLeases
from shared.net.ranges import format_address, parse_address


def leases_page(state: State, facts: Facts, query: QueryLeases) -> LeasesPage:
    """The leases that fit, in the order of family and address; a resting address is told only where it is asked for."""
    after = parse_address(query.after) if query.after else (0, 0)
    limit = min(max(query.limit, 1), limits.PAGE_MAX_LEASES)
    fitting = heapq.nsmallest(
        limit + 1, (row for row in _fitting(state, query) if row[0] > after), key=lambda row: row[0]
    )
    views = [
        _view(facts, holding, ifname, held, lease) for _, holding, ifname, held, lease in fitting[:limit]
    ]
    more = views[-1].address if len(fitting) > limit else ""
    if query.address and (resting := state.resting.get(parse_address(query.address))) is not None:
        views.append(LeaseView(address=query.address, pool=resting.pool, interface="", state="resting"))
    return LeasesPage(leases=tuple(views), next_after=more, mark=state.mark)


_Row = tuple[tuple[int, int], Holding, str, HeldInterface, Lease]


def _fitting(state: State, query: QueryLeases) -> Iterator[_Row]:
    wanted = parse_address(query.address) if query.address else None
    for holding in _holdings(state, query):
        if (query.node and holding.node != query.node) or (
            query.container_id and holding.container_id != query.container_id
        ):
            continue
        for ifname, held in holding.interfaces.items():
            for lease in held.leases:
                key = (lease.family, lease.address)
                if wanted in (None, key) and query.pool in ("", lease.pool):
                    yield key, holding, ifname, held, lease


def _holdings(state: State, query: QueryLeases) -> Iterable[Holding]:
    """Those that can fit, by the narrowest way to them."""
    if query.address:
        owner = state.holder(*parse_address(query.address))
        return () if owner is None else (state.holdings[owner],)
    if query.pod_namespace and query.pod_name:
        return state.holdings_of_pod(query.pod_namespace, query.pod_name)
    return (
        holding
        for holding in state.holdings.values()
        if query.pod_namespace in ("", holding.namespace) and query.pod_name in ("", holding.name)
    )


def _view(facts: Facts, holding: Holding, ifname: str, held: HeldInterface, lease: Lease) -> LeaseView:
    pool = facts.pools.get(lease.pool)
    return LeaseView(
        address=format_address(lease.address, lease.family),
        pool=lease.pool,
        interface=ifname,
        pod_namespace=holding.namespace,
        pod_name=holding.name,
        pod_uid="" if holding.owner.startswith(("container:", "pod:")) else holding.owner,
        container_id=holding.container_id,
        node=holding.node,
        generation=held.generation,
        state="detached" if held.detached else "held" if held.attached else "ahead",
        prefix_len=lease.prefix_len,
        gateway=pool.gateway if pool is not None else "",
        clean_gateway=held.clean_gateway,
    )


def explain(state: State, facts: Facts, query: Explain) -> Explained:
    """What an attach of this pod's interface would be given now, and why each pool is in or out."""
    pod_text = f"{query.pod_namespace}/{query.pod_name}"
    holdings = state.holdings_of_pod(query.pod_namespace, query.pod_name)
    leases = leases_page(
        state, facts, QueryLeases(pod_namespace=query.pod_namespace, pod_name=query.pod_name)
    ).leases
    known = facts.pods.get((query.pod_namespace, query.pod_name))
    request = InterfaceRequest(ifname=query.ifname, network=query.network, ipv4=query.ipv4, ipv6=query.ipv6)
    command = Allocate(
        attempt="",
        node=known.node if known is not None else "",
        container_id="",
        ifname=query.ifname,
        interfaces=(request,),
        ttl_ms=0,
        pod_namespace=query.pod_namespace,
        pod_name=query.pod_name,
        pod_uid=known.uid if known is not None else "",
    )
    identity = identify(facts, command, asked=True)
    if isinstance(identity, Rejected):
        return Explained(
            pod=pod_text, outcome=identity.refusal.message, error=identity.refusal.error, leases=leases
        )
    assert isinstance(identity, Identity)
    selection = select(facts, identity.pod, command.node, (request,))
    verdicts: list[PoolVerdict] = []
    chosen: dict[tuple[str, int], str] = {}
    for want in selection.wants:
        for family, pools in want.pools.items():
            for pool in pools:
                occupancy = state.pools.occupancy(pool.name)
                if occupancy is not None and occupancy.free_count:
                    chosen.setdefault((want.ifname, family), pool.name)
    for verdict in selection.verdicts:
        occupancy = state.pools.occupancy(verdict.pool)
        free = occupancy.free_count if occupancy is not None else 0
        is_chosen = chosen.get((verdict.ifname, verdict.family)) == verdict.pool
        reason = verdict.reason or (
            "next address comes from here"
            if is_chosen
            else "all IP addresses used out"
            if not free
            else "comes later in the order"
        )
        verdicts.append(
            PoolVerdict(
                ifname=verdict.ifname,
                family=verdict.family,
                pool=verdict.pool,
                chosen=is_chosen,
                reason=reason,
                free=min(free, (1 << 63) - 1),
            )
        )
    if any(query.ifname in holding.interfaces for holding in holdings):
        addresses = ", ".join(lease.address for lease in leases if lease.interface == query.ifname)
        outcome, error = f"{pod_text} holds {addresses} on {query.ifname}: an attach gives the same again", ""
    elif selection.refusal is not None:
        outcome, error = selection.refusal.message, selection.refusal.error
    else:
        short = [
            f"IPv{family} of {want.ifname}"
            for want in selection.wants
            for family in want.pools
            if (want.ifname, family) not in chosen
        ]
        error = "pool_exhausted" if short else ""
        outcome = (
            f"all IP addresses used out for {', '.join(short)}"
            if short
            else f"{pod_text} would be given an address from {', '.join(dict.fromkeys(chosen.values()))}"
        )
    return Explained(
        pod=pod_text,
        outcome=outcome,
        error=error,
        source=selection.source,
        verdicts=tuple(verdicts),
        leases=leases,
    )
