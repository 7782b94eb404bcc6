"""Processes that hang: what the command says, and that it waits out a change of leaders."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.cli.stage import Attached, Stage


@contextmanager
def stopped(stage: Stage, instance: str) -> Iterator[None]:
    """The process does not run, but is there: the kernel keeps its connections."""
    pid = next(s["pid"] for s in stage.json("status")["services"] if s["instance"] == instance)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_silent_agent_is_named_and_the_rest_is_shown(stage: Stage, attached: list[Attached]) -> None:
    with stopped(stage, "agent-n2"):
        listed = stage.cli("get", "attachments", "-o", "json")
        assert listed.returncode == 1
        assert [item["podName"] for item in json.loads(listed.stdout)["items"]] == ["web-1"]
        assert listed.stderr == "the agent of n2 does not answer: its attachments are not shown\n"
        assert {lease["podName"] for lease in stage.items("leases")} == {"web-1", "web-2"}
        status = stage.cli("status")
        assert status.returncode == 1
        assert status.stdout.startswith("not ready: agent-n2")


def test_the_command_waits_while_leadership_changes_hands(stage: Stage, attached: list[Attached]) -> None:
    services = stage.json("status")["services"]
    leader = next(s["instance"] for s in services if s["facts"].get("role") == "leader")
    with stopped(stage, leader):
        assert {lease["podName"] for lease in stage.items("leases")} == {"web-1", "web-2"}
        assert stage.json("explain", "pod", "prod/web-1")["error"] == ""
        stage.done("sync")
    deadline = time.monotonic() + 20
    # The one that hung may lead again, but never both.
    while roles(stage) != ["leader", "standby"]:
        assert time.monotonic() < deadline, roles(stage)
        time.sleep(0.2)


def roles(stage: Stage) -> list[str]:
    services = json.loads(stage.cli("status", "-o", "json").stdout)["services"]
    return sorted(s["facts"].get("role", "silent") for s in services if s["service"] == "allocator")
