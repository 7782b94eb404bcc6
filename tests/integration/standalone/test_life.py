"""Up, down, killed and up again: nothing of a system is left, and the next one is the same from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.standalone.process import await_gone, mark_of
from services.standalone.state import read_credentials
from tests.integration.standalone.conftest import Commands, alive, assert_up

GONE_S = 10.0


@pytest.fixture
def node_netns() -> Iterator[str]:
    name = f"orbtest-node-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def mounts_below(directory: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]


def test_down_leaves_no_process_and_up_again_keeps_ports_and_passwords(commands: Commands) -> None:
    assert_up(commands.up("--node", "n1"))
    first, credentials, marks = commands.system, read_credentials(commands.state), commands.marks()
    done = commands.run("down")
    assert done.returncode == 0 and "stopped" in done.stdout and "agent-n1" in done.stdout
    assert alive(marks) == [] and mounts_below(commands.state) == []
    again = commands.run("down")
    assert again.returncode == 0 and "nothing runs" in again.stdout
    stopped = commands.run("status", "-o", "json")
    assert stopped.returncode == 1 and '"ready": false' in stopped.stdout

    assert_up(commands.up("--node", "n1"))
    assert commands.system.ports == first.ports
    assert read_credentials(commands.state) == credentials


def test_a_killed_supervisor_leaves_nothing_that_hinders_the_next(commands: Commands) -> None:
    assert_up(commands.up("--node", "n1"))
    marks, ports = commands.marks(), commands.system.ports
    os.kill(marks[0].pid, signal.SIGKILL)
    assert await_gone(marks, GONE_S) == ()
    assert commands.status()["ready"] is False

    done = commands.up("--node", "n1")
    assert_up(done)
    assert f"process {marks[0].pid}" in done.stdout
    assert commands.system.ports == ports
    assert commands.status()["ready"] is True


def test_a_killed_service_is_back_soon(commands: Commands) -> None:
    assert_up(commands.up("--node", "n1"))
    killed = {entry.instance: entry.mark for entry in commands.system.services}
    for mark in killed.values():
        assert mark is not None
        os.kill(mark.pid, signal.SIGKILL)
    deadline = time.monotonic() + 40
    while not (status := commands.status())["ready"]:
        assert time.monotonic() < deadline, status["reasons"]
        time.sleep(0.2)
    assert [service["restarts"] for service in status["services"]] == [1] * len(killed)


def test_two_systems_run_side_by_side(commands_for: Callable[[str], Commands], node_netns: str) -> None:
    one, other = commands_for("one"), commands_for("other")
    assert_up(one.up("--node", "n1"))
    assert_up(other.up("--node", f"n1={node_netns}", "--node", "n2.rack=/proc/self/ns/net"))
    assert one.status()["ready"] and other.status()["ready"]
    assert {entry.instance for entry in other.system.services} >= {"agent-n1", "agent-n2=2Erack"}
    marks = one.marks()
    assert one.run("down").returncode == 0
    assert alive(marks) == [] and other.status()["ready"]


def test_nodes_may_come_and_go_between_two_starts(commands: Commands, node_netns: str) -> None:
    assert_up(commands.up("--node", "n1"))
    first, credentials = commands.system, read_credentials(commands.state)
    assert commands.run("down").returncode == 0
    assert_up(commands.up("--node", f"n2={node_netns}", "--node", "n1"))
    second, both = commands.system, read_credentials(commands.state)
    assert credentials is not None and both is not None
    assert second.ports.nodes["n1"] == first.ports.nodes["n1"] and set(second.ports.nodes) == {"n1", "n2"}
    assert both.nodes["n1"] == credentials.nodes["n1"] and both.hub == credentials.hub


def test_ports_that_somebody_took_meanwhile_are_chosen_anew(commands: Commands) -> None:
    assert_up(commands.up("--node", "n1"))
    first = commands.system.ports
    assert commands.run("down").returncode == 0
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first.hub))
        taken.listen()
        assert_up(commands.up("--node", "n1"))
        second = commands.system.ports
        assert second.hub != first.hub and second.webhook_https == first.webhook_https
        assert commands.status()["ready"]


def test_settings_that_a_service_refuses_end_the_start_with_its_log(commands: Commands) -> None:
    """The installation namespace, say: here the webhook's certificates cannot be where they should."""
    commands.state.mkdir(mode=0o700)
    (commands.state / "ca").mkdir(mode=0o700)
    (commands.state / "ca" / "ca.crt").mkdir()
    done = commands.up("--node", "n1")
    assert done.returncode == 1
    assert "the system did not become ready" in done.stderr and "webhook-0" in done.stderr
    assert "log" in done.stderr
    assert "nothing runs" in commands.run("down").stdout


def test_in_the_foreground_it_shows_progress_and_stops_on_ctrl_c(commands: Commands) -> None:
    words = ["up", "--manifests", str(commands.manifests), "--state", str(commands.state), "--node", "n1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "services.cli", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("ready"):
                break
        assert any(line.startswith("waiting for") for line in lines)
        marks = commands.marks()
        assert marks[0] == mark_of(process.pid)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
    assert alive(marks) == []


def test_purge_removes_the_state_directory_of_a_system_only(commands: Commands, tmp_path: Path) -> None:
    assert_up(commands.up("--node", "n1"))
    marks = commands.marks()
    os.kill(marks[0].pid, signal.SIGKILL)
    await_gone(marks, GONE_S)
    assert commands.run("down", "--purge").returncode == 0
    assert not commands.state.exists()

    precious = Commands(tmp_path / "precious", commands.manifests)
    precious.state.mkdir()
    (precious.state / "thesis.txt").write_text("do not lose")
    done = precious.run("down", "--purge")
    assert done.returncode == 1 and "holds no system" in done.stderr
    assert (precious.state / "thesis.txt").exists()
