"""A pod takes the place of another of the same stable identity: what of its addresses it inherits, and what it gives up. Pure.

Owns the rule of §3.6 in the reference's behaviour: everything is inherited, interface by interface, but what came of pools that are
not named for that interface any more. Must not know which pods have a stable identity (owner.py), nor what is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.allocator.facts import Facts
from services.allocator.owner import is_static
from services.allocator.pod import KnownPod
from services.allocator.state import HeldInterface, Holding, State
from shared.contracts.ipam import Allocate, InterfaceRequest
from shared.contracts.lease import (
    AddressesQuarantined,
    LeasesInherited,
    LeasesReleased,
    QuarantinedItem,
)
from shared.net.ranges import format_address
from shared.selection.rule import Refusal, candidates


def predecessor(state: State, facts: Facts, pod: KnownPod | None) -> Holding | None:
    """What the last pod of the same stable identity holds still, for a pod that holds nothing itself."""
    if pod is None or not is_static(facts, pod):
        return None
    left = (
        one
        for one in state.holdings_of_pod(pod.namespace, pod.name)
        if (facts.pod_of_owner(one.namespace, one.name, one.owner) is None if pod.uid else is_detached(one))
    )
    return max(left, key=lambda one: one.generation, default=None)


def is_detached(holding: Holding) -> bool:
    """Whether a DEL was heard of everything that was attached."""
    return holding.is_over and any(held.detached for held in holding.interfaces.values())


def moved_of(
    facts: Facts,
    pod: KnownPod | None,
    requests: tuple[InterfaceRequest, ...],
    holding: Holding | None,
    *,
    is_new: bool,
) -> frozenset[str] | Refusal:
    """The interfaces asked for whose addresses came from the pod before, and of pools that are not named for them any more.

    `is_new`: the whole holding is the former pod's. An interface is judged when it is asked for, since only then its pools are
    known; later ones of the same pod keep what they have.
    """
    held = holding.interfaces if holding is not None else {}
    inherited = tuple(
        request
        for request in requests
        if request.ifname in held and (is_new or held[request.ifname].inherited)
    )
    if not inherited:
        return frozenset()
    named = candidates(facts, pod, inherited)
    if isinstance(named, Refusal):
        return named
    return frozenset(
        request.ifname
        for request in inherited
        if not {lease.pool for lease in held[request.ifname].leases} <= named.get(request.ifname, frozenset())
    )


def inherit(
    former: Holding,
    heir: str,
    command: Allocate,
    generation: int,
    requested: tuple[str, ...],
    moved: frozenset[str],
) -> Iterator[AddressesQuarantined | LeasesInherited]:
    """What is given up although its node may have it still is given to nobody before that node tells."""
    attached = {name: held for name, held in former.interfaces.items() if name in moved and not held.is_over}
    if attached:
        yield quarantined(former, attached.items(), "its pod was replaced before a DEL was heard")
    yield LeasesInherited(
        owner=former.owner,
        heir=heir,
        node=command.node,
        container_id=command.container_id,
        attempt=command.attempt,
        generation=generation,
        attached=tuple(name for name in requested if name in former.interfaces and name not in moved),
    )


def quarantined(
    holding: Holding, interfaces: Iterable[tuple[str, HeldInterface]], reason: str
) -> AddressesQuarantined:
    """Keeps the addresses of these interfaces from everybody until the holding's node tells that it has them no more."""
    return AddressesQuarantined(
        items=tuple(
            QuarantinedItem(
                address=format_address(lease.address, lease.family),
                pool=lease.pool,
                node=holding.node,
                container_id=holding.container_id,
                ifname=ifname,
                generation=held.generation,
                reason=reason,
            )
            for ifname, held in interfaces
            for lease in held.leases
        )
    )


def given_up(holding: Holding, owner: str, moved: frozenset[str]) -> LeasesReleased:
    """Released under its present owner, who has inherited it."""
    return LeasesReleased(
        owner=owner,
        ifnames=tuple(name for name in holding.interfaces if name in moved),
        reason="another pool is named",
        rest_until_ns=max(holding.interfaces[name].rest_until_ns for name in moved),
    )
