"""What a runtime may name as CNI_NETNS: a pod's network namespace, by any path; never a node's, by none."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.standalone import demo_exec
from tests.integration.cli.stage import NETWORK, Stage
from tests.security.attacker import TAKEN, Attacker

REFUSED, ENVIRONMENT, TRY_LATER = 113, 4, 11
SOON_S = 3.0
_MS_BIND, _MNT_DETACH = 0x1000, 2
_libc = ctypes.CDLL(None, use_errno=True)


def add(
    stage: Stage, netns: str, verb: str = "ADD", container_id: str = ""
) -> tuple[dict[str, object], float]:
    """The answer of the plugin of node n1, and how long it took."""
    variables = demo_exec.environment(verb, container_id=container_id or secrets.token_hex(16), netns=netns)
    plugin = stage.system.state.parent / "bin" / TAKEN / "orbweaver"
    answer = demo_exec.call(plugin, variables, json.dumps(NETWORK).encode())
    return (json.loads(answer.stdout) if answer.stdout.strip() else {}), answer.duration_ms / 1000


def links(stage: Stage) -> list[list[str]]:
    return [sorted(link["ifname"] for link in stage.lab.ip(node, "link")) for node in stage.lab.nodes]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file on which a test may mount something."""
    path = tmp_path / "mounted"
    path.touch()
    yield path
    _libc.umount2(str(path).encode(), _MNT_DETACH)


def bind(source: str, target: Path) -> None:
    assert _libc.mount(source.encode(), str(target).encode(), b"none", _MS_BIND, None) == 0, os.strerror(
        ctypes.get_errno()
    )


def own_paths(stage: Stage, attacker: Attacker, scratch: Path, mounted: Path) -> dict[str, str]:
    """Ways to the node's namespace, and to that of the agent itself."""
    node = stage.lab.path(stage.lab.nodes[0])
    other = scratch / "other"
    other.symlink_to(stage.lab.path(stage.lab.nodes[1]))
    agent = next(
        entry.mark.pid
        for entry in attacker.system.services
        if entry.instance == f"agent-{TAKEN}" and entry.mark
    )
    link, chain = scratch / "link", scratch / "chain"
    link.symlink_to(node)
    chain.symlink_to(link)
    (scratch / "init").symlink_to("/proc/1/ns/net")
    (scratch / "self").symlink_to("/proc/self/ns/net")
    (scratch / "directory").symlink_to("/proc/1/ns")
    bind(node, mounted)
    inode = Path(node).stat().st_ino
    held = next(fd for fd in Path(f"/proc/{agent}/fd").iterdir() if fd.stat().st_ino == inode)
    return {
        "name": node,
        "another node": stage.lab.path(stage.lab.nodes[1]),
        "link to another node": str(other),
        "init": "/proc/1/ns/net",
        "init task": "/proc/1/task/1/ns/net",
        "agent": f"/proc/{agent}/ns/net",
        "agent from root": f"/proc/1/root/proc/{agent}/ns/net",
        "descriptor of the agent": str(held),
        "symbolic link": str(link),
        "chain of links": str(chain),
        "link to init": str(scratch / "init"),
        "link to self": str(scratch / "self"),
        "link to the directory": str(scratch / "directory" / "net"),
        "bind mount": str(mounted),
        "dots": f"/run/../run/netns/./{Path(node).name}",
        "slashes": f"//run//netns//{Path(node).name}",
        "self by dots": "/proc/./self/ns/net",
        "self by slashes": "//proc/self/ns/net",
        "thread by dots": "/proc/../proc/thread-self/ns/net",
        "descriptor": "/dev/fd/../../self/ns/net",
    }


def test_the_nodes_own_namespace_is_refused_by_every_path(
    stage: Stage, attacker: Attacker, tmp_path: Path, mounted: Path
) -> None:
    before, leases = links(stage), stage.items("leases")
    for form, path in own_paths(stage, attacker, tmp_path, mounted).items():
        answer, took_s = add(stage, path)
        assert answer.get("code") == REFUSED, (form, path, answer)
        assert took_s < SOON_S, form
    assert links(stage) == before
    assert stage.items("attachments") == [] and stage.items("leases") == leases


@pytest.mark.parametrize(
    "path", ["/proc/self/ns/net", "/proc/thread-self/ns/net", "run/netns/x", "/run/netns/x\x7f/.."]
)
def test_a_path_that_means_something_else_in_each_process_is_refused(stage: Stage, path: str) -> None:
    answer, took_s = add(stage, path)
    assert answer["code"] == ENVIRONMENT
    assert took_s < SOON_S


def strange_paths(scratch: Path) -> Iterator[tuple[str, str]]:
    fifo, huge, listening = scratch / "fifo", scratch / "huge", scratch / "socket"
    os.mkfifo(fifo)
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    loop = scratch / "loop"
    loop.symlink_to(loop)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        server.listen(1)
        yield "fifo", str(fifo)
        yield "huge file", str(huge)
        yield "socket", str(listening)
    yield "loop of links", str(loop)
    yield "directory", str(scratch)
    yield "endless device", "/dev/zero"
    yield "terminal", "/dev/tty"
    yield "fuse device", "/dev/fuse"
    yield "kernel log", "/proc/kmsg"
    yield "memory", "/proc/self/../1/mem"
    yield "deleted", f"/proc/{1 << 22}/ns/net"
    yield "too long", "/" + "x" * 5000
    yield "many links", "/proc/1/cwd" + "/." * 1000
    for kind in ("mnt", "pid", "user", "uts", "ipc", "cgroup"):
        yield f"{kind} namespace", f"/proc/1/ns/{kind}"


def test_what_is_no_network_namespace_is_refused_at_once(stage: Stage, tmp_path: Path) -> None:
    before, leases = links(stage), stage.items("leases")
    for form, path in strange_paths(tmp_path):
        answer, took_s = add(stage, path)
        assert answer.get("code") in (REFUSED, ENVIRONMENT), (form, answer)
        assert took_s < SOON_S, form
        answer, took_s = add(stage, path, "DEL")
        assert took_s < SOON_S, form
    assert links(stage) == before
    assert stage.items("attachments") == [] and stage.items("leases") == leases


def test_a_detach_deletes_nothing_of_the_node(stage: Stage) -> None:
    """The pod's path is made to lead to the node after the attach: its links are the node's, whatever their names."""
    netns = stage.lab.pod()
    container_id = secrets.token_hex(16)
    path = Path("/run/netns") / f"{stage.lab.name}-moving"
    path.symlink_to(stage.lab.path(netns))
    try:
        answer, _ = add(stage, str(path), container_id=container_id)
        assert answer["ips"], answer
        path.unlink()
        path.symlink_to(stage.lab.path(stage.lab.nodes[0]))
        before = links(stage)
        answer, _ = add(stage, str(path), "DEL", container_id)
        assert answer == {}
        assert links(stage) == before
        # The interface stayed in the pod that nobody names any more; it goes with it.
        deadline = time.monotonic() + 5
        while stage.items("attachments", "--node", TAKEN):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        path.unlink(missing_ok=True)
        stage.lab.remove(netns)


@pytest.mark.parametrize(
    "container_id",
    ["../../etc/passwd", "..", ".", "a/b", "/etc", "-rf", "a\nb", "a\x00b".replace("\x00", "%00"), "x" * 256],
)
def test_a_container_id_is_never_a_path(stage: Stage, container_id: str) -> None:
    for verb in ("ADD", "DEL", "CHECK"):
        answer, _ = add(stage, "/run/netns/none", verb, container_id)
        assert answer["code"] == ENVIRONMENT, verb
