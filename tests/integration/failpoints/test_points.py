"""Every failpoint is hit while a hundred pods are attached, or detached, at once: nothing is lost, nothing is given twice.

Plainly run, each point kills once, several services in the same storm. With FAILPOINTS=all (`make test-failpoints`) each is also
taken alone, on both nodes or replicas, at its first pass and in the middle.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec
import pytest

from shared.failpoint import POINTS, parse
from tests.integration.failpoints.stage import ALLOCATORS, NODES, Lives, Stage, agent

ALL = os.environ.get("FAILPOINTS") == "all"
N1, N2 = (agent(node) for node in NODES)
CONTROLLER = "controller-0"


class Storm(msgspec.Struct, frozen=True, kw_only=True):
    """Who dies where in one attach or detach of all pods. Not `known`: the controller may learn of a change meanwhile."""

    arms: Mapping[str, Lives] = {}
    known: bool = True


class Round(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    add: Storm = Storm()
    end: Storm = Storm()


def allocators(*lives: str) -> dict[str, Lives]:
    """Both replicas: the second dies where the first did."""
    return dict.fromkeys(ALLOCATORS, lives)


TOGETHER = (
    Round(
        name="call",
        add=Storm(arms={N1: ("agent.call.taken:20",), N2: ("agent.intent.journaled:20",)}),
        end=Storm(
            arms={N1: ("agent.journal.releasing:20", "agent.repair"), N2: ("agent.kernel.link.delete:20",)}
        ),
    ),
    Round(
        name="allocate",
        add=Storm(
            arms={
                N1: ("agent.allocate.asked:30",),
                N2: ("agent.allocate.answered:30",),
                **allocators("allocator.decided:25", "allocator.term.start"),
            }
        ),
        end=Storm(arms={N1: ("agent.kernel.detached:20",), N2: ("agent.release.publish:20",)}),
    ),
    Round(
        name="kernel",
        add=Storm(
            arms={
                N1: ("agent.kernel.netns.open:25", "agent.repair"),
                N2: ("agent.kernel.link.create:25",),
                **allocators("allocator.append:3", "allocator.term.started"),
            }
        ),
        end=Storm(arms={N1: ("agent.release.published:20",), N2: ("agent.journal.dropped:20",)}),
    ),
    Round(
        name="addresses",
        add=Storm(
            arms={
                N1: ("agent.kernel.ipv6.switch:10", "agent.journal.renamed"),
                N2: ("agent.kernel.address.batch:25",),
                **allocators("allocator.append.acked:3", "allocator.mark.write"),
            }
        ),
        end=Storm(
            arms={
                N1: ("agent.reply:20", "agent.journal.rewrite"),
                **allocators("allocator.release.ack:20"),
            }
        ),
    ),
    Round(
        name="journal",
        add=Storm(
            arms={
                N1: ("agent.kernel.announce:25",),
                N2: ("agent.kernel.undo:3",),
                **allocators("allocator.snapshot.chunk", "allocator.mark.written"),
                CONTROLLER: ("controller.fact.publish:30", "controller.synced"),
            },
            known=False,
        ),
        end=Storm(arms={N1: ("agent.journal.synced:3",), **allocators("allocator.append.acked:2")}),
    ),
    Round(
        name="answer",
        add=Storm(
            arms={
                N1: ("agent.journal.completed:20",),
                N2: ("agent.reply:20",),
                **allocators("allocator.reply:25", "allocator.snapshot.manifest"),
            }
        ),
        end=Storm(
            arms={N2: ("agent.journal.write:3",), CONTROLLER: ("controller.fact.published:30",)}, known=False
        ),
    ),
)
LOST = Round(
    name="lost",
    add=Storm(
        arms={
            N1: (
                "agent.call.taken:3:drop,agent.allocate.asked:5:drop,agent.allocate.answered:7:drop,agent.reply:9:drop",
            ),
            N2: ("agent.intent.journaled:10:delay=2500ms",),
            **allocators("allocator.reply:4:drop,allocator.append:2:drop,allocator.append:4:delay=1500ms"),
        }
    ),
    end=Storm(
        arms={
            N1: ("agent.call.taken:3:drop,agent.reply:5:drop,agent.release.publish:4:drop",),
            **allocators("allocator.release.ack:3:drop"),
            CONTROLLER: ("controller.fact.publish:30:drop",),
        },
        known=False,
    ),
)
MIDDLE = 20
MOST = {
    "agent.kernel.ipv6.switch": 10,
    "agent.kernel.undo": 3,
    "agent.repair": 3,
    "agent.journal.write": 3,
    "agent.journal.synced": 3,
    "allocator.append": 3,
    "allocator.append.acked": 3,
}
"""Where the middle comes earlier: few pass, or many pass together."""
FOLLOWED = {
    "agent.repair": "agent.intent.journaled:20",
    "agent.journal.rewrite": "agent.kernel.announce:20",
    "agent.journal.renamed": "agent.kernel.announce:20",
    "allocator.term.start": "allocator.decided:20",
    "allocator.term.started": "allocator.decided:20",
    "allocator.mark.write": "allocator.decided:20",
    "allocator.mark.written": "allocator.decided:20",
    "controller.synced": "controller.fact.publish:20",
}
"""Points of a start, and where the process before it dies: these are passed once a life."""
OF_DETACH = {
    "agent.journal.releasing",
    "agent.kernel.link.delete",
    "agent.kernel.detached",
    "agent.release.publish",
    "agent.release.published",
    "agent.journal.dropped",
    "allocator.release.ack",
}


def alone(name: str, n: int) -> Round:
    service = name.partition(".")[0]
    first = FOLLOWED.get(name)
    lives = (first, f"{name}:{n}") if first is not None else (f"{name}:{n}",)
    instances = {"agent": (N1, N2), "allocator": ALLOCATORS, "controller": (CONTROLLER,)}[service]
    storm = Storm(arms=dict.fromkeys(instances, lives), known=service != "controller")
    return Round(name=f"{name}:{n}", **{"end" if name in OF_DETACH else "add": storm})


def passes(name: str) -> tuple[int, ...]:
    once = name in FOLLOWED or name.startswith("allocator.snapshot.")
    middle = MOST.get(name, 1 if once else MIDDLE)
    return (1,) if middle == 1 else (1, middle)


OF_LOSS = {name for name in POINTS if name.startswith("allocator.rebuild.")}
"""Passed where the store is lost: tests/integration/loss/test_rebuild.py."""
ALONE = tuple(alone(name, n) for name in POINTS if name not in OF_LOSS for n in passes(name)) if ALL else ()


def test_each_point_kills_once_in_the_plain_run() -> None:
    named = {
        armed.name
        for round_ in TOGETHER
        for storm in (round_.add, round_.end)
        for lives in storm.arms.values()
        for text in lives
        for armed in parse(text)
    }
    assert named | OF_LOSS == set(POINTS)


@pytest.mark.parametrize("played", (*TOGETHER, LOST, *ALONE), ids=lambda played: played.name)
def test_nothing_is_lost_and_nothing_twice(stage: Stage, played: Round) -> None:
    with stage.armed(played.add.arms):
        stage.new_pods(synced=played.add.known)
        stage.attach_all()
    with stage.armed(played.end.arms):
        stage.delete_pods(synced=played.end.known)
        stage.detach_all()
