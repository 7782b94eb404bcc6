"""How far of the log the endpoints tell: never further than what is written, and all of it once nothing waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.controller.coverage import Coverage
from services.controller.mirrored import through
from shared.contracts.mark import LogMark, Mirrored, read_mirrored, written_mirrored

PODS = (("shop", "a"), ("shop", "b"), ("shop", "c"))


def test_nothing_is_told_before_the_log_was_folded() -> None:
    assert Coverage().through is None


def test_a_pod_that_is_touched_while_it_is_written_waits_on() -> None:
    coverage = Coverage()
    coverage.folded("i1", 4, [PODS[0]])
    began = coverage.sequence
    coverage.folded("i1", 6, [PODS[0]])
    coverage.written(PODS[0], began)
    assert coverage.through == Mirrored(incarnation="i1", sequence=4 + 0)
    coverage.written(PODS[0], coverage.sequence)
    assert coverage.through == Mirrored(incarnation="i1", sequence=6)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("fold"), st.lists(st.sampled_from(PODS), max_size=3)),
            st.tuples(st.just("begin"), st.sampled_from(PODS)),
            st.tuples(st.just("end"), st.sampled_from(PODS)),
        ),
        max_size=60,
    )
)
def test_what_it_says_is_written_is_written(steps: list[tuple[str, object]]) -> None:
    """Against all records one by one: each touches some pods, and a write tells what its pod had when it began."""
    coverage = Coverage()
    touched: list[tuple[int, tuple[str, str]]] = []
    told: dict[tuple[str, str], int] = {}
    begun: dict[tuple[str, str], int] = {}
    sequence = 0
    for step, what in steps:
        if step == "fold":
            sequence += 1
            touched += [(sequence, pod) for pod in what]  # type: ignore[attr-defined]
            coverage.folded("i1", sequence, what)  # type: ignore[arg-type]
        elif step == "begin":
            begun[what] = coverage.sequence  # type: ignore[index]
        elif what in begun:
            began = begun.pop(what)  # type: ignore[arg-type]
            coverage.written(what, began)  # type: ignore[arg-type]
            told[what] = max(told.get(what, 0), began)  # type: ignore[index,arg-type]
        if sequence:
            word = coverage.through
            assert word is not None
            missing = [at for at, pod in touched if told.get(pod, 0) < at]
            assert word.sequence < min(missing, default=sequence + 1)
            if not missing:
                assert word.sequence == sequence


def test_a_word_on_another_log_is_none() -> None:
    mark = LogMark(incarnation="i2", sequence=9, epoch=1)
    old, new, newer = (
        Mirrored(incarnation=incarnation, sequence=sequence)
        for incarnation, sequence in (("i1", 90), ("i2", 4), ("i2", 7))
    )
    assert through(mark, (old, None)) is None
    assert through(mark, (old, new)) == new
    assert through(mark, (newer, new)) == newer
    assert through(None, (newer, new)) is None
    assert read_mirrored(written_mirrored(new)) == new
    assert read_mirrored({}) is None and read_mirrored({"mirrored": "{"}) is None
