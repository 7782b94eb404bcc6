"""Whatever nodes claim: no holder loses an address to a claim, what is kept or made anew is bounded, and the same claims twice
change nothing more."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from services.allocator.audit import may_happen
from services.allocator.rebuild import NodeClaims, merge
from shared import limits
from shared.contracts.lease import AddressesQuarantined, LeasesAllocated, LeasesReleased
from shared.contracts.witness import Claim
from shared.net.ranges import format_address
from tests.support.pure_allocator import World, node, pod, pool

NODES = ("n1", "n2")
CONTAINERS = [f"c{i}" for i in range(6)]
ADDRESSES = [f"10.6.1.{i}" for i in range(12)]


def truth(world: World) -> dict[str, list[Claim]]:
    """What each node claims that has exactly what the log says."""
    claims: dict[str, list[Claim]] = {name: [] for name in NODES}
    for holding in world.state.holdings.values():
        for ifname, held in holding.interfaces.items():
            claims[holding.node].append(
                Claim(
                    container_id=holding.container_id,
                    ifname=ifname,
                    addresses=tuple(f"{format_address(one.address, one.family)}/16" for one in held.leases),
                    generation=held.generation,
                    pod_namespace=holding.namespace,
                    pod_name=holding.name,
                    pod_uid=holding.owner if holding.namespace else "",
                    live=True,
                )
            )
    return claims


stray = st.builds(
    Claim,
    container_id=st.sampled_from(["", *CONTAINERS, "x1", "x2"]),
    ifname=st.sampled_from(["eth0", "net1"]),
    addresses=st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=2, unique=True).map(
        lambda found: tuple(f"{one}/16" for one in found)
    ),
    generation=st.integers(0, 12),
    state=st.sampled_from(["completed", "releasing"]),
    live=st.booleans(),
    pod_namespace=st.sampled_from(["", "shop"]),
    pod_name=st.sampled_from(["web-0", "web-1"]),
    pod_uid=st.sampled_from(["uid-web-0", "uid-web-1", "uid-other"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_claims_take_nothing_from_who_has_it(data: st.DataObject) -> None:
    w = World(
        pool("v4", "10.6.0.0/16", "10.6.1.0-10.6.1.11", default=True),
        *(node(name) for name in NODES),
        pod("shop/web-0"),
        pod("shop/web-1", node="n2"),
    )
    known: dict[str, list[Claim]] = {name: [] for name in NODES}
    for container in data.draw(st.lists(st.sampled_from(CONTAINERS), unique=True)):
        w.add("", container=container, node=data.draw(st.sampled_from(NODES)))
    if data.draw(st.booleans()):
        w.add("shop/web-0")
    if data.draw(st.booleans()):
        w.add("shop/web-1", node="n2")
    known = truth(w)
    for owner in data.draw(st.lists(st.sampled_from(sorted(w.state.holdings) or [""]), unique=True)):
        if owner:
            w.commit((LeasesReleased(owner=owner, ifnames=("eth0",), reason="in error"),))
    if data.draw(st.booleans()):
        w.restored()
    told = [
        NodeClaims(
            node=name,
            claims=(
                *data.draw(
                    st.lists(st.sampled_from(known[name]), unique=True) if known[name] else st.just([])
                ),
                *data.draw(st.lists(stray, max_size=5)),
            ),
            unsettled=frozenset(data.draw(st.sets(st.sampled_from(CONTAINERS), max_size=1))),
            scanned=data.draw(st.booleans()),
        )
        for name in data.draw(st.sets(st.sampled_from(NODES), min_size=1))
    ]
    owners_before = {family: dict(taken) for family, taken in w.state.taken.items()}
    past = {(one.family, one.high << 64 | one.low): one for one in w.state.past.all()}
    merged = merge(w.state, w.facts, told, trusted=False)
    for event in merged.events:
        assert not list(may_happen(w.state, event))
        if isinstance(event, LeasesAllocated):
            one = past[4, int.from_bytes(bytes(map(int, event.items[0].address.split("."))), "big")]
            assert (one.owner, one.node, one.container_id, one.generation) == (
                event.owner,
                event.node,
                event.container_id,
                event.generation,
            )
        w.commit((event,))
    for family, taken in owners_before.items():
        for address, owner in taken.items():
            assert w.state.taken[family].get(address) in (owner, None), "an address went to another"
    for one in merged.events:
        if isinstance(one, AddressesQuarantined):
            assert len(one.items) <= limits.WITNESS_UNKNOWN_MAX
    assert merge(w.state, w.facts, told, trusted=False).events == ()


def test_the_example_claims_are_what_a_node_would_tell() -> None:
    w = World(pool("v4", "10.6.0.0/16", "10.6.1.0-10.6.1.11", default=True), node("n1"))
    w.add("", container="c0")
    (claim,) = truth(w)["n1"]
    assert (
        merge(w.state, w.facts, [NodeClaims(node="n1", claims=(claim,), scanned=True)], trusted=False).events
        == ()
    )
