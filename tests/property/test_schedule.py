"""The schedule of writes: nothing that was added is forgotten, nothing runs twice at once, and writes keep their distance."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.controller.schedule import INTERVAL_S, Key, Schedule

KEYS = [Key("k", "", name) for name in "abc"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "take", "done", "idle", "failed"]), st.sampled_from(KEYS), st.floats(0, 2)
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_the_schedule(steps: list[tuple[str, Key, float]]) -> None:
    schedule, now_s = Schedule(), 0.0
    running: set[Key] = set()
    wrote_at_s: dict[Key, float] = {}
    wanted: set[Key] = set()
    for verb, key, passed_s in steps:
        now_s += passed_s
        if verb == "add":
            schedule.add(key, now_s)
            wanted.add(key)
        elif verb == "take":
            taken = schedule.take(now_s)
            if taken is not None:
                assert taken in wanted
                assert taken not in running
                assert now_s >= wrote_at_s.get(taken, -INTERVAL_S) + INTERVAL_S - 1e-6
                wanted.discard(taken)
                running.add(taken)
                wrote_at_s.pop(taken, None)
                began_s = now_s
                wrote_at_s[taken] = began_s
        elif key in running:
            running.discard(key)
            if verb == "failed":
                schedule.failed(key, now_s, 0.5)
                wanted.add(key)
            else:
                if verb == "idle":
                    wrote_at_s.pop(key, None)
                schedule.done(key, now_s, INTERVAL_S if verb == "done" else 0.0)
    for key in list(running):
        schedule.done(key, now_s, 0.0)
    served: set[Key] = set()
    while (at_s := schedule.next_at_s()) is not None:
        taken = schedule.take(at_s)
        assert taken is not None
        served.add(taken)
        schedule.done(taken, at_s, 0.0)
    assert served == wanted
    assert len(schedule) == 0


def test_what_runs_and_is_to_be_looked_at_again_later_waits_until_then() -> None:
    schedule = Schedule()
    schedule.add(KEYS[0], 0.0)
    assert schedule.take(0.0) == KEYS[0]
    schedule.add(KEYS[0], 0.0, 0.5)
    schedule.add(KEYS[0], 0.0, 0.2)
    schedule.done(KEYS[0], 0.1, 0.0)
    assert schedule.take(0.1) is None
    assert schedule.next_at_s() == 0.2
    assert schedule.take(0.2) == KEYS[0]
