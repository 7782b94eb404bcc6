"""Namespaces: what is one, what is not, and that a thread always comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from services.agent.netns import Netns, NetnsError, NetnsGoneError
from tests.support.lab import Lab

OWN = Path("/proc/thread-self/ns/net")


def test_a_namespace_is_known_by_device_and_inode(lab: Lab) -> None:
    first, second = lab.pods(2)
    with (
        Netns.open(lab.path(first)) as one,
        Netns.open(lab.path(first)) as again,
        Netns.open(lab.path(second)) as other,
    ):
        assert one.same_as(again)
        assert not one.same_as(other)
        assert one.inode == Path(lab.path(first)).stat().st_ino


def test_what_is_no_network_namespace_is_refused_by_name(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path, error, words in (
        ("/proc/self/ns/mnt", NetnsGoneError, "another kind"),
        (str(tmp_path / "absent"), NetnsGoneError, "does not exist"),
        (str(fifo), NetnsGoneError, "a file"),
        (str(tmp_path), NetnsGoneError, "a file"),
        ("/dev/null", NetnsGoneError, "a file"),
        ("", NetnsGoneError, "does not exist"),
        ("with\0nul", NetnsGoneError, "does not exist"),
        ("x" * 5000, NetnsError, "cannot be opened"),
    ):
        with pytest.raises(error, match=words) as raised:
            Netns.open(path)
        assert raised.value.kind.name == "netns_refused"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_action_runs_inside_and_the_thread_comes_back(lab: Lab, pod: str) -> None:
    home = OWN.readlink()
    with Netns.open(lab.path(pod)) as netns:
        assert netns.inside(OWN.stat).st_ino == netns.inode
        assert OWN.readlink() == home
        with pytest.raises(ZeroDivisionError):
            netns.inside(lambda: 1 // 0)
        assert OWN.readlink() == home


def test_other_threads_are_not_moved(lab: Lab, pod: str) -> None:
    home, entered, leave = OWN.readlink(), threading.Event(), threading.Event()

    def stay() -> None:
        entered.set()
        leave.wait(5)

    with Netns.open(lab.path(pod)) as netns:
        thread = threading.Thread(target=netns.inside, args=(stay,))
        thread.start()
        assert entered.wait(5)
        assert OWN.readlink() == home
        leave.set()
        thread.join()


def test_a_process_that_cannot_come_back_aborts(lab: Lab, pod: str) -> None:
    script = (
        "import os, sys\n"
        "from services.agent import netns\n"
        "real, calls = netns._setns, []\n"
        "def once(fd):\n"
        "    calls.append(fd)\n"
        "    if len(calls) == 2: raise OSError('no way back')\n"
        "    real(fd)\n"
        "netns._setns = once\n"
        "netns.Netns.open(sys.argv[1]).inside(lambda: None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, lab.path(pod)], capture_output=True, check=False, cwd=Path.cwd()
    )
    assert done.returncode == -signal.SIGABRT
    assert b"cannot return" in done.stderr
