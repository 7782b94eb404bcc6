"""The main job, as `make demo` runs it: after a run that was killed in its middle, and with nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from services.standalone import demo_netns, demo_system
from services.standalone.demo_stage import PLACE

_COMMAND = [sys.executable, "-m", "services.cli", "demo"]
_KEYS = [
    "pods",
    "attached",
    "reachable_pairs",
    "of_pairs",
    "add_p50_ms",
    "add_p99_ms",
    "del_p50_ms",
    "leaks",
    "ok",
]


def _killed_in_its_middle(log: Path) -> None:
    """Starts a demo and kills it by SIGKILL once pods are attached."""
    with log.open("wb") as out:
        child = subprocess.Popen(_COMMAND, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 90.0
    while "every pod attached" not in log.read_text():
        assert child.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def _nothing_left() -> None:
    """No namespace and no process: looked at with the place in hand, for another demo may have waited for it and begun."""
    with PLACE.held(lambda: None) as left:
        assert left == 0


def test_the_main_job_after_a_killed_one(tmp_path: Path) -> None:
    _killed_in_its_middle(tmp_path / "first.log")
    deadline = time.monotonic() + 5.0
    while demo_system.marked(PLACE.root):
        assert time.monotonic() < deadline, "the kernel ends every process of a killed demo"
        time.sleep(0.05)
    assert demo_netns.named(PLACE.prefix), "a killed run cannot take its namespaces away"

    done = subprocess.run(
        _COMMAND, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = done.stdout.splitlines()
    summary = json.loads(last)
    assert list(summary) == _KEYS
    assert summary["pods"] == summary["attached"] == 20
    assert summary["reachable_pairs"] == summary["of_pairs"] == 20 * 19 * 2
    assert (summary["leaks"], summary["ok"]) == (0, True)
    assert 0 < summary["add_p50_ms"] <= summary["add_p99_ms"]
    _nothing_left()


_FORGETFUL = """\
import sys
from services.standalone import demo, demo_stage
detach = demo_stage.Stage.detach
def forgets(stage, pod, **more):
    if pod.name != "web-07":
        detach(stage, pod, **more)
demo_stage.Stage.detach = forgets
demo._RELEASE_TIMEOUT_S = 2.0
sys.exit(demo.run())
"""


def test_what_is_left_is_seen_and_still_removed() -> None:
    """A runtime that forgets the DEL of one pod: leases, attachment and link are counted, and the demo fails."""
    done = subprocess.run(
        [sys.executable, "-c", _FORGETFUL],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["leaks"], summary["ok"]) == (4, False), done.stdout
    for what in ("lease 172.28.", "lease fd00:28:", "attachment ", "link eth0 in web-07"):
        assert f"left behind: {what}" in done.stdout
    _nothing_left()
