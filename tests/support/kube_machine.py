"""The first process of a node's machine: gives it files, kernel settings and /sys of its own, then reaps what is orphaned.

    unshare --mount --uts --pid --fork --kill-child --propagation=private  python kube_machine.py NAME DIRECTORY

Runs in a mount, process, host name and network namespace of its own (tests/support/kube_node.py enters the last one first). When it
dies, the kernel ends every process of the machine and undoes every mount: nothing needs to be found and removed. /etc, /opt, /var
are overlays whose changes lie in DIRECTORY, /run and /dev/shm are empty; all else is the test machine's. Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

_OWN_CHANGES = ("/etc", "/opt", "/var")
_KUBELETS_SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
"""What a kubelet sets at its start (pkg/kubelet/cm setupKernelTunables). They are the whole kernel's: it gets files instead."""
_READY = "ready"


def main() -> None:
    name, directory = sys.argv[1], Path(sys.argv[2])
    subprocess.run(["hostname", name], check=True)
    _mount("proc", "/proc", kind="proc")
    for path in _OWN_CHANGES:
        _overlay(path, directory / "machine" / path.lstrip("/"))
    _mount("tmpfs", "/run", kind="tmpfs", options="mode=755")
    # libfaketime names what it keeps there by process ids, which every machine begins anew.
    _mount("tmpfs", "/dev/shm", kind="tmpfs", options="mode=1777")
    for needed in ("/run/netns", "/run/lock", "/run/containerd"):
        Path(needed).mkdir()
    # `ip netns` would do it: so that namespaces are seen by whoever mounts the folder.
    _mount("/run/netns", "/run/netns", options="bind")
    _own_sys()
    for setting in _KUBELETS_SETTINGS:
        copy = directory / setting.replace("/", ".")
        copy.write_text(Path("/proc/sys", setting).read_text())
        _mount(str(copy), f"/proc/sys/{setting}", options="bind")
    # Containers see mounts that appear later (HostToContainer), as on a machine that systemd started.
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    (directory / _READY).touch()
    _reap()


def _overlay(path: str, changes: Path) -> None:
    upper, work = changes / "changes", changes / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    _mount("overlay", path, kind="overlay", options=f"lowerdir={path},upperdir={upper},workdir={work}")


def _own_sys() -> None:
    """/sys of this network namespace (/sys/class/net), with the machine's control groups."""
    kept = Path("/run/cgroup")
    kept.mkdir()
    subprocess.run(["mount", "--rbind", "/sys/fs/cgroup", str(kept)], check=True)
    _mount("sysfs", "/sys", kind="sysfs")
    subprocess.run(["mount", "--rbind", str(kept), "/sys/fs/cgroup"], check=True)
    subprocess.run(["umount", "--lazy", "--recursive", str(kept)], check=True)
    kept.rmdir()


def _mount(source: str, target: str, kind: str = "none", options: str = "defaults") -> None:
    subprocess.run(["mount", "-t", kind, "-o", options, source, target], check=True)


def _reap() -> None:
    """Waits for every child that others left behind, until it is killed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    while True:
        signal.sigwait([signal.SIGCHLD])
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break


if __name__ == "__main__":
    main()
