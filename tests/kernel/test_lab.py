"""The lab itself: it leaves nothing, not even where its process was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.lab import Lab


def namespaces(of: str) -> set[str]:
    return {entry.name for entry in Path("/run/netns").glob(f"{of}*")}


def test_a_closed_lab_leaves_no_namespace() -> None:
    with Lab(nodes=2) as lab:
        lab.pods(3)
        assert len(namespaces(lab.name)) == 6
    assert namespaces(lab.name) == set()


def test_a_killed_labs_namespaces_are_removed_by_the_next() -> None:
    script = (
        "import os, signal\n"
        "from tests.support.lab import Lab\n"
        "lab = Lab(nodes=1).__enter__()\n"
        "print(lab.name, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    name = killed.stdout.strip()
    assert namespaces(name)
    with Lab(nodes=1):
        assert namespaces(name) == set()
