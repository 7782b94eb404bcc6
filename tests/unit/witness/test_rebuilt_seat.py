"""After a rebuild a pod is in its newest sandbox, whatever older ones have left behind."""

from __future__ import annotations

from services.allocator.rebuild import NodeClaims, merge
from services.allocator.state import State
from shared.contracts.witness import Claim
from tests.support.pure_allocator import World, node, pod, pool


def claim(container: str, ifname: str, address: str, generation: int) -> Claim:
    return Claim(
        container_id=container,
        ifname=ifname,
        addresses=(f"{address}/16",),
        generation=generation,
        pod_namespace="shop",
        pod_name="web-0",
        pod_uid="uid-web-0",
        live=True,
    )


OLD = claim("s1", "eth0", "10.6.1.0", 5)
NEW = claim("s2", "net1", "10.6.1.1", 9)


def rebuilt(state: State, *claims: Claim) -> World:
    w = World(pool("v4", "10.6.0.0/16", "10.6.1.0-10.6.200.255", default=True), node("n1"), pod("shop/web-0"))
    w.state = state
    w.state.put_pools({name: w.facts.pool_space(name) for name in w.facts.pools})
    w.commit(
        merge(w.state, w.facts, (NodeClaims(node="n1", claims=claims, scanned=True),), trusted=True).events
    )
    return w


def test_the_newest_sandbox_has_the_last_word_on_where_the_pod_is() -> None:
    w = rebuilt(State(), OLD, NEW)
    holding = w.state.holdings["uid-web-0"]
    assert (holding.container_id, set(holding.interfaces)) == ("s2", {"eth0", "net1"})


def test_what_an_older_sandbox_left_does_not_bring_the_pod_back_to_it() -> None:
    w = rebuilt(rebuilt(State(), NEW).state, OLD, NEW)
    holding = w.state.holdings["uid-web-0"]
    assert (holding.container_id, set(holding.interfaces)) == ("s2", {"eth0", "net1"})
