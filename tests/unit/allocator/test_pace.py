"""Objects that are gone in error must not end every attachment at once."""

from __future__ import annotations

from services.allocator.pace import Pace


def test_a_few_or_a_tenth_of_a_node_in_a_minute() -> None:
    pace = Pace()
    assert [pace.take("n1", 20, 100, 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert pace.take("n2", 20, 100, 0.0), "each node has its own"
    assert not pace.take("n1", 20, 100, 59.9)
    assert pace.take("n1", 20, 100, 60.0)
    assert sum(pace.take("big", 200, 500, 0.0) for _ in range(100)) == 20


def test_no_pod_at_all_is_no_evidence_but_for_a_few() -> None:
    pace = Pace()
    assert not pace.take("n1", 6, 0, 0.0)
    assert pace.take("n1", 5, 0, 0.0)
    assert pace.take("n1", 6, 1, 0.0)


def test_what_is_long_ago_is_forgotten() -> None:
    pace = Pace()
    for _ in range(5):
        pace.take("n1", 1, 1, 0.0)
    pace.forget(59.0)
    assert not pace.take("n1", 1, 1, 59.0)
    pace.forget(60.0)
    assert pace.take("n1", 1, 1, 60.0)
