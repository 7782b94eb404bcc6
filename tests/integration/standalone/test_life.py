"""Up, down, killed and up again: nothing of a system is left, and the next one is the same from outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.standalone import demo_exec
from services.standalone.process import await_gone, mark_of
from services.standalone.state import read_credentials
from tests.integration.standalone.conftest import Commands, alive, assert_up

GONE_S = 10.0
NETWORK = {
    "cniVersion": "1.1.0",
    "name": "underlay",
    "type": "orbweaver",
    "cniType": "macvlan",
    "master": ["eth1"],
}


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


class Calls:
    """A runtime's calls of an installed shim, many under way at once."""

    def __init__(self, plugins: Path, netns: str) -> None:
        self._plugin = plugins / "orbweaver"
        self._netns = f"/run/netns/{netns}"
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def begin(self, verb: str, container_id: str) -> None:
        """The interface has the container's name: all are in one namespace."""
        shim = subprocess.Popen(
            [str(self._plugin)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=demo_exec.environment(
                verb, container_id=container_id, netns=self._netns, ifname=container_id
            ),
        )
        assert shim.stdin is not None
        shim.stdin.write(json.dumps(NETWORK).encode())
        shim.stdin.close()
        self._running.append((f"{verb} {container_id}", shim))

    def ends(self) -> dict[str, tuple[int, bytes]]:
        ended: dict[str, tuple[int, bytes]] = {}
        for call, shim in self._running:
            assert shim.stdout is not None
            with shim.stdout:
                said = shim.stdout.read()
            ended[call] = (shim.wait(70), said)
        self._running.clear()
        return ended


def test_calls_during_down_and_up_come_through(commands: Commands, node_netns: str, tmp_path: Path) -> None:
    """Also where the shims enter a namespace that `down` unmounts and `up` mounts again."""
    make_parent = ["ip", "-n", node_netns, "link", "add", "eth1", "up", "type", "veth", "peer", "eth2"]
    subprocess.run(make_parent, check=True)
    pod = f"{node_netns}-pod"
    subprocess.run(["ip", "netns", "add", pod], check=True)
    try:
        assert_up(commands.up("--node", f"n1={node_netns}"))
        assert commands.run("cni", "install", "--node", "n1", "--dir", str(tmp_path / "bin")).returncode == 0
        calls = Calls(tmp_path / "bin", pod)
        for number in range(4):
            calls.begin("ADD", f"a{number}")
        ended = calls.ends()
        assert {code for code, _ in ended.values()} == {0}, ended

        down = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "down", "--state", str(commands.state)],
            stdout=subprocess.DEVNULL,
        )
        number = 0
        while down.poll() is None:
            calls.begin("DEL", f"a{number % 3}")
            calls.begin("ADD", f"b{number}")
            number += 1
            time.sleep(0.2)
        assert down.returncode == 0
        status = subprocess.run(
            [str(tmp_path / "bin" / "orbweaver")],
            input=json.dumps(NETWORK).encode(),
            stdout=subprocess.PIPE,
            env=demo_exec.environment("STATUS"),
            check=False,
        )
        assert json.loads(status.stdout)["code"] == 50, status.stdout
        calls.begin("DEL", "a3")
        calls.begin("ADD", "c0")
        assert_up(commands.up("--node", f"n1={node_netns}"))
        ended = calls.ends()
        assert {code for code, _ in ended.values()} == {0}, ended
        assert number > 1 and {"ADD b0", "ADD c0", "DEL a3"} <= set(ended)
    finally:
        subprocess.run(["ip", "netns", "del", pod], check=True)


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
