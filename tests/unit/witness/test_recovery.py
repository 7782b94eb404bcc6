"""What is known best after a loss, whether that is everything, and who keeps new addresses back until it has told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.agent.journal import Journal
from services.allocator.log import LogLost
from services.allocator.mark import MarkFile, check_marks, mark_of
from services.allocator.recovery import is_complete, readable_of
from services.allocator.state import State
from services.allocator.watch import Watch
from shared.contracts.ipam import Mark
from shared.contracts.lease import (
    AddressesQuarantined,
    LogRebuilt,
    NodeDeparted,
    NodeReported,
    QuarantinedItem,
)
from shared.contracts.mark import LogMark
from tests.support.pure_allocator import World, addresses, pool


def at(incarnation: str, sequence: int, epoch: int = 0, rebuilt_at: int = 0) -> State:
    state = State()
    state.incarnation, state.sequence = incarnation, sequence
    state.epoch, state.rebuilt_at = epoch, rebuilt_at
    return state


@pytest.mark.parametrize(
    ("read", "memory", "mark", "best"),
    [
        (at("", 0), at("i1", 9), None, "memory"),
        (at("i1", 9), at("", 0), None, "read"),
        (at("i1", 7), at("i1", 9), None, "memory"),
        (at("i1", 9), at("i1", 7), None, "read"),
        (at("i2", 3), at("i1", 9), LogMark(incarnation="i2", sequence=3), "read"),
        (at("i2", 3), at("i1", 9), LogMark(incarnation="i1", sequence=9), "memory"),
        (at("i2", 3), at("i1", 9), None, "read"),
        # a mark from before a loss makes nothing of memory that the loss has overtaken
        (at("i2", 13, 1, 10), at("i1", 9), LogMark(incarnation="i1", sequence=9), "read"),
        (at("i1", 9), at("i2", 13, 1, 10), LogMark(incarnation="i1", sequence=9), "memory"),
        # somebody rebuilt it by what he knew, and was killed before he led on it
        (at("i2", 10, 1, 10), at("i1", 9), LogMark(incarnation="i1", sequence=9), "memory"),
        (
            at("i2", 10, 1, 10),
            at("i1", 9),
            LogMark(incarnation="i2", sequence=10, epoch=1),
            "read",
        ),
    ],
)
def test_what_is_known_best(read: State, memory: State, mark: LogMark | None, best: str) -> None:
    marks = () if mark is None else (mark,)
    assert readable_of(read, memory, marks) is {"read": read, "memory": memory}[best]


def test_nothing_is_complete_beside_a_mark_beyond_it() -> None:
    watch = Watch()
    state = at("i1", 9)
    own, beyond = LogMark(incarnation="i1", sequence=9), LogMark(incarnation="i1", sequence=10)
    assert is_complete(state, (own,), watch, 9)
    assert is_complete(state, (), watch, 0)
    assert not is_complete(at("", 0), (), watch, 0)
    assert not is_complete(state, (own, beyond), watch, 9), (
        "that of the cluster counts as that of the machine"
    )
    assert not is_complete(state, (LogMark(incarnation="i2", sequence=1),), watch, 9)
    assert is_complete(at("i3", 9, 1), (LogMark(incarnation="i2", sequence=90),), watch, 9)
    assert not is_complete(state, (), watch, 10), "there is a record more, which cannot be read"
    watch.note("n1", Mark(incarnation="i1", sequence=10), 0.0)
    assert not is_complete(state, (), watch, 9)


def rebuilt(*, complete: bool) -> World:
    w = World(pool("v4", "10.6.0.0/16", "10.6.1.0-10.6.1.255", default=True))
    w.add("", container="held")
    w.commit((LogRebuilt(lost="i0", reason="lost", silent=("n2",), complete=complete, generation=500),))
    return w


def test_nothing_new_is_given_while_a_silent_node_may_hold_it() -> None:
    w = rebuilt(complete=False)
    assert "n2" in w.refused("", container="new").message
    assert addresses(w.add("", container="held")) == ["10.6.1.0"], "what is known is confirmed"
    w.commit((NodeReported(node="n2"),))
    assert w.add("", container="new")[0].generation > 500


def test_a_node_that_is_deleted_is_not_waited_for() -> None:
    w = rebuilt(complete=False)
    w.commit((NodeDeparted(node="n2"),))
    w.add("", container="new")


def test_where_everything_is_known_nobody_is_waited_for() -> None:
    rebuilt(complete=True).add("", container="new")


def test_quarantine_outlives_a_snapshot_and_ends_with_its_node() -> None:
    w = World(pool("v4", "10.6.0.0/16", "10.6.1.0-10.6.1.255", default=True))
    item = QuarantinedItem(address="10.6.1.0", pool="v4", node="n2", reason="no lease")
    w.commit((AddressesQuarantined(items=(item,)),))
    w.state = w.restored()
    assert addresses(w.add("", container="a")) == ["10.6.1.1"]
    w.commit((NodeDeparted(node="n2"),))
    assert addresses(w.add("", container="b")) == ["10.6.1.0"]


def test_a_quarantined_address_that_is_released_is_still_given_to_nobody() -> None:
    w = World(pool("v4", "10.6.0.0/16", "10.6.1.0-10.6.1.255", default=True))
    w.add("", container="a")
    w.commit((AddressesQuarantined(items=(QuarantinedItem(address="10.6.1.0", pool="v4", node="n2"),)),))
    w.release("a", cooldown_s=1.0)
    w.now_ns += 2_000_000_000
    assert addresses(w.add("", container="b")) == ["10.6.1.1"]


def test_the_mark_of_an_earlier_log_takes_nothing_back(tmp_path: Path) -> None:
    marks = MarkFile(tmp_path / "mark.json")
    old, new = LogMark(incarnation="i1", sequence=90), LogMark(incarnation="i2", sequence=3, epoch=1)
    marks.write(old)
    marks.write(new)
    marks.write(old)
    assert marks.read() == new


def test_a_mark_names_the_nodes_that_hold_and_refutes_another_record() -> None:
    w = World(pool("v4", "10.6.0.0/16", "10.6.1.0-10.6.1.255", default=True))
    w.add("", container="a", node="n7")
    mark = mark_of(w.state)
    assert (mark.nodes, mark.sequence) == (("n7",), 1)
    check_marks((mark,), w.state)
    other = LogMark(incarnation=mark.incarnation, sequence=1, digest="ff")
    with pytest.raises(LogLost, match="another one"):
        check_marks((other,), w.state)


def test_a_journal_adopts_another_log_only_when_it_is_told_to(tmp_path: Path) -> None:
    first, second = (
        Mark(incarnation="i1", sequence=9, digest="aa"),
        Mark(incarnation="i2", sequence=2, digest="bb"),
    )

    async def work() -> None:
        journal = Journal.open(tmp_path)
        journal.witness(first)
        journal.witness(second)
        assert journal.seen == first
        await journal.adopt(second)
        assert journal.seen == second
        await journal.close()
        again = Journal.open(tmp_path)
        assert again.seen == second
        await again.close()

    asyncio.run(work())
