"""Bugs planted in the product, one function each: within a few seeds the checker must see each of them.

A checker that finds nothing proves nothing before it has found what is known to be wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from services.allocator import decide, watch
from services.allocator.facts import Facts
from services.allocator.hearing import Hearing
from services.allocator.leader import Leader
from services.allocator.log import LeaseLog
from services.allocator.picture import Picture
from services.allocator.recovery import Recovery
from services.allocator.state import Holding, Snapshot, State
from shared.bus import BusError
from shared.contracts.codec import encode
from shared.contracts.ipam import Allocate, Release
from shared.contracts.lease import (
    AttachConfirmed,
    LeaseEvent,
    LeaseItem,
    LeasesAllocated,
    LeasesRebound,
    Record,
    digest,
)
from shared.selection.rule import Refusal
from tests.simulation import cluster, fault
from tests.simulation.cluster import run
from tests.simulation.quiet import quiet

SEEDS_MAX = 60
Plant = Callable[[], AbstractContextManager[object]]


def no_fence() -> AbstractContextManager[object]:
    async def append(self: LeaseLog, events: tuple[LeaseEvent, ...], at_ns: int) -> Record:
        record = Record(
            incarnation=self.incarnation, term=self.term, at_ns=at_ns, previous=self.digest, events=events
        )
        while True:
            try:
                self.sequence = await self._bus.append(self._subject, encode(record), timeout_s=2.0)
                break
            except BusError:
                await asyncio.sleep(0.05)
        self.digest = digest(encode(record))
        return record

    return patch.object(LeaseLog, "append", append)


def reply_before_ack() -> AbstractContextManager[object]:
    real = LeaseLog.append

    async def append(self: LeaseLog, events: tuple[LeaseEvent, ...], at_ns: int) -> Record:
        behind = LeaseLog(self._bus, self.incarnation, self.term, self.sequence, self.digest)
        behind._subject_sequence = self._subject_sequence
        task = asyncio.create_task(real(behind, events, at_ns))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        record = Record(
            incarnation=self.incarnation, term=self.term, at_ns=at_ns, previous=self.digest, events=events
        )
        self.sequence = self._subject_sequence = self.sequence + 1
        self.digest = digest(encode(record))
        return record

    return patch.object(LeaseLog, "append", append)


def release_without_generation() -> AbstractContextManager[object]:
    def named(holding: Holding, command: Release) -> tuple[str, ...]:
        return (command.ifname,) if command.ifname in holding.interfaces else ()

    return patch.object(decide, "_named", named)


Decision = decide.Accepted | decide.Rejected | decide.AskFacts


def _decided(
    change: Callable[[State, Facts, Allocate, decide.Accepted], decide.Accepted],
) -> AbstractContextManager[object]:
    real = decide.decide_allocate

    def decided(state: State, facts: Facts, command: Allocate, now_ns: int, *, asked: bool) -> Decision:
        decision = real(state, facts, command, now_ns, asked=asked)
        return change(state, facts, command, decision) if isinstance(decision, decide.Accepted) else decision

    return patch.object(decide, "decide_allocate", decided)


def no_rebind() -> AbstractContextManager[object]:
    def change(_s: State, _f: Facts, _c: Allocate, decision: decide.Accepted) -> decide.Accepted:
        kept = tuple(event for event in decision.events if not isinstance(event, LeasesRebound))
        return decide.Accepted(kept, decision.owner)

    return _decided(change)


def retry_drains() -> AbstractContextManager[object]:
    def change(state: State, facts: Facts, command: Allocate, decision: decide.Accepted) -> decide.Accepted:
        if not any(isinstance(event, AttachConfirmed) for event in decision.events):
            return decision
        fresh = msgspec.structs.replace(
            command, pod_namespace="", container_id=f"again-{command.attempt}", attempt="again"
        )
        more = _real_allocate(state, facts, fresh, 0, asked=True)
        if not isinstance(more, decide.Accepted):
            return decision
        events = tuple(
            msgspec.structs.replace(
                event, owner=decision.owner, container_id=command.container_id, attempt=command.attempt
            )
            for event in more.events
            if isinstance(event, LeasesAllocated)
        )
        return decide.Accepted((*decision.events, *events), decision.owner)

    return _decided(change)


_real_allocate = decide.decide_allocate


def collection_on_empty_facts() -> AbstractContextManager[object]:
    always = property(lambda _: True, lambda _, __: None)
    stack = ExitStack()
    stack.enter_context(patch.object(Facts, "synced", always, create=True))
    stack.enter_context(patch.object(Leader, "_facts_are_whole", always, create=True))
    return stack


def snapshot_off_by_one() -> AbstractContextManager[object]:
    """It stands for a record whose leases it has not: the newest."""
    real = Picture.__init__

    def made(self: Picture, snapshot: Snapshot, holdings: dict[str, Holding] | None = None) -> None:
        whole = holdings or {holding.owner: holding for holding in snapshot.holdings}
        newest = max((held.generation for h in whole.values() for held in h.interfaces.values()), default=0)
        snapshot.holdings = [
            h for h in whole.values() if all(held.generation < newest for held in h.interfaces.values())
        ]
        real(self, snapshot)

    return patch.object(Picture, "__init__", made)


def attach_overtakes_detach() -> AbstractContextManager[object]:
    real = decide._confirmed

    def confirmed(*arguments: object) -> AttachConfirmed:
        return msgspec.structs.replace(real(*arguments), generation=0)  # type: ignore[arg-type]

    return patch.object(decide, "_confirmed", confirmed)


def two_families_half_done() -> AbstractContextManager[object]:
    real = decide._pick

    def pick(*arguments: object) -> tuple[LeaseItem, ...] | Refusal:
        picked = real(*arguments)  # type: ignore[arg-type]
        if isinstance(picked, Refusal):
            return picked
        return tuple(i for i in picked if ":" not in i.address or not i.address.endswith("7"))

    return patch.object(decide, "_pick", pick)


def rebuild_without_one_node() -> AbstractContextManager[object]:
    real_hear, real_expected = Recovery.hear, Recovery._expected

    def hear(self: Recovery, testimony: watch.Testimony) -> None:
        if testimony.claims.node != "n1":
            real_hear(self, testimony)

    def expected(self: Recovery, *rest: Any) -> frozenset[str]:
        return real_expected(self, *rest) - {"n1"}

    stack = ExitStack()
    stack.enter_context(patch.object(cluster, "LOSING", 1.0))
    stack.enter_context(patch.object(fault, "LOG_LOST", 20))
    stack.enter_context(patch.object(Recovery, "hear", hear))
    stack.enter_context(patch.object(Recovery, "_expected", expected))
    return stack


def term_leaves_its_ear() -> AbstractContextManager[object]:
    def stop(_: Hearing) -> None:
        pass

    async def close(_: Hearing) -> None:
        pass

    stack = ExitStack()
    stack.enter_context(patch.object(Hearing, "stop", stop))
    stack.enter_context(patch.object(Hearing, "close", close))
    return stack


@pytest.mark.parametrize(
    "plant",
    [
        no_fence,
        reply_before_ack,
        release_without_generation,
        no_rebind,
        collection_on_empty_facts,
        snapshot_off_by_one,
        retry_drains,
        attach_overtakes_detach,
        two_families_half_done,
        rebuild_without_one_node,
        term_leaves_its_ear,
    ],
)
def test_a_planted_bug_is_seen(plant: Plant) -> None:
    with quiet(), plant():
        for seed in range(1, SEEDS_MAX + 1):
            outcome = run(seed)
            if outcome.violations:
                print(f"{plant.__name__}: seed {seed}: {outcome.violations[0]}")
                return
    pytest.fail(f"{SEEDS_MAX} seeds saw nothing")
