"""When a process is gone."""

from __future__ import annotations

import subprocess
import sys

from services.standalone.process import await_gone, mark_of

_LEADER_ENDS_FIRST = """\
import ctypes, sys, threading, time
libc = ctypes.CDLL(None)
threading.Thread(target=lambda: time.sleep(1.0)).start()
print("up", flush=True)
sys.stdin.readline()
libc.syscall(60, 0)
"""
"""60 is exit of one thread (x86-64): the first thread is a zombie while the other sleeps."""


def test_it_is_gone_with_its_last_thread() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _LEADER_ENDS_FIRST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == "up\n"
    mark = mark_of(child.pid)
    assert mark is not None
    child.stdin.write("\n")
    child.stdin.flush()
    assert await_gone((mark,), 0.3) == (mark,), "its second thread sleeps"
    assert await_gone((mark,), 10.0) == ()
    child.communicate()
