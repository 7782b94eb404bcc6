"""A calendar that is set ahead ends no rest early: not within a term, and not where the next leader's is another."""

from __future__ import annotations

from services.allocator.decide import decide_collect
from services.allocator.facts import Facts
from services.allocator.log_time import LogTime
from services.allocator.state import Snapshot, State
from shared.contracts.codec import Codec, encode
from shared.contracts.lease import (
    AttachmentDetached,
    AttemptVoided,
    ClockMoved,
    LeaseItem,
    LeasesAllocated,
    LeasesReleased,
)

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS


def test_only_what_goes_ahead_of_time_is_told() -> None:
    time = LogTime(1_000 * SECOND_NS, 5.0)
    assert time.moved(1_003 * SECOND_NS, 8.0) == ()
    assert time.moved(1_003 * SECOND_NS + HOUR_NS, 8.0) == (ClockMoved(by_ns=HOUR_NS),)
    assert time.moved(1_005 * SECOND_NS + HOUR_NS, 10.0) == (), "it is told once"
    assert time.moved(1_005 * SECOND_NS + HOUR_NS, 90.0) == (), (
        "it stood still: set back, and held by the last record"
    )


def test_the_first_record_has_nothing_to_compare() -> None:
    assert LogTime(0, 5.0).moved(HOUR_NS, 5.0) == ()


def test_who_waits_goes_on_waiting_for_as_long() -> None:
    state = State()
    item = LeaseItem(ifname="eth0", address="10.6.0.9", pool="v4", prefix_len=16)
    for event in (
        LeasesAllocated(
            owner="o",
            node="n1",
            container_id="c",
            attempt="a",
            generation=1,
            items=(item,),
            attached=("eth0",),
        ),
        LeasesReleased(owner="o", ifnames=("eth0",), reason="DEL", rest_until_ns=5 * SECOND_NS),
        AttemptVoided(attempt="b", until_ns=600 * SECOND_NS),
        ClockMoved(by_ns=HOUR_NS),
    ):
        state.evolve(event)
    state.wake(HOUR_NS + 4 * SECOND_NS)
    assert state.is_busy(4, 0x0A060009) and state.voided["b"] == HOUR_NS + 600 * SECOND_NS
    state.wake(HOUR_NS + 5 * SECOND_NS)
    assert not state.is_busy(4, 0x0A060009)


def test_a_rest_noted_while_the_pod_lives_lasts_as_long() -> None:
    state = State()
    item = LeaseItem(ifname="eth0", address="10.6.0.9", pool="v4", prefix_len=16)
    for event in (
        LeasesAllocated(
            owner="o",
            pod_namespace="default",
            pod_name="web",
            node="n1",
            container_id="c",
            attempt="a",
            generation=1,
            items=(item,),
            attached=("eth0",),
        ),
        AttachmentDetached(owner="o", ifname="eth0", generation=1, rest_until_ns=5 * SECOND_NS),
        ClockMoved(by_ns=HOUR_NS),
    ):
        state.evolve(event)
    snapshots: Codec[Snapshot] = Codec(Snapshot)
    state = State.from_snapshot(snapshots.decode(encode(state.snapshot())))
    # the pod's object goes now
    for event in decide_collect(state, Facts(), "default", "web", HOUR_NS + SECOND_NS).events:
        state.evolve(event)
    assert not state.holdings
    state.wake(HOUR_NS + 4 * SECOND_NS)
    assert state.is_busy(4, 0x0A060009)
    state.wake(HOUR_NS + 5 * SECOND_NS)
    assert not state.is_busy(4, 0x0A060009)
