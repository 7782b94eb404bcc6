"""`audit` finds each violation that is planted, and nothing in a healthy state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.allocator.audit import audit
from services.allocator.state import Lease, Resting, State
from shared.net.ranges import parse_address
from tests.support.pure_allocator import World, pod, pool

POOL = pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.20", default=True)
FIRST = parse_address("10.1.0.10")[1]


@pytest.fixture
def state() -> State:
    """uid-a on 10.1.0.10, uid-b on 10.1.0.11, 10.1.0.12 resting."""
    world = World(POOL, pod("shop/a"), pod("shop/b"))
    world.add("shop/a")
    world.add("shop/b")
    world.add(container="c")
    world.release("c", cooldown_s=60.0)
    assert audit(world.state) == ()
    return world.state


def twice(state: State) -> None:
    state.holdings["uid-b"].interfaces["eth0"].leases.append(Lease(4, 0, FIRST, "v4", 24))


def twice_on_one_owner(state: State) -> None:
    state.holdings["uid-a"].interfaces["eth0"].leases.append(Lease(4, 0, FIRST, "v4", 24))


def not_taken(state: State) -> None:
    del state.taken[4][FIRST]


def taken_by_nobody(state: State) -> None:
    state.taken[4][FIRST + 5] = "uid-a"


def free_though_held(state: State) -> None:
    state.pools.give_back(4, FIRST)


def free_though_resting(state: State) -> None:
    state.pools.give_back(4, FIRST + 2)


def rests_though_held(state: State) -> None:
    state.resting[4, FIRST] = Resting(4, 0, FIRST, "v4", 1 << 62)


def future_generation(state: State) -> None:
    state.holdings["uid-a"].interfaces["eth0"].generation = 99


def empty_holding(state: State) -> None:
    state.holdings["uid-a"].interfaces.clear()


def container_lost(state: State) -> None:
    state.holdings["uid-a"].container_id = "another"


def pod_lost(state: State) -> None:
    state.holdings["uid-a"].name = "another"


def no_longer_given(state: State) -> None:
    state.pools.take(4, FIRST + 5)


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (twice, "10.1.0.10 (uid-b eth0) is also on uid-a/eth0"),
        (twice_on_one_owner, "10.1.0.10 (uid-a eth0) is also on uid-a/eth0"),
        (not_taken, "10.1.0.10 (uid-a eth0) is not marked as taken by its owner"),
        (taken_by_nobody, "10.1.0.15 is taken by uid-a, who does not hold it"),
        (free_though_held, "10.1.0.10 (uid-a eth0) counts as free in pool v4"),
        (free_though_resting, "10.1.0.12 rests and counts as free in pool v4"),
        (rests_though_held, "10.1.0.10 rests and is held"),
        (future_generation, "10.1.0.10 (uid-a eth0) has generation 99, beyond the log's 3"),
        (empty_holding, "uid-a holds nothing and is still there"),
        (container_lost, "uid-a is not found by its container another"),
        (pod_lost, "uid-a is not found by its pod shop/another"),
        (no_longer_given, "pool v4: 8 addresses are free, 7 counted"),
    ],
)
def test_a_planted_violation_is_found(state: State, plant: Callable[[State], None], sentence: str) -> None:
    plant(state)
    assert sentence in audit(state)
