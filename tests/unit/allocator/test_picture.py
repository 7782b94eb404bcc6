"""What comes out of a picture is what was there when it was begun, whatever the state takes meanwhile."""

from __future__ import annotations

import random

import msgspec
import pytest

from services.allocator import picture as module
from services.allocator.picture import Picture
from services.allocator.snapshot import cutting, join
from services.allocator.state import State
from shared import limits
from shared.contracts.lease import (
    AttachConfirmed,
    AttachmentDetached,
    LeaseEvent,
    LeaseItem,
    LeasesAdopted,
    LeasesAllocated,
    LeasesInherited,
    LeasesRebound,
    LeasesReleased,
)
from tests.support.pure_allocator import World, pool


def told(state: State) -> object:
    snapshot = state.snapshot()
    snapshot.holdings.sort(key=lambda holding: holding.owner)
    return msgspec.to_builtins(snapshot)


def change(chance: random.Random, state: State, number: int) -> LeaseEvent:
    owner = chance.choice(sorted(state.holdings))
    holding = state.holdings[owner]
    item = LeaseItem(ifname="net1", address=f"10.9.{number // 250}.{number % 250}", pool="p9", prefix_len=16)
    held = holding.interfaces["eth0"]
    generation = state.generation + 1
    return chance.choice(
        (
            LeasesReleased(owner=owner, ifnames=tuple(holding.interfaces), reason="DEL"),
            AttachmentDetached(owner=owner, ifname="eth0", generation=held.generation, rest_until_ns=number),
            AttachConfirmed(
                owner=owner,
                container_id=holding.container_id,
                ifname="eth0",
                attempt=f"again-{number}",
                generation=generation,
            ),
            LeasesRebound(
                owner=owner,
                node="n9",
                container_id=f"c-{number}",
                attempt=f"re-{number}",
                generation=generation,
                attached=("eth0",),
            ),
            LeasesInherited(
                owner=owner,
                heir=f"heir-{number}",
                node="n8",
                container_id=f"h-{number}",
                attempt=f"in-{number}",
                generation=generation,
                attached=("eth0",),
            ),
            LeasesAdopted(
                owner=owner,
                generation=generation,
                items=(item,),
                pod_namespace=holding.namespace,
                pod_name=holding.name,
            ),
            LeasesAllocated(
                owner=owner,
                node=holding.node,
                container_id=holding.container_id,
                attempt=holding.attempt,
                generation=generation,
                items=(msgspec.structs.replace(item, ifname="net2"),),
                attached=("net2",),
            ),
        )
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_picture_is_of_its_moment(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_HOLDINGS", 3)
    monkeypatch.setattr(limits, "CHUNK_BYTES", 1000)
    chance = random.Random(seed)
    world = World(pool("p4", "10.6.0.0/24", "10.6.0.10-10.6.0.200", default=True))
    for number in range(60):
        world.add(container=f"c{number}")
    state = world.state
    before = told(state)
    picture = Picture(state.snapshot())
    assert told(state) == before
    chunks: list[bytes] = []
    steps = cutting(picture)
    number = 0
    while True:
        try:
            chunk = next(steps)
        except StopIteration as done:
            manifest = done.value
            break
        if chunk is not None:
            chunks.append(chunk)
        for _ in range(chance.randrange(4)):
            number += 1
            event = change(chance, state, number)
            picture.before(event)
            state.evolve(event)
    assert number > 10
    assert told(state) != before
    assert told(State.from_snapshot(join(manifest, chunks))) == before
