"""Occupancy as a machine against a plain set: whatever is taken and given back, the lowest free address is the lowest."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shared.net.occupancy import Occupancy
from shared.net.ranges import IntervalSet

TOP = 40
address = st.integers(-2, TOP + 2)
intervals = st.lists(
    st.tuples(st.integers(0, TOP), st.integers(0, TOP)).map(lambda ends: (min(ends), max(ends))), max_size=5
)


class Model(RuleBasedStateMachine):
    @initialize(pairs=intervals, taken=st.sets(address, max_size=10))
    def begin(self, pairs: list[tuple[int, int]], taken: set[int]) -> None:
        self.allowed = {value for first, last in pairs for value in range(first, last + 1)}
        self.free = self.allowed - taken
        self.occupancy = Occupancy(IntervalSet(pairs), sorted(taken))

    @rule(value=address)
    def take(self, value: int) -> None:
        assert self.occupancy.take(value) == (value in self.free)
        self.free.discard(value)

    @rule()
    def take_lowest(self) -> None:
        lowest = self.occupancy.lowest()
        assert lowest == min(self.free, default=None)
        if lowest is not None:
            assert self.occupancy.take(lowest)
            self.free.discard(lowest)

    @rule(value=address)
    def give_back(self, value: int) -> None:
        assert self.occupancy.give_back(value) == (value in self.allowed and value not in self.free)
        if value in self.allowed:
            self.free.add(value)

    @invariant()
    def agrees(self) -> None:
        assert self.occupancy.free_count == len(self.free)
        assert list(self.occupancy.ascending()) == sorted(self.free)
        assert self.occupancy.lowest() == min(self.free, default=None)
        assert [value in self.occupancy for value in range(-2, TOP + 3)] == [
            value in self.free for value in range(-2, TOP + 3)
        ]


TestOccupancy = Model.TestCase
TestOccupancy.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, 2**120), max_size=20, unique=True))
def test_a_slash_eight_of_ipv6_is_as_cheap_as_one_address(offsets: list[int]) -> None:
    first = 0xFD << 120
    occupancy = Occupancy(IntervalSet([(first, first + 2**120)]))
    for offset in offsets:
        assert occupancy.take(first + offset)
    assert occupancy.free_count == 2**120 + 1 - len(offsets)
    for offset in reversed(offsets):
        assert occupancy.give_back(first + offset)
    assert occupancy.lowest() == first
    assert occupancy.free_count == 2**120 + 1
