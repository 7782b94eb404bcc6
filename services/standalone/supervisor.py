"""Keeps processes running: starts them in order, restarts what crashes with back-off, stops them in order.

Owns child processes and what is known of them. Must not know what the processes do or what their settings say. The text in a
program's `failpoint_file` goes to its next process (shared.failpoint), whose end then counts as no crash.

Every child is tied to this process by PR_SET_PDEATHSIG, so that a supervisor that is killed leaves none behind. The kernel
sends that signal when the *thread* that forked ends: children are started from the main thread only.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import msgspec
import structlog

from services.standalone.assembly import Program
from services.standalone.process import die_with_parent, mark_of, send
from services.standalone.system import LOOPBACK, ServiceEntry
from shared.failpoint import VARIABLE

log = structlog.get_logger()

EXIT_SETTINGS = 2
"""A service that cannot use its settings ends with this; the same settings would end it again, so it is not restarted."""
BACKOFF_FIRST_S = 0.2
BACKOFF_LAST_S = 10.0
STEADY_S = 20.0
"""A process that ran this long has its next crash counted as its first."""
LISTEN_LIMIT_S = 10.0
STOP_LIMIT_S = 3.0
LOG_KEEP_BYTES = 16 * 1024 * 1024


def backoff_s(crashes: int) -> float:
    """How long to wait after the n-th crash in a row (from 1)."""
    return min(BACKOFF_FIRST_S * 2.0 ** min(crashes - 1, 16), BACKOFF_LAST_S)


def describe_exit(code: int) -> str:
    if code == EXIT_SETTINGS:
        return "refuses its settings (exit code 2)"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


class _Child:
    """One program with its present process, or none."""

    def __init__(self, program: Program, log_file: Path, failpoint_file: Path) -> None:
        self.program = program
        self.log_file = log_file
        self.failpoint_file = failpoint_file
        self.armed = False
        self.crashes = 0
        self.entry = ServiceEntry(
            service=program.service,
            instance=program.instance,
            asks=program.asks,
            node=program.node,
            http=program.http,
            log=str(log_file),
            reason="not started yet",
        )

    def spawn(self, directory: Path) -> subprocess.Popen[bytes]:
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_KEEP_BYTES:
            self.log_file.rename(self.log_file.with_suffix(".log.1"))
        environment = dict(os.environ)
        failpoint = self._take_failpoint()
        self.armed = bool(failpoint)
        if failpoint:
            environment[VARIABLE] = failpoint
        parent = os.getpid()
        descriptor = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                self.program.command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                # An own session: Ctrl-C at the terminal reaches the supervisor only, which then stops the others in order.
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )
        finally:
            os.close(descriptor)
        self.entry = msgspec.structs.replace(
            self.entry, mark=mark_of(process.pid), started_unix_s=time.time(), reason=""
        )
        return process

    def _take_failpoint(self) -> str:
        """What the file holds for this one process; it is gone then, so that the next one runs as usual."""
        try:
            text = self.failpoint_file.read_text().strip()
            self.failpoint_file.unlink()
        except FileNotFoundError:
            return ""
        return text

    def ended(self, reason: str, *, restarts: int) -> None:
        self.entry = msgspec.structs.replace(
            self.entry, mark=None, reason=reason, restarts=self.entry.restarts + restarts
        )


class Supervisor:
    """Runs programs until `stop`. `changed` is called with all entries whenever a process came or went.

    `refused` is set when a program ended with EXIT_SETTINGS.
    """

    def __init__(
        self,
        programs: tuple[Program, ...],
        *,
        directory: Path,
        log_file: Callable[[str], Path],
        failpoint_file: Callable[[str], Path],
        changed: Callable[[tuple[ServiceEntry, ...]], None],
    ) -> None:
        self._children = tuple(
            _Child(program, log_file(program.instance), failpoint_file(program.instance))
            for program in programs
        )
        self._directory = directory
        self._changed = changed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self.refused = asyncio.Event()

    @property
    def entries(self) -> tuple[ServiceEntry, ...]:
        return tuple(child.entry for child in self._children)

    async def start(self) -> None:
        """Starts all in their order; waits for a program with a port until it listens (or a time has passed) before the next."""
        for child in self._children:
            self._tasks[child.program.instance] = asyncio.create_task(self._keep(child))
            await asyncio.sleep(0)
            if child.program.port:
                await _listening(child.program.port, LISTEN_LIMIT_S)

    async def stop(self) -> None:
        """Ends all, one rank after the other: SIGTERM, and SIGKILL for what is still there after STOP_LIMIT_S."""
        self._stopping = True
        ranked = sorted(self._children, key=lambda child: child.program.stop_rank)
        for _, rank in groupby(ranked, key=lambda child: child.program.stop_rank):
            children = tuple(rank)
            tasks = [self._tasks[c.program.instance] for c in children if c.program.instance in self._tasks]
            for child in children:
                if child.entry.mark is not None:
                    send(child.entry.mark, signal.SIGTERM)
                elif child.program.instance in self._tasks:
                    self._tasks[child.program.instance].cancel()
            if not tasks:
                continue
            _, late = await asyncio.wait(tasks, timeout=STOP_LIMIT_S)
            for child in children:
                if late and child.entry.mark is not None:
                    log.warning(
                        "killed: it did not stop", instance=child.program.instance, after_s=STOP_LIMIT_S
                    )
                    send(child.entry.mark, signal.SIGKILL)
            if late:
                await asyncio.wait(late)

    async def _keep(self, child: _Child) -> None:
        """Runs one program again and again until the supervisor stops or its settings are refused."""
        while not self._stopping:
            try:
                process = child.spawn(self._directory)
            except OSError as error:
                child.ended(f"cannot be started: {error}", restarts=0)
                self.refused.set()
                self._changed(self.entries)
                return
            began = time.monotonic()
            self._changed(self.entries)
            code = await _exit_code(process)
            if self._stopping:
                child.ended("stopped", restarts=0)
                self._changed(self.entries)
                return
            reason = describe_exit(code)
            child.ended(reason, restarts=0 if code == EXIT_SETTINGS else 1)
            self._changed(self.entries)
            if code == EXIT_SETTINGS:
                log.error("not restarted", instance=child.program.instance, reason=reason)
                self.refused.set()
                return
            if child.armed:
                # It was made to end: the next one runs as if nothing had been.
                child.crashes = 0
                continue
            child.crashes = 1 if time.monotonic() - began > STEADY_S else child.crashes + 1
            wait_s = backoff_s(child.crashes)
            log.warning("restarts", instance=child.program.instance, reason=reason, wait_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)


async def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Waits for the end of a child by its pidfd: no thread, no SIGCHLD handler."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    pidfd = os.pidfd_open(process.pid)
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return process.wait()


async def _listening(port: int, limit_s: float) -> None:
    """Returns when something accepts on the port, or after the limit: then readiness says what is wrong."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        await asyncio.sleep(0.01)
