"""What must be true of the allocator's memory: a pure check that tests, tools and the running allocator share.

Owns the invariants. Must not change anything.
"""

from __future__ import annotations

from services.allocator.state import State
from shared.net.ranges import format_address


def audit(state: State) -> tuple[str, ...]:
    """Every violated invariant as a sentence; empty when all hold."""
    wrong: list[str] = []
    seen: dict[tuple[int, int], str] = {}
    for holding, ifname, held, lease in state.leases():
        where = f"{format_address(lease.address, lease.family)} ({holding.owner} {ifname})"
        other = seen.setdefault((lease.family, lease.address), holding.owner + "/" + ifname)
        if other != holding.owner + "/" + ifname:
            wrong.append(f"{where} is also on {other}")
        if state.taken[lease.family].get(lease.address) != holding.owner:
            wrong.append(f"{where} is not marked as taken by its owner")
        if held.generation > state.generation:
            wrong.append(f"{where} has generation {held.generation}, beyond the log's {state.generation}")
        for pool in state.pools.covering(lease.family, lease.address):
            occupancy = state.pools.occupancy(pool)
            if occupancy is not None and lease.address in occupancy:
                wrong.append(f"{where} counts as free in pool {pool}")
    for family in (4, 6):
        for address, owner in state.taken[family].items():
            if (family, address) not in seen:
                wrong.append(f"{format_address(address, family)} is taken by {owner}, who does not hold it")
    for family, address in state.resting:
        if address in state.taken[family]:
            wrong.append(f"{format_address(address, family)} rests and is held")
    for holding in state.holdings.values():
        if not holding.interfaces:
            wrong.append(f"{holding.owner} holds nothing and is still there")
        if holding not in state.holdings_of_container(holding.container_id):
            wrong.append(f"{holding.owner} is not found by its container {holding.container_id}")
    return tuple(wrong)
