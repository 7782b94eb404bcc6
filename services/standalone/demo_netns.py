"""Network namespaces of the demo: made, entered by a thread, removed, found by name.

Owns what the demo does to /run/netns and the switch and node namespaces in it. Must not know what a pod, an address or the
system under demonstration is. Needs root and iproute2.

A pod's namespace is made by a thread that unshares, as container runtimes do it: `ip netns add` would cost an exec each.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute

DIRECTORY = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_OWN = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class LabError(RuntimeError):
    """The machine refused something that the lab needs; the sentence carries its answer."""


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise LabError(f"{what}: {os.strerror(number)}")


def run(*command: str, stdin: str = "") -> str:
    """Runs a program of the machine and returns its output. Raises LabError with what it printed."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def path(name: str) -> Path:
    return DIRECTORY / name


@contextlib.contextmanager
def entered(netns: Path) -> Generator[None]:
    """The calling thread, and whatever it spawns, is in `netns` meanwhile. About 30 µs. Not for a thread that others share."""
    with contextlib.ExitStack() as stack:
        own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, own)
        other = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, other)
        _checked(_libc.setns(other, _CLONE_NEWNET), f"enter {netns}")
        try:
            yield
        finally:
            _checked(_libc.setns(own, _CLONE_NEWNET), "come back to the own network namespace")


def _in_thread(work: Callable[[], T]) -> T:
    """Runs `work` in a thread of its own, which ends with whatever it unshared."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(work).result()


def add_named(name: str) -> Path:
    """By iproute2, which also makes /run/netns the shared mount that it wants to find; loopback is up."""
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")
    return path(name)


def add_pods(names: Sequence[str]) -> list[Path]:
    """One fresh namespace a name, mounted below /run/netns. DIRECTORY must be iproute2's already (see `add_named`)."""

    def make() -> list[Path]:
        out: list[Path] = []
        for name in names:
            target = path(name)
            target.touch(mode=0o444, exist_ok=False)
            _checked(_libc.unshare(_CLONE_NEWNET), f"unshare {name}")
            _checked(
                _libc.mount(_OWN.encode(), str(target).encode(), None, _MS_BIND, None), f"mount {target}"
            )
            out.append(target)
        return out

    return _in_thread(make)


def remove(netns: Path) -> None:
    """Takes the name away; the kernel ends the namespace when nobody is left in it. Nothing to do is no error."""
    _libc.umount2(str(netns).encode(), _MNT_DETACH)
    netns.unlink(missing_ok=True)


def unmount_below(directory: Path) -> None:
    """Detaches every mount below `directory`, the innermost first: what killed processes mounted there."""
    # Field 5 of a line is the mount point (proc_pid_mountinfo(5)); later mounts come later.
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if Path(point).is_relative_to(directory):
            _checked(_libc.umount2(os.fsencode(point), _MNT_DETACH), f"unmount {point}")


def named(prefix: str) -> list[Path]:
    if not DIRECTORY.is_dir():
        return []
    return sorted(p for p in DIRECTORY.iterdir() if p.name.startswith(prefix))


def links(netns: Path | None = None, kind: str = "") -> set[str]:
    """Names of the links in a namespace (None: the caller's own), all or those of one kind such as `macvlan`."""
    with contextlib.nullcontext() if netns is None else entered(netns), IPRoute() as opened:
        route: Any = opened  # pyroute2 has no types for what it finds
        found: list[Any] = list(route.get_links())
    return {str(link.get("ifname")) for link in found if kind in ("", link.get(("linkinfo", "kind")))}


def build_switch(switch: str, nodes: Sequence[str], gateways: Sequence[str]) -> None:
    """A bridge `underlay` in namespace `switch` that carries the gateways' addresses (with prefix length), and a NIC `eth1`
    in each node's namespace wired to it. All end of a wire are made in place, so the caller's namespace never sees a link.
    """
    for name in (switch, *nodes):
        add_named(name)
    lines = ["link add underlay type bridge mcast_snooping 0 forward_delay 0"]
    lines += [
        f"addr add {gateway} dev underlay" + (" nodad" if ":" in gateway else "") for gateway in gateways
    ]
    for i, node in enumerate(nodes):
        lines += [
            f"link add port{i} type veth peer name eth1 netns {node}",
            f"link set port{i} master underlay up",
        ]
    lines += ["link set underlay up"]
    run("ip", "-n", switch, "-batch", "-", stdin="\n".join(lines) + "\n")
    for node in nodes:
        run("ip", "-n", node, "link", "set", "eth1", "up")
