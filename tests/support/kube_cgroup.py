"""The control groups below which a node's pods run: made before the kubelet starts, removed after the last process is gone.

Must not know what runs in them.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_REMOVE_S = 10.0


def make(name: str) -> None:
    """`name` in every hierarchy."""
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)
        for limit in ("cpuset.cpus", "cpuset.mems"):
            # Version 1 gives a new group none, and no process may enter it then.
            if (hierarchy / limit).exists() and not (hierarchy / name / limit).read_text().strip():
                (hierarchy / name / limit).write_text((hierarchy / limit).read_text())


def remove(name: str) -> None:
    """With everything below; what still ends is waited for. Raises OSError when a process stays."""
    deadline = time.monotonic() + _REMOVE_S
    while True:
        try:
            for hierarchy in _hierarchies():
                _remove_tree(hierarchy / name)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def names(prefix: str) -> set[str]:
    """The groups at the top of any hierarchy whose name begins with `prefix`."""
    return {entry.name for hierarchy in _hierarchies() for entry in hierarchy.glob(f"{prefix}*")}


def _hierarchies() -> list[Path]:
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [
        entry
        for entry in _ROOT.iterdir()
        if entry.is_dir() and not entry.is_symlink() and entry.name != "unified"
    ]


def _remove_tree(group: Path) -> None:
    if not group.is_dir():
        return
    for child in group.iterdir():
        if child.is_dir():
            _remove_tree(child)
    with contextlib.suppress(FileNotFoundError):
        group.rmdir()
