"""The place of one run: its directory, the prefix of its namespaces, and proof that it leaves nothing.

Owns exclusive use of the place, the removal of what a killed run left there, and the look at the machine before and after.
Must not know what runs in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from services.standalone import demo_netns, demo_system

_WATCHED = (
    Path("/run"),
    Path("/tmp"),
    Path("/var/tmp"),
    Path("/var/lib"),
    Path("/dev/shm"),
    Path("/etc"),
    Path("/opt"),
)
_OURS = re.compile(r"orbdemo|orbweaver-demo")
"""What bears the demo's own marks: others start NATS servers, containers and systems of ours while it runs."""


@dataclass(frozen=True)
class Machine:
    """What the demo could leave behind on the machine itself: a link of the kind it makes, and files that bear its marks."""

    links: frozenset[str]
    files: frozenset[Path]

    @staticmethod
    def look() -> Machine:
        files = {
            entry
            for directory in _WATCHED
            if directory.is_dir()
            for entry in directory.iterdir()
            if _OURS.search(entry.name)
        }
        return Machine(links=frozenset(demo_netns.links(kind="macvlan")), files=frozenset(files))

    def new_in(self, later: Machine) -> list[str]:
        return [f"link {link} on this machine" for link in sorted(later.links - self.links)] + [
            f"file {path}" for path in sorted(later.files - self.files)
        ]


@dataclass(frozen=True)
class Place:
    """`root` is made, locked and removed; the network namespaces of the run begin with `prefix`."""

    root: Path
    prefix: str

    def netns(self, name: str) -> Path:
        return demo_netns.path(f"{self.prefix}{name}")

    @contextlib.contextmanager
    def held(self, on_wait: Callable[[], None]) -> Generator[int]:
        """Exclusive use; waits for another run to end, after `on_wait`. Yields how many namespaces and processes a killed run had left.

        At the end everything of the place is removed.
        """
        directory = self._locked(on_wait)
        try:
            yield self.clear()
        finally:
            self.clear()
            self.root.rmdir()
            os.close(directory)

    def clear(self) -> int:
        """Ends the processes and removes the namespaces and files of this place; returns how many of the first two."""
        ended = demo_system.end_marked(self.root)
        namespaces = demo_netns.named(self.prefix)
        for netns in namespaces:
            demo_netns.remove(netns)
        demo_netns.unmount_below(self.root)
        for entry in self.root.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        return ended + len(namespaces)

    def _locked(self, on_wait: Callable[[], None]) -> int:
        while True:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(directory, fcntl.LOCK_EX)
            # The run before us removed the directory before it let go of the lock: then this is not the one at the path.
            with contextlib.suppress(FileNotFoundError):
                if self.root.stat().st_ino == os.fstat(directory).st_ino:
                    return directory
            os.close(directory)
