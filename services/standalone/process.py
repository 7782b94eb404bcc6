"""Processes of this machine as (pid, start time) pairs, and the ties between a parent and its children.

Owns reading /proc and signalling without hitting a re-used pid. Must not know what the processes are for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from services.standalone.system import ProcessMark

_PR_SET_PDEATHSIG = 1
"""include/uapi/linux/prctl.h"""
_LIBC = ctypes.CDLL(None, use_errno=True)
POLL_S = 0.02


def mark_of(pid: int) -> ProcessMark | None:
    """The process that has this pid now; None when there is none or it is a zombie. While another thread of it
    still ends it is not gone: it has its files and locks."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses; field 3 (state) follows the last one.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX" and int(fields[17]) <= 1:
        return None
    return ProcessMark(pid=pid, start_ticks=int(fields[19]))


def is_alive(mark: ProcessMark | None) -> bool:
    return mark is not None and mark_of(mark.pid) == mark


def uptime_s(mark: ProcessMark) -> float:
    ticks_s = os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - mark.start_ticks / ticks_s)


def send(mark: ProcessMark, number: signal.Signals) -> bool:
    """Signals exactly this process; False when it is gone. The pidfd is opened before the look, so no other can be hit."""
    try:
        pidfd = os.pidfd_open(mark.pid)
    except ProcessLookupError:
        return False
    try:
        if mark_of(mark.pid) != mark:
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def await_gone(marks: Iterable[ProcessMark], limit_s: float) -> tuple[ProcessMark, ...]:
    """Waits until all are gone; returns those that still run after the limit."""
    left = tuple(marks)
    deadline = time.monotonic() + limit_s
    while left := tuple(mark for mark in left if is_alive(mark)):
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    return left


def kill_all(marks: Iterable[ProcessMark], limit_s: float = 5.0) -> tuple[ProcessMark, ...]:
    """SIGKILLs those that run and waits for their end; returns those that had still been running."""
    running = tuple(mark for mark in marks if send(mark, signal.SIGKILL))
    await_gone(running, limit_s)
    return running


def die_with_parent(parent: int) -> None:
    """For a child between fork and exec: the kernel kills it when `parent` dies, however that happens.

    A parent that died before the call is noticed by its pid; then the child ends itself.
    """
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        os._exit(127)
    if os.getppid() != parent:
        os._exit(127)


def same_namespace(left: str, right: str) -> bool:
    """Do two paths name the same network namespace? False when one cannot be read."""
    with contextlib.suppress(OSError):
        one, other = Path(left).stat(), Path(right).stat()
        return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
    return False
