"""Kill -9, SIGSTOP and a cut of everything at once, in the middle of a hundred attaches and of a hundred detaches."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from services.standalone.assembly import HUB, leaf_instance
from tests.integration.failpoints.stage import ALLOCATORS, NODES, Stage, agent

STALLED_S = 3.0
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


def hub_hangs(stage: Stage) -> None:
    stage.stall(HUB, STALLED_S)


def leader_hangs(stage: Stage) -> None:
    stage.stall(stage.leader, STALLED_S)


@pytest.mark.parametrize(
    "strike",
    (leading_allocator, all_allocators, agents, hub, leaf, everything, agent_hangs, hub_hangs, leader_hangs),
    ids=lambda strike: strike.__name__,
)
def test_nothing_is_lost_and_nothing_twice(stage: Stage, strike: Callable[[Stage], None]) -> None:
    stage.new_pods()
    stage.attach_all(lambda: strike(stage))
    stage.delete_pods()
    stage.detach_all(lambda: strike(stage))


def test_an_agent_that_hangs_for_good_is_killed_and_its_calls_end(stage: Stage) -> None:
    def hang_then_die() -> None:
        stage.kill(agent(NODES[0]), signal.SIGSTOP)
        stage.kill(agent(NODES[0]), signal.SIGKILL)

    stage.new_pods()
    stage.attach_all(hang_then_die)
    stage.delete_pods()
    stage.detach_all(hang_then_die)


def test_in_the_end_the_system_finds_nothing_wrong_with_itself(stage: Stage) -> None:
    stage.new_pods()
    stage.attach_all()
    stage.doctor()
    stage.delete_pods()
    stage.detach_all()
    stage.doctor()
