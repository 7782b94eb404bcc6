"""Processes kept running: what the supervisor does with programs that end, refuse, ignore signals or lose their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.standalone.assembly import Program
from services.standalone.process import await_gone, is_alive, mark_of, send, uptime_s
from services.standalone.supervisor import BACKOFF_LAST_S, STOP_LIMIT_S, Supervisor, backoff_s
from services.standalone.system import ProcessMark, ServiceEntry

LIMIT_S = 10.0
FOREVER = "import time; time.sleep(1000)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)"
ROOT = Path(__file__).parents[3]


def program(name: str, code: str, rank: int = 0) -> Program:
    return Program(service="stub", instance=name, command=(sys.executable, "-c", code), stop_rank=rank)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.02)


def supervised(
    directory: Path, programs: tuple[Program, ...], scenario: Callable[[Supervisor], Awaitable[None]]
) -> list[tuple[ServiceEntry, ...]]:
    """Runs the scenario beside a supervisor of these programs; returns every change that was told."""
    changes: list[tuple[ServiceEntry, ...]] = []

    async def main() -> None:
        supervisor = Supervisor(
            programs,
            directory=directory,
            log_file=lambda instance: directory / f"{instance}.log",
            failpoint_file=lambda instance: directory / f"{instance}.failpoint",
            changed=changes.append,
        )
        await supervisor.start()
        try:
            await scenario(supervisor)
        finally:
            await supervisor.stop()

    asyncio.run(main())
    return changes


def marks(supervisor: Supervisor) -> dict[str, ProcessMark | None]:
    return {entry.instance: entry.mark for entry in supervisor.entries}


def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        first = marks(supervisor)["a"]
        assert first is not None and is_alive(first)
        send(first, signal.SIGKILL)
        await until(lambda: marks(supervisor)["a"] not in (None, first))
        assert supervisor.entries[0].restarts == 1

    changes = supervised(tmp_path, (program("a", FOREVER),), scenario)
    assert "was ended by SIGKILL" in {entry.reason for entries in changes for entry in entries}
    last = changes[-1][0]
    assert last.mark is None and last.reason == "stopped"


def test_crashes_in_a_row_wait_longer_each_time(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        await until(lambda: supervisor.entries[0].restarts == 3)

    began = time.monotonic()
    supervised(tmp_path, (program("a", "raise SystemExit(1)"),), scenario)
    assert time.monotonic() - began >= backoff_s(1) + backoff_s(2)


def test_a_failpoint_is_for_one_process(tmp_path: Path) -> None:
    """What it ends counts as no crash, so that the next one does not wait longer."""
    told = (
        "import os, time; print(os.environ.get('ORBWEAVER_FAILPOINT', 'none'), flush=True); time.sleep(1000)"
    )

    def logged() -> list[str]:
        return (tmp_path / "a.log").read_text().split()

    async def scenario(supervisor: Supervisor) -> None:
        await until(lambda: logged() == ["stub.step:2"])
        for _ in range(2):
            known = len(logged())
            mark = marks(supervisor)["a"]
            assert mark is not None
            send(mark, signal.SIGKILL)
            await until(lambda known=known: len(logged()) > known)
        assert logged() == ["stub.step:2", "none", "none"]

    (tmp_path / "a.failpoint").write_text("stub.step:2\n")
    supervised(tmp_path, (program("a", told),), scenario)
    assert not (tmp_path / "a.failpoint").exists()


def test_the_wait_has_a_first_and_a_last() -> None:
    waits = [backoff_s(crashes) for crashes in range(1, 200)]
    assert waits == sorted(waits) and waits[0] == 0.2 and waits[-1] == BACKOFF_LAST_S


def test_a_program_that_refuses_its_settings_is_not_started_again(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        await asyncio.wait_for(supervisor.refused.wait(), LIMIT_S)
        entry = supervisor.entries[0]
        assert (entry.mark, entry.restarts, entry.reason) == (None, 0, "refuses its settings (exit code 2)")
        assert is_alive(marks(supervisor)["b"])

    supervised(tmp_path, (program("a", "raise SystemExit(2)"), program("b", FOREVER)), scenario)


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        await asyncio.wait_for(supervisor.refused.wait(), LIMIT_S)
        assert "cannot be started" in supervisor.entries[0].reason

    absent = Program(service="stub", instance="a", command=(str(tmp_path / "absent"),), stop_rank=0)
    supervised(tmp_path, (absent,), scenario)


def test_the_ranks_are_stopped_one_after_the_other(tmp_path: Path) -> None:
    slow = "import signal, time, sys\ndef end(*_):\n time.sleep(0.3); sys.exit()\nsignal.signal(signal.SIGTERM, end)\nprint(1, flush=True)\ntime.sleep(1000)"
    programs = tuple(program(name, slow, rank) for rank, name in enumerate(("first", "second", "third")))

    async def scenario(supervisor: Supervisor) -> None:
        await until(lambda: all((tmp_path / f"{p.instance}.log").read_text() for p in programs))

    changes = supervised(tmp_path, programs[::-1], scenario)
    stopped = [sorted(e.instance for e in entries if e.reason == "stopped") for entries in changes]
    assert [names for names in stopped if names] == [
        ["first"],
        ["first", "second"],
        ["first", "second", "third"],
    ]


def test_what_ignores_the_signal_is_killed_after_the_limit(tmp_path: Path) -> None:
    seen: list[ProcessMark] = []

    async def scenario(supervisor: Supervisor) -> None:
        await until(lambda: "deaf" in (tmp_path / "a.log").read_text())
        mark = marks(supervisor)["a"]
        assert mark is not None
        seen.append(mark)

    began = time.monotonic()
    supervised(tmp_path, (program("a", STUBBORN),), scenario)
    assert time.monotonic() - began >= STOP_LIMIT_S
    assert not is_alive(seen[0])


def test_logs_are_for_root_alone(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor) -> None:
        await until(lambda: "deaf" in (tmp_path / "a.log").read_text())
        send(marks(supervisor)["a"] or pytest.fail("does not run"), signal.SIGKILL)

    supervised(tmp_path, (program("a", STUBBORN),), scenario)
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600


def test_a_killed_supervisor_leaves_no_process(tmp_path: Path) -> None:
    """SIGKILL cannot be caught: the kernel ends the children (PR_SET_PDEATHSIG)."""
    code = textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        from services.standalone.assembly import Program
        from services.standalone.supervisor import Supervisor

        async def main():
            programs = tuple(
                Program(service="stub", instance=name, command=(sys.executable, "-c", {FOREVER!r}), stop_rank=0)
                for name in "abc"
            )
            directory = Path({str(tmp_path)!r})
            supervisor = Supervisor(
                programs,
                directory=directory,
                log_file=lambda name: directory / name,
                failpoint_file=lambda name: directory / f"{{name}}.failpoint",
                changed=lambda _: None,
            )
            await supervisor.start()
            await asyncio.sleep(0.2)
            print(*(entry.mark.pid for entry in supervisor.entries), flush=True)
            await asyncio.sleep(1000)

        asyncio.run(main())
    """)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert parent.stdout is not None
        children = [mark_of(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(children) == 3
    finally:
        parent.kill()
        parent.communicate()
    assert await_gone([child for child in children if child], 5.0) == ()


def test_a_pid_is_not_taken_for_another_process_that_has_it_now() -> None:
    own = mark_of(os.getpid())
    assert own is not None and is_alive(own) and uptime_s(own) > 0
    other = ProcessMark(pid=own.pid, start_ticks=own.start_ticks - 1)
    assert not is_alive(other)
    assert not send(other, signal.SIGKILL)


def test_a_zombie_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    mark = mark_of(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(mark)
    child.wait()
