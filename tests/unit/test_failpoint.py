"""Failpoints: what the variable may say, what happens at a point, and that the table and the code name the same."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.failpoint import POINTS, VARIABLE, Armed, arm, hit, parse

ROOT = Path(__file__).parents[2]
HIT = re.compile(r'"((?:agent|allocator|controller)\.[a-z0-9.]+)"')


def run(text: str, code: str) -> subprocess.CompletedProcess[str]:
    whole = f"from shared.failpoint import arm, hit\narm({{{VARIABLE!r}: {text!r}}})\n{code}"
    return subprocess.run(
        [sys.executable, "-c", whole], capture_output=True, text=True, check=False, timeout=30, cwd=ROOT
    )


def test_the_table_and_the_code_name_the_same_points() -> None:
    texts = [path.read_text() for path in (ROOT / "services").rglob("*.py")]
    passing = [text for text in texts if "failpoint.hit(" in text]
    hits = {name for text in texts for name in re.findall(r'failpoint\.hit\("([^"]+)"\)', text)}
    assert hits <= set(POINTS), "points that no table has"
    named = {name for text in passing for name in HIT.findall(text)}
    assert set(POINTS) <= named, "points that nobody passes"


def test_unarmed_every_point_is_passed() -> None:
    arm({})
    assert not any(hit(name) for name in POINTS)


def test_a_pass_costs_next_to_nothing_unarmed() -> None:
    arm({})
    began = time.perf_counter()
    for _ in range(10_000):
        hit("agent.reply")
    # 0.04 ms for these on a quiet machine; an attach passes a score of points
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize(
    ("text", "armed"),
    (
        ("", ()),
        ("agent.reply", (Armed(name="agent.reply"),)),
        ("agent.reply:3", (Armed(name="agent.reply", n=3),)),
        ("agent.reply:drop", (Armed(name="agent.reply", action="drop"),)),
        ("agent.repair:2:delay=50ms", (Armed(name="agent.repair", n=2, action="delay", delay_ms=50),)),
        (
            "agent.reply:2:kill,allocator.append:drop",
            (Armed(name="agent.reply", n=2), Armed(name="allocator.append", action="drop")),
        ),
    ),
)
def test_what_the_variable_may_say(text: str, armed: tuple[Armed, ...]) -> None:
    assert parse(text) == armed


@pytest.mark.parametrize(
    "text",
    (
        "agent",
        "agent.reply:0",
        "agent.reply:x",
        "agent.reply:1:delay",
        "agent.reply:1:delay=5s",
        "Agent.reply",
    ),
)
def test_what_it_may_not_say(text: str) -> None:
    with pytest.raises(ValueError, match="is not NAME"):
        parse(text)


def test_only_what_is_sent_can_be_dropped() -> None:
    with pytest.raises(ValueError, match="nothing can be dropped"):
        parse("agent.intent.journaled:drop")


def test_the_process_is_killed_at_the_nth_pass() -> None:
    done = run(
        "agent.reply:3", "for i in range(9): print(i, flush=True); hit('agent.reply'); hit('agent.repair')"
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["0", "1", "2"]
    assert done.stderr == "failpoint agent.reply:3:kill\n"


def test_one_message_is_dropped() -> None:
    done = run("agent.reply:2:drop", "print([hit('agent.reply') for _ in range(4)])")
    assert (done.returncode, done.stdout) == (0, "[False, True, False, False]\n")


def test_the_thread_that_passes_is_stalled() -> None:
    code = "import time; t = time.monotonic(); hit('agent.repair'); print(time.monotonic() - t)"
    assert float(run("agent.repair:delay=200ms", code).stdout) >= 0.2


@pytest.mark.parametrize("service", ("agent", "allocator", "controller"))
def test_a_service_refuses_a_failpoint_that_is_none(service: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"services.{service}", "--config", str(tmp_path / "absent.json")],
        env={VARIABLE: "agent.nowhere", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "agent.nowhere" in done.stderr
