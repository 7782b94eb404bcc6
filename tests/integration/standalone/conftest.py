"""Systems brought up by the `orbweaver` command, as a user does it, and taken down again whatever a test did."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.standalone.app import down
from services.standalone.process import is_alive
from services.standalone.state import read_system
from services.standalone.system import ProcessMark, SystemFile

MANIFESTS = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: pool-v4}
spec:
  subnet: 10.77.0.0/24
  ips: [10.77.0.10-10.77.0.90]
  gateway: 10.77.0.1
  default: true
"""


class Commands:
    """The command line for one state directory."""

    def __init__(self, state: Path, manifests: Path) -> None:
        self.state = state
        self.manifests = manifests

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "services.cli", *words, "--state", str(self.state)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def up(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--manifests", str(self.manifests), "--detach", *words)

    def status(self) -> dict[str, Any]:
        return json.loads(self.run("status", "-o", "json").stdout)

    @property
    def system(self) -> SystemFile:
        found = read_system(self.state)
        assert found is not None
        return found

    def marks(self) -> list[ProcessMark]:
        """All processes of the system, the supervisor first."""
        system = self.system
        assert system.supervisor is not None
        return [system.supervisor, *(entry.mark for entry in system.services if entry.mark is not None)]


def assert_up(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture
def commands_for(tmp_path: Path) -> Iterator[Callable[[str], Commands]]:
    """Makes the commands of a system by name; all are taken down at the end."""
    made: list[Commands] = []

    def make(name: str) -> Commands:
        manifests = tmp_path / f"{name}-manifests"
        manifests.mkdir()
        (manifests / "pool.yaml").write_text(MANIFESTS)
        made.append(Commands(tmp_path / name, manifests))
        return made[-1]

    yield make
    for commands in made:
        if commands.state.exists():
            down(commands.state, lambda _: None)


@pytest.fixture
def commands(commands_for: Callable[[str], Commands]) -> Commands:
    return commands_for("state")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """One system that is up for a whole module: tests only look at it."""
    root = tmp_path_factory.mktemp("standalone")
    manifests = root / "manifests"
    manifests.mkdir()
    (manifests / "pool.yaml").write_text(MANIFESTS)
    commands = Commands(root / "state", manifests)
    try:
        assert_up(commands.up("--node", "n1"))
        yield commands
    finally:
        down(commands.state, lambda _: None)


def alive(marks: list[ProcessMark]) -> list[ProcessMark]:
    return [mark for mark in marks if is_alive(mark)]
