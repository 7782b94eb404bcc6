"""Who excludes whom among pools, against a look at every pair, whatever comes, changes and goes."""

from __future__ import annotations

import random

import msgspec

from shared.manifests.ipam import IPPoolSpec
from shared.net.ranges import IntervalSet, Network, parse_cidr
from shared.selection.cluster import PoolFact
from shared.selection.precedence import PoolRivals

SUBNETS = [
    parse_cidr(text)
    for text in ("10.1.0.0/24", "10.1.0.0/26", "10.1.1.0/24", "10.1.0.0/16", "10.2.0.0/24", "fd00::/120", "fd00::/64")
]  # fmt: skip


def some_pool(chance: random.Random, name: str) -> PoolFact:
    subnet: Network = chance.choice(SUBNETS)
    spans: list[tuple[int, int]] = []
    for _ in range(chance.randint(0, 3)):
        first = subnet.first + chance.randint(0, 60)
        spans.append((first, min(first + chance.choice((0, 0, 3, 30)), subnet.last)))
    return PoolFact(
        name=name,
        uid=f"uid-{chance.randint(0, 3)}",
        family=subnet.family,
        subnet=subnet,
        total=IntervalSet(spans),
        gateway="",
        spec=IPPoolSpec(),
        terminating=chance.random() < 0.2,
        created=f"2026-01-01T00:00:0{chance.randint(0, 2)}Z",
    )


def excludes(one: PoolFact, other: PoolFact) -> bool:
    if one.subnet == other.subnet:
        return bool(one.total.intersect(other.total))
    return one.subnet.overlaps(other.subnet)


def goes_before(pools: dict[str, PoolFact], name: str) -> str:
    mine = pools[name]
    ahead = [
        (other.created, other.uid, other.name)
        for other in pools.values()
        if other.name != name
        and not other.terminating
        and excludes(mine, other)
        and (other.created, other.uid, other.name) < (mine.created, mine.uid, mine.name)
    ]
    return min(ahead)[2] if ahead else ""


def test_rivals_are_those_that_a_look_at_every_pair_finds() -> None:
    for seed in range(30):
        chance = random.Random(seed)
        rivals, pools = PoolRivals(), dict[str, PoolFact]()
        for step in range(120):
            name = f"p{chance.randint(0, 12)}"
            before = rivals.of(name)
            if chance.random() < 0.25:
                assert rivals.drop(name) == before
                pools.pop(name, None)
            else:
                pools[name] = some_pool(chance, name)
                assert rivals.put(pools[name]) == before | rivals.of(name)
            for each, pool in pools.items():
                wanted = {one.name for one in pools.values() if one.name != each and excludes(pool, one)}
                assert rivals.of(each) == wanted, (seed, step, each)
                assert rivals.before(each) == goes_before(pools, each)
        assert all(rivals.copy().before(name) == rivals.before(name) for name in pools)


def test_of_any_pools_that_exclude_each_other_no_two_count() -> None:
    """And of those that are all alike, exactly one does."""
    chance = random.Random(3)
    rivals = PoolRivals()
    for i in range(100):
        pool = some_pool(chance, f"p{i}")
        rivals.put(
            msgspec.structs.replace(
                pool,
                subnet=SUBNETS[0],
                total=IntervalSet([(SUBNETS[0].first, SUBNETS[0].first + 9)]),
                terminating=False,
            )
        )
    assert sum(not rivals.before(f"p{i}") for i in range(100)) == 1


def test_pools_that_exclude_nobody_cost_little() -> None:
    """10,000 pools of one subnet are compared with their neighbours, not with each other."""
    subnet = parse_cidr("10.0.0.0/8")
    rivals = PoolRivals()
    base = some_pool(random.Random(0), "base")
    for i in range(10_000):
        total = IntervalSet([(subnet.first + 20 * i, subnet.first + 20 * i + 9)])
        pool = msgspec.structs.replace(base, name=f"p{i}", family=4, subnet=subnet, total=total)
        assert not rivals.put(pool)
