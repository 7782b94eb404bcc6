"""What the endpoints tell of silent nodes: whether it is all, and how it is kept until they report."""

from __future__ import annotations

import msgspec
import pytest

from services.allocator import watch
from services.allocator.rebuild import NodeClaims
from services.allocator.recovery import beyond, lost_log
from services.allocator.silent import kept_for_silent, told_by_endpoints
from services.allocator.state import State
from shared import limits
from shared.contracts.adopt import AdoptedAddress
from shared.contracts.ipam import Mark
from shared.contracts.lease import LogRebuilt, NodeDeparted
from shared.contracts.mark import LogMark, Mirrored
from shared.contracts.witness import Claim
from tests.support.pure_allocator import World, addresses, pod, pool

SHARED = LogMark(incarnation="i1", sequence=40)
THROUGH = Mirrored(incarnation="i1", sequence=45)


@pytest.mark.parametrize(
    ("through", "marks", "shared", "seen", "told"),
    [
        (THROUGH, (SHARED,), SHARED, (), {"n1", "n2"}),
        (THROUGH, (LogMark(incarnation="i1", sequence=45), SHARED), SHARED, (), {"n1", "n2"}),
        # a record that somebody knows of, and no endpoint tells of surely
        (THROUGH, (LogMark(incarnation="i1", sequence=46), SHARED), SHARED, (), set[str]()),
        (THROUGH, (SHARED,), SHARED, (Mark(incarnation="i1", sequence=46),), set[str]()),
        (THROUGH, (SHARED,), SHARED, (Mark(incarnation="i0", sequence=460),), {"n1", "n2"}),
        # nobody knows how far they go, or which log that was
        (None, (SHARED,), SHARED, (), set[str]()),
        (THROUGH, (SHARED,), None, (), set[str]()),
        (THROUGH, (), SHARED, (), set[str]()),
        (THROUGH, (LogMark(incarnation="i2", sequence=3, epoch=1), SHARED), SHARED, (), set[str]()),
        (THROUGH, (LogMark(incarnation="i2", sequence=3), SHARED), SHARED, (), set[str]()),
        (THROUGH, (SHARED, LogMark(incarnation="i2", sequence=3)), SHARED, (), set[str]()),
        # it may have what no endpoint shows
        (THROUGH, (SHARED,), msgspec.structs.replace(SHARED, unmirrored=("n2", "n9")), (), {"n1"}),
    ],
)
def test_of_which_nodes_the_endpoints_tell_all(
    through: Mirrored | None,
    marks: tuple[LogMark, ...],
    shared: LogMark | None,
    seen: tuple[Mark, ...],
    told: set[str],
) -> None:
    assert told_by_endpoints({"n1", "n2"}, through, marks, shared, seen) == told


def test_the_log_that_was_lost_is_the_one_that_a_mark_knows() -> None:
    began, state = State(), State()
    began.incarnation, began.sequence = "new", 1
    state.incarnation, state.sequence, state.epoch = "i2", 9, 1
    own = LogMark(incarnation="new", sequence=1)
    for readable, marks, lost in (
        (State(), (), ""),
        (State(), (SHARED,), "i1"),
        # it was begun where the other was not known
        (began, (own, SHARED), "i1"),
        (began, (own,), "new"),
        (state, (SHARED,), "i2"),
        (state, (), "i2"),
        (state, (LogMark(incarnation="i2", sequence=12, epoch=1), SHARED), "i2"),
        (state, (LogMark(incarnation="i3", sequence=12, epoch=2),), "i3"),
    ):
        assert lost_log(readable, beyond(readable, marks)) == lost


def endpoint(name: str, address: str, node: str = "n2") -> AdoptedAddress:
    return AdoptedAddress(
        address=f"{address}/16",
        pod_namespace="shop",
        pod_name=name,
        pod_uid=f"{name}-uid",
        pool="v4",
        node=node,
    )


def world() -> World:
    w = World(
        pool("v4", "10.6.0.0/16", "10.6.1.0-10.6.1.255", default=True),
        pod("shop/a", node="n2"),
        pod("shop/b", node="n2"),
    )
    w.commit((LogRebuilt(lost="i0", reason="lost", silent=("n2",), complete=True, generation=500),))
    return w


def test_what_an_endpoint_shows_on_a_silent_node_is_given_to_nobody_until_it_reports() -> None:
    w = world()
    held = addresses(w.add("", container="held"))
    shown = [
        endpoint("a", "10.6.1.1"),
        endpoint("b", "10.6.1.2"),
        endpoint("c", "10.6.1.3", node="n1"),
        endpoint("d", held[0]),
        endpoint("e", "none"),
    ]
    w.commit(tuple(kept_for_silent(w.state, frozenset({"n2"}), shown)))
    assert {kept.claim.address for kept in w.state.quarantine.values()} == {"10.6.1.1", "10.6.1.2"}
    assert addresses(w.add("", container="new")) == ["10.6.1.3"], "nothing is kept for a node that has told"
    assert w.state.unmirrored() >= {"n2"}
    # it reports: one of the two is there still
    claim = Claim(
        container_id="c1",
        ifname="eth0",
        addresses=("10.6.1.1/16",),
        generation=3,
        live=True,
        state="completed",
        pod_namespace="shop",
        pod_name="a",
        pod_uid="uid-a",
    )
    testimony = watch.Testimony(
        question="q", seen=Mark(incarnation="i0"), claims=NodeClaims(node="n2", claims=(claim,), scanned=True)
    )
    w.commit(watch.Watch().judge(w.state, w.facts, testimony))
    assert w.state.quarantine == {} and w.state.silent == set()
    assert w.state.holder(4, (10 << 24) + (6 << 16) + 257) is not None
    assert addresses(w.add("", container="newer")) == ["10.6.1.2"]


def test_it_is_free_when_the_node_is_no_more() -> None:
    w = world()
    w.commit(tuple(kept_for_silent(w.state, frozenset({"n2"}), [endpoint("a", "10.6.1.0")])))
    assert addresses(w.add("", container="one")) == ["10.6.1.1"]
    w.commit((NodeDeparted(node="n2"),))
    assert addresses(w.add("", container="two")) == ["10.6.1.0"]


def test_what_was_kept_for_a_node_takes_nothing_from_what_it_may_claim_itself() -> None:
    w = world()
    many = limits.WITNESS_UNKNOWN_MAX
    shown = [endpoint(f"p{i}", f"10.6.{2 + i // 256}.{i % 256}") for i in range(many + 10)]
    w.commit(tuple(kept_for_silent(w.state, frozenset({"n2"}), shown)))
    claim = Claim(container_id="c1", ifname="eth0", addresses=("10.6.1.9/16",), generation=3, live=True)
    testimony = watch.Testimony(
        question="q", seen=Mark(incarnation="i0"), claims=NodeClaims(node="n2", claims=(claim,), scanned=True)
    )
    w.commit(watch.Watch().judge(w.state, w.facts, testimony))
    assert w.state.holder(4, (10 << 24) + (6 << 16) + 256 + 9) == "container:n2/c1"


def test_nodes_that_may_have_what_no_endpoint_shows_are_named() -> None:
    w = World(pool("v4", "10.6.0.0/16", "10.6.1.0-10.6.1.255", default=True), pod("shop/a"))
    w.add("shop/a", container="first")
    assert w.state.unmirrored() == frozenset()
    w.add("", container="bare", node="n7")
    assert w.restored().unmirrored() == w.state.unmirrored() == {"n7"}
    w.release("bare", node="n7")
    assert w.state.unmirrored() == frozenset()
