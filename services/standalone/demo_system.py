"""The system under demonstration, driven through its command line as a user drives it.

Owns the life of one `orbweaver up` in the foreground and the commands given to it. Must not know what is inside.

Every process that comes of it carries MARK=<root> in its environment: that is how a later run in the same place finds what a
killed one left, and how nothing that merely looks like ours is ever ended.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from services.standalone.demo_netns import LabError
from services.standalone.process import await_gone, die_with_parent, mark_of, send
from services.standalone.system import ProcessMark

MARK = "ORBWEAVER_RUN_OF"
_STOP_TIMEOUT_S = 20.0
_TROUBLE = ('"level":"error"', '"level":"warning"', "attach failed", "Traceback", "[ERR]")


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """`orbweaver get … -o json`: a Kubernetes list."""

    kind: str
    items: list[dict[str, Any]]


class System:
    """One system whose files are below `root`. `nodes` maps node names to the namespaces that are these nodes (None: the machine).

    `width` is how many columns its tables may have."""

    def __init__(self, root: Path, nodes: Mapping[str, Path | None], width: int = 120) -> None:
        self.state = root / "system"
        self.manifests = root / "manifests"
        self.nodes = nodes
        self.up_log = root / "up.log"
        self.temporary = root / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.manifests.mkdir(exist_ok=True)
        self._child: subprocess.Popen[bytes] | None = None
        self.environment = {
            **os.environ,
            MARK: str(root),
            "ORBWEAVER_STATE": str(self.state),
            "TMPDIR": str(self.temporary),
            "NO_COLOR": "1",
            "COLUMNS": str(width),
        }

    def command(self, *words: str) -> list[str]:
        # -P: a folder named `services` where we were called must not be taken for ours.
        return [sys.executable, "-P", "-m", "services.cli", *words]

    def start(self) -> None:
        """Starts `orbweaver up` in the foreground; the kernel ends it when this process ends, however that happens."""
        words = ["up", "--manifests", str(self.manifests)]
        for name, netns in self.nodes.items():
            words += ["--node", name if netns is None else f"{name}={netns}"]
        log: IO[bytes]
        with self.up_log.open("wb") as log:
            self._child = subprocess.Popen(
                self.command(*words),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=functools.partial(die_with_parent, os.getpid()),
            )

    def wait_ready(self, show: Callable[[str], None], timeout_s: float = 60.0) -> None:
        """Shows what `up` prints until it says that it is ready. Raises LabError when it ends or takes too long."""
        child = self._child
        assert child is not None
        deadline = time.monotonic() + timeout_s
        shown = 0
        while True:
            lines = self.up_log.read_text(errors="replace").splitlines()
            for line in lines[shown:]:
                show(line)
            shown = len(lines)
            if any(line.lower().startswith("ready") for line in lines):
                return
            if child.poll() is not None:
                raise LabError(f"`orbweaver up` ended with exit code {child.returncode} before it was ready")
            if time.monotonic() > deadline:
                raise LabError(f"`orbweaver up` was not ready within {timeout_s:.0f} s")
            time.sleep(0.05)

    def cli(self, *words: str) -> str:
        """One command's output. Raises LabError with what it complained about."""
        done = subprocess.run(
            self.command(*words),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(
                f"`orbweaver {' '.join(words)}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
            )
        return done.stdout

    def get(self, kind: str, *words: str) -> list[dict[str, Any]]:
        return msgspec.json.decode(self.cli("get", kind, *words, "-o", "json"), type=Listing).items

    def sync(self) -> None:
        """Returns when the folder as of now is in force."""
        self.cli("sync")

    def install(self, node: str, directory: Path, *words: str) -> Path:
        """Installs the CNI executables for one node and returns the one that runtimes exec. `words`: more of the command."""
        self.cli("cni", "install", "--dir", str(directory), "--node", node, *words)
        return directory / "orbweaver"

    def stop(self) -> None:
        """As a user stops it: SIGTERM. What does not end within the time is killed. Nothing to do is no error."""
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def log_tail(self, lines: int = 12) -> str:
        """The ends of all logs that say something of errors, else of `up`'s own."""
        logs = [self.up_log, *sorted((self.state / "log").glob("*.log"))]
        out: list[str] = []
        for log in logs:
            if not log.exists():
                continue
            text = log.read_text(errors="replace").splitlines()
            interesting = [
                line for line in text if log == self.up_log or any(word in line for word in _TROUBLE)
            ]
            if interesting:
                out += [f"--- {log}", *interesting[-lines:]]
        return "\n".join(out)


def marked(root: Path) -> list[ProcessMark]:
    """All processes that come of a system below `root`."""
    needle = f"{MARK}={root}".encode()
    out: list[ProcessMark] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # The mark first: a pid re-used between the two reads is then another process, and `send` refuses it.
        mark = mark_of(int(entry.name))
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        if mark is not None and needle in variables:
            out.append(mark)
    return out


def end_marked(root: Path, timeout_s: float = 10.0) -> int:
    """Kills what comes of a system below `root` until nothing does; returns how many processes that were."""
    ended: set[ProcessMark] = set()
    deadline = time.monotonic() + timeout_s
    while (found := marked(root)) and time.monotonic() < deadline:
        for mark in found:
            if send(mark, signal.SIGKILL):
                ended.add(mark)
        await_gone(found, 1.0)
    return len(ended)
