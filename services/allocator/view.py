"""What tools are told of leases and decisions: pure views of the state.

Owns the rows. Must not change anything, nor know the bus.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator

import msgspec

from services.allocator.decide import (
    Accepted,
    Identity,
    Rejected,
    decide_allocate,
    identify,
    is_alive,
)
from services.allocator.disagreement import Disagreement, of_quarantine
from services.allocator.facts import Facts
from services.allocator.state import HeldInterface, Holding, Lease, State
from shared import limits
from shared.contracts.codec import encode
from shared.contracts.ipam import Allocate, InterfaceRequest
from shared.contracts.lease import LeaseItem, LeasesAllocated
from shared.contracts.query import (
    DisagreementView,
    Explain,
    Explained,
    LeasesPage,
    LeaseView,
    PoolVerdict,
    QueryLeases,
)
from shared.manifests.annotation_key import findings
from shared.net.ranges import format_address, parse_address
from shared.selection.network import requests_of
from shared.selection.rule import Refusal, Selection, select


def leases_page(state: State, facts: Facts, query: QueryLeases) -> LeasesPage:
    """The leases that fit, in the order of family and address; a resting address is told only where it is asked for.

    A page ends at the limit asked for, or where it would become too large for one message. Raises ValueError for an `after`
    or `address` that is none.
    """
    after = parse_address(query.after) if query.after else (0, 0)
    limit = min(max(query.limit, 1), limits.PAGE_MAX_LEASES)
    fitting = heapq.nsmallest(
        limit + 1, (row for row in _fitting(state, query) if row[0] > after), key=lambda row: row[0]
    )
    views: list[LeaseView] = []
    size_bytes = 0
    for _, holding, ifname, held, lease in fitting[:limit]:
        view = _view(facts, holding, ifname, held, lease)
        size_bytes += len(encode(view))
        if size_bytes > limits.PAGE_MAX_BYTES:
            break
        views.append(view)
    more = views[-1].address if len(fitting) > len(views) else ""
    return LeasesPage(leases=(*views, *_resting(state, query)), next_after=more, mark=state.mark)


def _resting(state: State, query: QueryLeases) -> tuple[LeaseView, ...]:
    """The row of a resting address, which nobody holds: a question for somebody's leases does not mean it."""
    if (
        not query.address
        or query.after
        or query.pod_namespace
        or query.pod_name
        or query.node
        or query.container_id
    ):
        return ()
    resting = state.resting.get(parse_address(query.address))
    if resting is None or query.pool not in ("", resting.pool):
        return ()
    address = format_address(resting.address, resting.family)
    return (LeaseView(address=address, pool=resting.pool, interface="", state="resting"),)


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
        state=_state(held),
        prefix_len=lease.prefix_len,
        gateway=pool.gateway if pool is not None else "",
        clean_gateway=held.clean_gateway,
    )


def _state(held: HeldInterface) -> str:
    if held.detached or held.attached:
        return "detached" if held.detached else "held"
    return "adopted" if held.adopted else "ahead"


def disagreements(state: State, told: Iterable[Disagreement]) -> tuple[DisagreementView, ...]:
    """What witnesses disagree on, and which addresses are kept from everybody for it; not more than a person reads."""
    open_ = itertools.chain(told, map(of_quarantine, state.quarantine.values()))
    return tuple(
        DisagreementView(node=one.node, sentence=one.sentence, settles=one.settles)
        for one in itertools.islice(open_, limits.DISAGREEMENTS_SHOWN_MAX)
    )


def kept_from_others(state: State) -> tuple[str, ...]:
    """The addresses in quarantine, as many as are told at once."""
    return tuple(
        format_address(kept.address, kept.family)
        for kept in itertools.islice(state.quarantine.values(), limits.KEPT_SHOWN_MAX)
    )


_NOT_OURS = ("network_unknown", "not_in_this_version")


def explain(state: State, facts: Facts, query: Explain) -> Explained:
    """What an attach of this pod's interface, or of all its networks, would be given now, and why each pool is in or out."""
    pod = f"{query.pod_namespace}/{query.pod_name}"
    leases = leases_page(
        state, facts, QueryLeases(pod_namespace=query.pod_namespace, pod_name=query.pod_name)
    ).leases
    command = _command(state, facts, query)
    identity = identify(facts, command, asked=True)
    pod_fact = identity.pod if isinstance(identity, Identity) else None
    requests = requests_of(facts, pod_fact, command)
    elsewhere = ""
    if isinstance(requests, Refusal) and requests.error in _NOT_OURS and command.further_networks:
        # under Multus such a network may be another plugin's, and is no matter of the called interface
        elsewhere = f"; of its further networks: {requests.message}"
        command = msgspec.structs.replace(command, further_networks=False)
        requests = requests_of(facts, pod_fact, command)
    if not isinstance(identity, Identity) or isinstance(requests, Refusal):
        refusal = identity.refusal if isinstance(identity, Rejected) else requests
        assert isinstance(refusal, Refusal)
        return Explained(
            pod=pod,
            outcome=refusal.message,
            error=refusal.error,
            leases=leases,
            warnings=_warnings(facts, query),
        )
    selection = select(facts, identity.pod, command.node, requests)
    decision = decide_allocate(state, facts, command, 0, asked=True)
    items: tuple[LeaseItem, ...] = ()
    error = ""
    if isinstance(decision, Accepted):
        items = next((event.items for event in decision.events if isinstance(event, LeasesAllocated)), ())
        given = ", ".join(f"{item.address} of {item.pool} on {item.ifname}" for item in items)
        outcome = f"{pod} would be given {given}"
        if not items:
            held = ", ".join(
                f"{_addresses(state, identity.owner, one.ifname)} on {one.ifname}" for one in requests
            )
            outcome = f"{pod} holds {held}: an attach gives the same again"
    else:
        assert isinstance(decision, Rejected)
        outcome, error = decision.refusal.message, decision.refusal.error
    return Explained(
        pod=pod,
        outcome=outcome + elsewhere,
        error=error,
        source=selection.source,
        verdicts=_verdicts(state, selection, items),
        leases=leases,
        warnings=_warnings(facts, query),
    )


def _warnings(facts: Facts, query: Explain) -> tuple[str, ...]:
    pod = facts.pods.get((query.pod_namespace, query.pod_name))
    namespace = facts.namespaces.get(query.pod_namespace)
    of_pod = findings("Pod", pod.annotations) if pod is not None else ()
    of_namespace = findings("Namespace", namespace.metadata.annotations) if namespace is not None else ()
    return (
        *(f"{one.field}: {one.message}" for one in of_pod),
        *(f"namespace {query.pod_namespace}: {one.field}: {one.message}" for one in of_namespace),
    )


def _command(state: State, facts: Facts, query: Explain) -> Allocate:
    """What the pod's agent would ask: a pod that holds addresses asks from its sandbox of now."""
    known = facts.pods.get((query.pod_namespace, query.pod_name))
    uid = known.uid if known is not None else ""
    holdings = state.holdings_of_pod(query.pod_namespace, query.pod_name)
    now = next((one for one in holdings if (one.owner == uid if uid else is_alive(state, facts, one))), None)
    if now is not None and not now.owner.startswith("pod:"):
        uid = now.owner
    return Allocate(
        attempt="",
        node=known.node if known is not None else "",
        container_id=now.container_id if now is not None else "none",
        ifname=query.ifname,
        interfaces=(
            InterfaceRequest(ifname=query.ifname, network=query.network, ipv4=query.ipv4, ipv6=query.ipv6),
        ),
        ttl_ms=0,
        pod_namespace=query.pod_namespace,
        pod_name=query.pod_name,
        pod_uid=uid,
        further_networks=query.further_networks,
    )


def _addresses(state: State, owner: str, ifname: str) -> str:
    holding = state.holdings.get(owner)
    held = holding.interfaces.get(ifname) if holding is not None else None
    return ", ".join(format_address(one.address, one.family) for one in held.leases) if held else "nothing"


def _verdicts(state: State, selection: Selection, items: tuple[LeaseItem, ...]) -> tuple[PoolVerdict, ...]:
    """One row a pool that was looked at; `chosen` is where the next address comes from, rested ones of `items` included."""
    chosen: dict[tuple[str, int], str] = {
        (item.ifname, parse_address(item.address)[0]): item.pool for item in items
    }
    for want in selection.wants:
        for family, pools in want.pools.items():
            for pool in pools:
                if _free(state, pool.name):
                    chosen.setdefault((want.ifname, family), pool.name)
    verdicts: list[PoolVerdict] = []
    for verdict in selection.verdicts:
        free = _free(state, verdict.pool)
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
    return tuple(verdicts)


def _free(state: State, pool: str) -> int:
    occupancy = state.pools.occupancy(pool)
    return occupancy.free_count if occupancy is not None else 0
