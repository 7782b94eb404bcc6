"""What the size of a pool costs: an allocation out of an IPv4 /8 and an IPv6 /48 against one out of a /24 and a /120.

Owns both ways to look: the decision alone, and the whole request over the bus. Interleaved, each as a ratio of medians.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from services.allocator.decide import Accepted, decide_allocate
from services.allocator.facts import Facts
from services.allocator.state import State
from shared import subjects
from shared.contracts.codec import encode
from shared.contracts.facts import FactsSynced, ObjectFact
from shared.contracts.ipam import ALLOCATE_REPLY, Allocate, Allocated, InterfaceRequest
from tests.bench.stage import POOLS, pool, publish_facts, single

_SMALL = (
    pool("small-v4", "172.30.0.0/24", "172.30.0.1-172.30.0.254"),
    pool("small-v6", "fd00:30::/120", "fd00:30::1-fd00:30::fe"),
)
_ROUNDS = 200
"""Each takes an address of every pool, and none is given back: the small ones have 254."""
_NAMES = ("bench", "small")


async def measure(directory: Path) -> tuple[float, float]:
    """The ratio of the decision, and of the request over the bus."""
    return _decision(), await _over_the_bus(directory)


def _request(pools: str, number: int) -> Allocate:
    return Allocate(
        attempt=f"{pools}-{number}",
        node="n1",
        container_id=f"{pools}-{number}",
        ifname="eth0",
        interfaces=(InterfaceRequest(ifname="eth0", ipv4=(f"{pools}-v4",), ipv6=(f"{pools}-v6",)),),
        ttl_ms=10_000,
    )


def _decision() -> float:
    """Median of several passes over fresh states, for a pass lasts some 10 ms only."""
    return statistics.median(_one_pass() for _ in range(9))


def _one_pass() -> float:
    state, facts = State(), Facts()
    facts.apply(FactsSynced(incarnation="bench", version=0, objects=0), 0)
    for one in (*POOLS, *_SMALL):
        fact = ObjectFact(
            kind=one["kind"],
            api_version=one["apiVersion"],
            namespace="",
            name=one["metadata"]["name"],
            uid="",
            version=1,
            object=json.dumps(one).encode(),
        )
        changes = facts.apply(fact, 0)
        state.put_pools({name: facts.pool_space(name) for name in changes.pools})

    def decide(pools: str, number: int) -> None:
        match decide_allocate(state, facts, _request(pools, number), 0, asked=False):
            case Accepted(events):
                for event in events:
                    state.evolve(event)
            case refused:
                raise RuntimeError(f"not allocated: {refused}")

    taken: dict[str, list[float]] = {name: [] for name in _NAMES}
    for number in range(_ROUNDS):
        for name in _in_turn(number):
            taken[name].append(_timed(decide, name, number))
    return statistics.median(taken["bench"]) / statistics.median(taken["small"])


async def _over_the_bus(directory: Path) -> float:
    taken: dict[str, list[float]] = {name: [] for name in _NAMES}
    async with single(directory, ()) as stage:
        await publish_facts(stage.bus, (*POOLS, *_SMALL))
        stage.replicas.start("a1")
        await stage.cluster.leader()
        for number, name in itertools.chain.from_iterable(
            ((number, name) for name in _in_turn(number)) for number in range(_ROUNDS)
        ):
            payload = encode(_request(name, number))
            start_s = time.perf_counter()
            message = await stage.bus.request(subjects.allocate("n1"), payload, timeout_s=10.0)
            taken[name].append(time.perf_counter() - start_s)
            reply = ALLOCATE_REPLY.decode(message.data)
            if not isinstance(reply, Allocated) or {grant.family for grant in reply.grants} != {4, 6}:
                raise RuntimeError(f"not allocated: {reply}")
    return statistics.median(taken["bench"]) / statistics.median(taken["small"])


def _in_turn(number: int) -> tuple[str, ...]:
    return _NAMES if number % 2 else _NAMES[::-1]


def _timed(work: Callable[[str, int], None], name: str, number: int) -> float:
    start_s = time.perf_counter()
    work(name, number)
    return time.perf_counter() - start_s
