"""What must be true of the allocator's memory and of the lease log: pure checks that the simulator, tests, tools and the running
allocator share.

Owns the invariants of both. What must be true between log, journals and kernels is `shared.audit`. Must not change anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.allocator.state import State
from shared.contracts.lease import (
    AttachConfirmed,
    AttachmentDetached,
    LeaseEvent,
    LeasesAdopted,
    LeasesAllocated,
    LeasesInherited,
    LeasesRebound,
    LeasesReleased,
    Record,
)
from shared.net.ranges import format_address, parse_address


def audit(state: State) -> tuple[str, ...]:
    """Every violated invariant as a sentence; empty when all hold."""
    return (*_leases(state), *_unheld(state), *_free_space(state), *_holdings(state))


def _leases(state: State) -> Iterator[str]:
    """Each lease: on one interface of one owner, marked as taken, of a generation that the log has reached."""
    seen: dict[tuple[int, int], str] = {}
    for holding, ifname, held, lease in state.leases():
        where = f"{format_address(lease.address, lease.family)} ({holding.owner} {ifname})"
        key = (lease.family, lease.address)
        if key in seen:
            yield f"{where} is also on {seen[key]}"
        seen.setdefault(key, f"{holding.owner}/{ifname}")
        if state.taken[lease.family].get(lease.address) != holding.owner:
            yield f"{where} is not marked as taken by its owner"
        if held.generation > state.generation:
            yield f"{where} has generation {held.generation}, beyond the log's {state.generation}"
        if key in state.resting:
            yield f"{format_address(lease.address, lease.family)} rests and is held"
        for pool in state.pools.covering(lease.family, lease.address):
            occupancy = state.pools.occupancy(pool)
            if occupancy is not None and lease.address in occupancy:
                yield f"{where} counts as free in pool {pool}"


def _unheld(state: State) -> Iterator[str]:
    """No address is taken without a lease, and none is both free and resting."""
    held = {(lease.family, lease.address) for _, _, _, lease in state.leases()}
    for family, taken in state.taken.items():
        for address, owner in taken.items():
            if (family, address) not in held:
                yield f"{format_address(address, family)} is taken by {owner}, who does not hold it"
    for family, address in state.resting:
        for pool in state.pools.covering(family, address):
            occupancy = state.pools.occupancy(pool)
            if occupancy is not None and address in occupancy:
                yield f"{format_address(address, family)} rests and counts as free in pool {pool}"


def _free_space(state: State) -> Iterator[str]:
    """Nothing is lost from a pool: free is what it may give without what is held or rests."""
    busy = dict.fromkeys(state.pools, 0)
    for family in (4, 6):
        for address in state.busy(family):
            for pool in state.pools.covering(family, address):
                space = state.pools.space(pool)
                if space is not None and address in space.allowed:
                    busy[pool] += 1
    for pool, busy_count in busy.items():
        occupancy = state.pools.occupancy(pool)
        if occupancy is not None and occupancy.free_count != occupancy.allowed.size() - busy_count:
            free = occupancy.allowed.size() - busy_count
            yield f"pool {pool}: {free} addresses are free, {occupancy.free_count} counted"


def _holdings(state: State) -> Iterator[str]:
    """Whoever holds is found by container and by pod, and nobody holds nothing."""
    for holding in state.holdings.values():
        if not holding.interfaces:
            yield f"{holding.owner} holds nothing and is still there"
        if not any(one is holding for one in state.holdings_of_container(holding.container_id)):
            yield f"{holding.owner} is not found by its container {holding.container_id}"
        same_pod = state.holdings_of_pod(holding.namespace, holding.name)
        if holding.namespace and not any(one is holding for one in same_pod):
            yield f"{holding.owner} is not found by its pod {holding.namespace}/{holding.name}"


def follows(state: State, record: Record, sequence: int) -> Iterator[str]:
    """What is wrong with `record` as the next of the log that `state` stands for."""
    if state.sequence and sequence != state.sequence + 1:
        yield f"record {sequence} comes after record {state.sequence}"
    if record.previous != state.digest:
        yield f"record {sequence} does not follow record {state.sequence}"
    if record.term < state.term:
        yield f"record {sequence} of term {record.term} came after term {state.term} began"


def may_happen(state: State, event: LeaseEvent) -> Iterator[str]:
    """Why no leader may have decided this event on `state`, before it is folded."""
    match event:
        case LeasesAllocated():
            yield from _allocated(state, event)
        case LeasesRebound() | AttachConfirmed():
            if event.generation and event.generation <= state.generation and not _is_shared(state, event):
                yield f"{event.owner} is bound anew in generation {event.generation}, the log had {state.generation} before"
        case LeasesInherited():
            if event.owner not in state.holdings:
                yield f"{event.heir} inherits of {event.owner}, who holds nothing"
            if event.heir in state.holdings:
                yield f"{event.heir} inherits and holds something"
            if event.generation <= state.generation:
                yield f"{event.heir} inherits in generation {event.generation}, the log had {state.generation} before"
        case LeasesAdopted():
            if not state.adoption_open:
                yield f"{event.owner} is adopted after adoption was over"
            for item in event.items:
                holder = state.holder(*parse_address(item.address))
                if holder is not None:
                    yield f"{item.address} is adopted for {event.owner} and held by {holder}"
        case LeasesReleased():
            holding = state.holdings.get(event.owner)
            held = holding.interfaces if holding is not None else {}
            for ifname in event.ifnames:
                if ifname not in held:
                    yield f"{event.owner} {ifname} is released and holds nothing"
        case AttachmentDetached():
            holding = state.holdings.get(event.owner)
            held = holding.interfaces.get(event.ifname) if holding is not None else None
            if held is None or held.generation != event.generation:
                known = f"has generation {held.generation}" if held is not None else "holds nothing"
                yield f"{event.owner} {event.ifname} is detached in generation {event.generation} and {known}"
        case _:
            pass


def _allocated(state: State, event: LeasesAllocated) -> Iterator[str]:
    holding = state.holdings.get(event.owner)
    for ifname in dict.fromkeys(item.ifname for item in event.items):
        if holding is not None and ifname in holding.interfaces:
            yield f"{event.owner} {ifname} is given addresses and holds some"
    for item in event.items:
        family, address = parse_address(item.address)
        holder = state.holder(family, address)
        if holder is not None:
            yield f"{item.address} is given to {event.owner} and held by {holder}"
        if (family, address) in state.quarantine and not event.reason:
            yield f"{item.address} is given to {event.owner} and in quarantine"
    if not event.reason and (silent := state.unsafe()):
        yield f"{event.owner} is given addresses before {', '.join(sorted(silent))} told what they hold"


def _is_shared(state: State, event: LeasesRebound | AttachConfirmed) -> bool:
    """Interfaces that one attempt confirms have one generation, which the first of them brings into the log."""
    holding = state.holdings.get(event.owner)
    return (
        isinstance(event, AttachConfirmed)
        and holding is not None
        and any(
            held.generation == event.generation and held.attempt == event.attempt
            for ifname, held in holding.interfaces.items()
            if ifname != event.ifname
        )
    )
