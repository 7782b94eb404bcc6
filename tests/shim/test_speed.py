"""The whole of a call, from exec to exit, costs less than starting an interpreter that does nothing.

Relative, interleaved, medians: a shared machine gives no milliseconds to rely on. Figures are in cni/README.md.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path

import pytest

from tests.shim.conftest import Agent, Installed, Server

RUNS = 40


def once_ms(command: list[str]) -> float:
    null = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
    ]
    began_ns = time.monotonic_ns()
    child = os.posix_spawn(command[0], command, {"CNI_COMMAND": "ADD"}, file_actions=null)
    _, status = os.waitpid(child, 0)
    assert status == 0
    return (time.monotonic_ns() - began_ns) / 1e6


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no compiler: the launcher alone is tested")
def test_a_whole_call_is_faster_than_an_empty_interpreter(
    tmp_path: Path, server: Server, agent: Agent
) -> None:
    commands = {
        "shim": [str(Installed(tmp_path / "bin", server.address).directory / "orbweaver")],
        "python": ["/usr/bin/python3", "-I", "-S", "-c", "pass"],
    }
    took_ms: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            took_ms[name].append(once_ms(command))
    medians_ms = {name: statistics.median(times) for name, times in took_ms.items()}
    assert medians_ms["shim"] < medians_ms["python"], medians_ms
