"""Kill -9, SIGSTOP and a cut of everything at once, in the middle of a hundred attaches and of a hundred detaches.

Plainly run, each strikes once; with FAILPOINTS=all (`make test-failpoints`) in both.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from services.standalone.assembly import HUB, leaf_instance
from tests.integration.failpoints.stage import ALLOCATORS, NODES, Stage, agent

Strike = Callable[[Stage], None]
STALLED_S = 2.5
"""Longer than a leader's term, and than the shim waits before it asks again."""


def leading_allocator(stage: Stage) -> None:
    stage.kill(stage.leader)


def all_allocators(stage: Stage) -> None:
    for instance in ALLOCATORS:
        stage.kill(instance)


def agents(stage: Stage) -> None:
    for node in NODES:
        stage.kill(agent(node))


def hub(stage: Stage) -> None:
    stage.kill(HUB)


def leaf(stage: Stage) -> None:
    stage.kill(leaf_instance(NODES[0]))


def everything(stage: Stage) -> None:
    """As a power cut, but for what the kernel keeps: the supervisor alone lives on."""
    for instance in (HUB, *map(leaf_instance, NODES), *ALLOCATORS, *map(agent, NODES), "controller-0"):
        stage.kill(instance)


def agent_hangs(stage: Stage) -> None:
    stage.stall(agent(NODES[0]), STALLED_S)


def agent_hangs_and_is_killed(stage: Stage) -> None:
    stage.kill(agent(NODES[0]), signal.SIGSTOP)
    stage.kill(agent(NODES[0]))


def hub_hangs(stage: Stage) -> None:
    stage.stall(HUB, STALLED_S)


def leader_hangs(stage: Stage) -> None:
    stage.stall(stage.leader, STALLED_S)


ALL = os.environ.get("FAILPOINTS") == "all"
STRIKES: tuple[tuple[Strike, Strike], ...] = (
    (leading_allocator, hub),
    (leaf, agent_hangs),
    (hub_hangs, everything),
)
"""What strikes in the attaches, and in the detaches."""
if ALL:
    STRIKES = tuple(
        (strike, strike)
        for strike in (
            leading_allocator,
            all_allocators,
            agents,
            agent_hangs,
            agent_hangs_and_is_killed,
            leader_hangs,
            hub,
            hub_hangs,
            leaf,
            everything,
        )
    )


@pytest.mark.parametrize(("first", "then"), STRIKES, ids=lambda strike: strike.__name__)
def test_nothing_is_lost_and_nothing_twice(stage: Stage, first: Strike, then: Strike) -> None:
    stage.new_pods()
    stage.attach_all(lambda: first(stage))
    stage.delete_pods()
    stage.detach_all(lambda: then(stage))


def test_the_doctor_finds_nothing_wrong_afterwards(stage: Stage) -> None:
    stage.new_pods()
    stage.attach_all()
    stage.doctor()
    stage.delete_pods()
    stage.detach_all()
