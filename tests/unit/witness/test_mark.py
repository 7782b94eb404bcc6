"""What marks say against a log: one from before a loss and one from after, that of a machine and that of the cluster."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.allocator.facts import Facts
from services.allocator.mark import MarkFile, mark_of, refutation
from services.allocator.sharing import known_marks
from services.allocator.state import State
from shared.contracts import mark as marks
from shared.contracts.facts import ObjectFact, ObjectGone
from shared.contracts.lease import LogRebuilt, Record, TermStarted, digest
from shared.contracts.mark import CONFIG_MAP, LogMark, contradicts, goes_further, read_mark, written_mark


class Log:
    """A log as its leaders write it: records, losses that are lived through, and what somebody noted of it at the time."""

    def __init__(self) -> None:
        self.state = State()
        self.logs = 1
        self.state.incarnation = "i1"
        self.append()

    def append(self) -> None:
        record = Record(
            incarnation=self.state.incarnation,
            term=1,
            at_ns=self.state.sequence,
            previous=self.state.digest,
            events=(TermStarted(replica="a"),),
        )
        self.state.fold(record, self.state.sequence + 1, digest(repr(record).encode()))

    def rebuild(
        self, *, knows: int = 1 << 40, complete: bool = True, silent: tuple[str, ...] = (), led: bool = True
    ) -> None:
        """The log is lost behind record `knows`, and made anew from there."""
        lost = self.state
        self.logs += 1
        began = LogRebuilt(
            lost=lost.incarnation,
            reason="lost",
            complete=complete,
            silent=silent,
            epoch=lost.epoch + 1,
            lost_sequence=min(knows, lost.sequence),
        )
        state = State()
        state.evolve(began)
        state.incarnation, state.sequence = f"i{self.logs}", lost.sequence + 1
        state.rebuilt_at = state.sequence
        self.state = state
        if led:
            self.append()

    def restored(self) -> State:
        return State.from_snapshot(self.state.snapshot())


def at(incarnation: str, sequence: int) -> State:
    state = State()
    state.incarnation, state.sequence = incarnation, sequence
    return state


@pytest.mark.parametrize(
    ("mark", "state", "sentence"),
    [
        (None, at("", 0), ""),
        (None, at("i1", 5), ""),
        (LogMark(incarnation="i1", sequence=0), at("", 0), ""),
        (LogMark(incarnation="i1", sequence=5), at("i1", 5), ""),
        (LogMark(incarnation="i1", sequence=5), at("i1", 9), ""),
        (LogMark(incarnation="i1", sequence=5), at("", 0), "the log is empty"),
        (LogMark(incarnation="i1", sequence=5), at("i1", 4), "the log ends at 4, record 5 was acknowledged"),
        (LogMark(incarnation="i1", sequence=5), at("i2", 9), "this is log i2, the mark knows log i1"),
        # who noted it came to no record, and another replica began
        (LogMark(incarnation="i1", sequence=0), at("i2", 9), ""),
    ],
)
def test_a_mark_tells_a_loss_from_a_first_start(mark: LogMark | None, state: State, sentence: str) -> None:
    why = refutation(() if mark is None else (mark,), state)
    assert sentence in why and bool(why) == bool(sentence)


def test_a_mark_from_before_a_loss_says_nothing_against_the_log_that_followed() -> None:
    log = Log()
    before = mark_of(log.state)
    log.rebuild()
    assert refutation((before,), log.restored()) == ""
    log.rebuild()
    assert refutation((before,), log.state) == ""


def test_a_mark_from_after_a_loss_refutes_an_older_copy() -> None:
    log = Log()
    copy = log.restored()
    log.rebuild()
    assert "the mark knows log i2" in refutation((mark_of(log.state),), copy)


def test_a_log_that_nobody_has_led_on_yet_is_believed_by_whoever_noted_it_only() -> None:
    log = Log()
    before = mark_of(log.state)
    log.rebuild(led=False)
    assert "this is log i2" in refutation((before,), log.restored())
    assert refutation((before, mark_of(log.state)), log.restored()) == "", (
        "its mark was the rebuild's last word"
    )
    log.append()
    assert refutation((before,), log.restored()) == ""


def test_what_a_rebuild_took_for_complete_and_was_not_is_rebuilt_while_a_node_is_silent() -> None:
    log = Log()
    for _ in range(9):
        log.append()
    before = mark_of(log.state)
    log.rebuild(knows=7, silent=("n1",))
    assert "rebuilt from record 7 of log i1, record 10 was acknowledged" in refutation(
        (before,), log.restored()
    )
    assert refutation((msgspec.structs.replace(before, sequence=7),), log.state) == ""
    log.state.silent.clear()
    assert refutation((before,), log.state) == "", "who was silent has told"
    log = Log()
    log.append()
    log.rebuild(knows=1, complete=False, silent=("n1",))
    told = LogMark(incarnation="i1", sequence=2)
    assert refutation((told,), log.state) == "", "nothing new is given there before it tells"


@given(st.lists(st.sampled_from(("append", "rebuild", "note")), max_size=40))
def test_no_mark_that_was_ever_true_refutes_the_log_that_goes_on(steps: list[str]) -> None:
    """However old: it says that the log had at least come to there."""
    log = Log()
    noted = [mark_of(log.state)]
    for step in steps:
        if step == "append":
            log.append()
        elif step == "rebuild":
            log.rebuild()
        else:
            noted.append(mark_of(log.state))
        assert refutation(noted, log.restored()) == ""


@given(st.lists(st.sampled_from(("append", "rebuild")), min_size=1, max_size=20), st.data())
def test_every_mark_of_later_refutes_an_older_copy(steps: list[str], data: st.DataObject) -> None:
    log = Log()
    copies = [log.restored()]
    for step in steps:
        log.append() if step == "append" else log.rebuild()
        copies.append(log.restored())
    older = data.draw(st.sampled_from(copies[:-1]))
    assert refutation((mark_of(log.state),), older)


_MARKS = st.builds(
    LogMark,
    incarnation=st.sampled_from(("i1", "i2")),
    sequence=st.integers(0, 3),
    epoch=st.integers(0, 2),
)


@given(_MARKS, _MARKS)
def test_of_two_marks_one_stands_or_they_contradict_each_other(one: LogMark, other: LogMark) -> None:
    assert goes_further(one, one) and not contradicts(one, one)
    both_empty = not (one.sequence and other.sequence)
    stands = goes_further(one, other) or goes_further(other, one)
    assert stands != contradicts(one, other) or both_empty
    assert read_mark(written_mark(one)) == one


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"mark": ""},
        {"mark": "{}"},
        {"mark": '{"incarnation": "i1", "sequence": -1}'},
        {"mark": f'{{"incarnation": "i1", "sequence": {1 << 70}}}'},
    ],
)
def test_what_is_no_mark_is_said_to_be_none(data: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="key mark"):
        read_mark(data)
    facts = Facts()
    facts.apply(_fact(data), 1)
    assert facts.mark is None and f"ConfigMap orbweaver-system/{CONFIG_MAP}" in facts.mark_flaw


def test_the_shared_mark_is_a_fact_and_ends_with_its_config_map(tmp_path: Path) -> None:
    facts, file = Facts(), MarkFile(tmp_path / "mark.json")
    shared, own = LogMark(incarnation="i2", sequence=4, epoch=1), LogMark(incarnation="i1", sequence=90)
    assert known_marks(file, facts) == ()
    file.write(own)
    assert facts.apply(_fact(written_mark(shared)), 1).mark
    assert known_marks(file, facts) == (shared, own), "the furthest first"
    facts.apply(
        ObjectGone(kind="ConfigMap", namespace="orbweaver-system", name=CONFIG_MAP, uid="", version=2), 2
    )
    assert known_marks(file, facts) == (own,)


def _fact(data: dict[str, str]) -> ObjectFact:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": marks.CONFIG_MAP}, "data": data}
    return ObjectFact(
        kind="ConfigMap",
        api_version="v1",
        namespace="orbweaver-system",
        name=marks.CONFIG_MAP,
        uid="",
        version=1,
        object=msgspec.json.encode(body),
    )
