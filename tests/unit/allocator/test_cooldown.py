"""Resting addresses are given only where nothing else is free, the longest rested first, and their rest survives a snapshot."""

from __future__ import annotations

from tests.support.pure_allocator import SECOND_NS, World, addresses, pod, pool, reserved

POOL = pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.12", default=True)


def rested(world: World, *containers: str) -> None:
    """Each container takes an address and gives it back, one second apart, to rest 60 s."""
    for container in containers:
        world.add(container=container)
    for container in containers:
        world.now_ns += SECOND_NS
        world.release(container, cooldown_s=60.0)


def test_a_resting_address_is_passed_over_while_others_are_free() -> None:
    world = World(POOL)
    rested(world, "a")
    assert addresses(world.add(container="b")) == ["10.1.0.11"]
    assert addresses(world.add(container="c")) == ["10.1.0.12"]
    assert addresses(world.add(container="d")) == ["10.1.0.10"]
    assert world.refused(container="e").error == "pool_exhausted"


def test_the_longest_rested_goes_first() -> None:
    world = World(POOL)
    rested(world, "a", "b", "c")
    assert [addresses(world.add(container=name))[0] for name in "xyz"] == [
        "10.1.0.10",
        "10.1.0.11",
        "10.1.0.12",
    ]


def test_after_its_rest_an_address_is_as_any_other() -> None:
    world = World(POOL)
    rested(world, "a")
    world.now_ns += 60 * SECOND_NS
    assert addresses(world.add(container="b")) == ["10.1.0.10"]
    assert not world.state.resting


def test_another_pool_with_free_addresses_goes_before_a_resting_one() -> None:
    world = World(POOL, pool("next", "10.2.0.0/24", "10.2.0.10"))
    rested(world, "a", "b", "c")
    assert addresses(world.add(container="x", ipv4=["v4", "next"])) == ["10.2.0.10"]
    assert addresses(world.add(container="y", ipv4=["v4", "next"])) == ["10.1.0.10"]


def test_a_reserved_address_that_rests_is_not_given() -> None:
    world = World(POOL)
    rested(world, "a", "b", "c")
    world.apply(reserved("r", "10.1.0.10-10.1.0.11"))
    assert addresses(world.add(container="x")) == ["10.1.0.12"]
    assert world.refused(container="y").error == "pool_exhausted"


def test_a_rest_survives_replay_snapshot_and_a_pool_made_anew() -> None:
    world = World(POOL)
    rested(world, "a", "b")
    assert world.canonical(world.replayed()) == world.canonical(world.restored()) == world.canonical()
    world.delete("SpiderIPPool", "v4")
    world.apply(POOL)
    assert addresses(world.add(container="c")) == ["10.1.0.12"]
    world.now_ns += 100 * SECOND_NS
    assert addresses(world.add(container="d")) == ["10.1.0.10"]


def test_a_second_rest_of_one_address_is_not_ended_by_the_first_ones_time() -> None:
    world = World(pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.11", default=True))
    world.add(container="a")
    world.release("a", cooldown_s=10.0)
    world.add(container="b")
    assert addresses(world.add(container="c")) == ["10.1.0.10"]
    world.release("c", cooldown_s=60.0)
    world.now_ns += 20 * SECOND_NS
    world.release("b")
    assert addresses(world.add(container="d")) == ["10.1.0.11"]


def test_an_address_whose_del_came_while_the_pod_lived_rests_from_that_del_on() -> None:
    world = World(POOL, pod("shop/a"))
    world.add("shop/a")
    world.release("sandbox-a", cooldown_s=5.0)
    world.now_ns += SECOND_NS
    world.delete_pod("shop/a")
    assert addresses(world.add(container="x")) == ["10.1.0.11"]
    world.now_ns += 5 * SECOND_NS
    assert addresses(world.add(container="y")) == ["10.1.0.10"]


def test_a_pod_that_was_long_detached_leaves_no_rest() -> None:
    world = World(POOL, pod("shop/a"))
    world.add("shop/a")
    world.release("sandbox-a", cooldown_s=5.0)
    world.now_ns += 60 * SECOND_NS
    world.delete_pod("shop/a")
    assert addresses(world.add(container="x")) == ["10.1.0.10"]
