"""A node that floods takes neither turns nor room from the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.allocator.waiting import Waiting


def taken(waiting: Waiting[str]) -> list[str]:
    return [waiting.take() for _ in range(len(waiting))]


def test_nodes_are_served_in_turn_and_each_in_order() -> None:
    waiting: Waiting[str] = Waiting(100, 50)
    for number in range(5):
        assert waiting.put("flood", f"f{number}") == ()
    for number in range(2):
        assert waiting.put("n1", f"n{number}") == ()
    assert taken(waiting) == ["f0", "n0", "f1", "n1", "f2", "f3", "f4"]


def test_a_node_has_a_bound_of_its_own() -> None:
    waiting: Waiting[str] = Waiting(100, 2)
    assert [waiting.put("flood", f"f{i}") for i in range(4)] == [(), (), ("f2",), ("f3",)]
    assert waiting.put("n1", "n0") == ()


def test_where_all_is_full_the_last_of_the_fullest_gives_way() -> None:
    waiting: Waiting[str] = Waiting(4, 4)
    for number in range(4):
        waiting.put("flood", f"f{number}")
    assert waiting.put("n1", "n0") == ("f3",)
    assert waiting.put("n1", "n1") == ("f2",)
    assert waiting.put("n1", "n2") == ("n2",), "it has its half"
    assert waiting.put("n2", "m0") == ("f1",)
    assert taken(waiting) == ["f0", "n0", "m0", "n1"]


def test_what_is_held_has_no_turn_and_counts() -> None:
    waiting: Waiting[str] = Waiting(100, 2)
    for number in range(2):
        waiting.put("n1", f"n{number}")
        waiting.take()
        waiting.hold("n1")
    assert waiting.put("n1", "n2") == ("n2",)
    waiting.put_back("n1", "n0")
    waiting.let_go("n1")
    assert waiting.put("n1", "n3") == ()
    assert taken(waiting) == ["n0", "n3"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans())))
def test_nothing_is_forgotten_nothing_twice(acts: list[tuple[str, bool]]) -> None:
    waiting: Waiting[int] = Waiting(8, 5)
    out: list[int] = []
    for number, (node, takes) in enumerate(acts):
        out += waiting.put(node, number)
        assert len(waiting) <= 8
        assert waiting.of_node(node) <= 5
        if takes and len(waiting):
            out.append(waiting.take())
    while len(waiting):
        out.append(waiting.take())
    assert sorted(out) == list(range(len(acts)))
