"""When an attachment counts as gone: twice in a row, and never in a crowd."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.agent.reconcile import judge
from shared.ids import AttachmentId


def named(*names: str) -> frozenset[AttachmentId]:
    return frozenset(AttachmentId(name, "eth0") for name in names)


def test_once_is_not_enough() -> None:
    first = judge(named("a"), frozenset(), 10)
    assert (first.sweep, first.suspects) == (frozenset(), named("a"))
    assert judge(frozenset(), first.suspects, 10).suspects == frozenset()
    second = judge(named("a", "b"), first.suspects, 10)
    assert (second.sweep, second.suspects, second.stopped) == (named("a"), named("b"), 0)


def test_all_at_once_is_not_believed() -> None:
    stopped = judge(named("a", "b"), named("a", "b"), 2)
    assert (stopped.sweep, stopped.stopped) == (frozenset(), 2)
    assert stopped.suspects == named("a", "b")


def test_a_crowd_is_not_believed() -> None:
    many = named(*(f"c{n}" for n in range(6)))
    assert judge(many, many, 50).stopped == 6
    assert judge(many, many, 100).sweep == many
    assert judge(named(*(f"c{n}" for n in range(5))), many, 50).stopped == 0


NAMES = st.frozensets(st.sampled_from([AttachmentId(f"c{n}", "eth0") for n in range(12)]))


@given(NAMES, NAMES, st.integers(0, 40))
def test_properties(gone: frozenset[AttachmentId], suspects: frozenset[AttachmentId], others: int) -> None:
    judgement = judge(gone, suspects, len(gone) + others)
    assert judgement.sweep <= gone & suspects
    assert judgement.sweep | judgement.suspects == gone
    if others == 0 and gone & suspects:
        assert judgement.stopped and not judgement.sweep
    assert len(judgement.sweep) <= max(5, (len(gone) + others) / 10)
