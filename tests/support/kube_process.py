"""A long-running program of a test: started with a log of its own, ended by its pid, dead when the test process dies.

Must not know what the program does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from services.standalone.process import die_with_parent

STOP_S = 20.0
_TAIL_CHARS = 4000
_CHILD_S = 10.0


class Program:
    """One command line that can be started again; its output is appended to `log`. `wrapped`: the process started only waits for its
    one child (`nsenter --pid`), which is what signals are for."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        wrapped: bool = False,
    ) -> None:
        self.argv = list(argv)
        self.log = log
        self._environment = {**os.environ, **(environment or {})}
        self._wrapped = wrapped
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of what `argv` is about, in the test's process namespace."""
        assert self._process is not None, f"{self.argv[0]} was not started"
        return only_child(self._process) if self._wrapped else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.running, f"{self.argv[0]} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                # Ctrl-C at the terminal is the test runner's: it stops us in order.
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )

    def stop(self, kill: bool = False) -> None:
        """SIGTERM, after STOP_S or with `kill` SIGKILL; returns when the process is gone."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            self.signal(signal.SIGKILL if kill else signal.SIGTERM)
            # A stopped process does not see SIGTERM before it goes on.
            self.signal(signal.SIGCONT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            process.wait(STOP_S)
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-_TAIL_CHARS:] if self.log.exists() else ""

    def assert_running(self) -> None:
        """Raises RuntimeError with the end of the log when the process has ended."""
        if not self.running:
            code = "" if self._process is None else f" with {self._process.poll()}"
            raise RuntimeError(f"{Path(self.argv[0]).name} ended{code}:\n{self.tail()}")


def only_child(process: subprocess.Popen[bytes]) -> int:
    """The one child of a process that only waits for it (`unshare --fork`, `nsenter --pid`). Raises ProcessLookupError when it is gone."""
    deadline = time.monotonic() + _CHILD_S
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if found := children.read_text().split():
                return int(found[0])
        time.sleep(0.01)
    raise ProcessLookupError(f"process {process.pid} has no child")
