"""Which network namespace a node is. Owns the reading of `--node NAME[=NETNS]`.

Must not enter a namespace or change what is in one.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
from pathlib import Path

from services.standalone.process import same_namespace
from services.standalone.state import StandaloneError
from services.standalone.system import NodeSpec

RUN_NETNS = Path("/run/netns")
OWN_NETNS = "/proc/self/ns/net"
INIT_NETNS = "/proc/1/ns/net"
NODE_NAME_MAX_BYTES = 253
"""A Node's name is a DNS subdomain (Kubernetes, "Object Names and IDs")."""

_NS_GET_NSTYPE = 0xB703
"""include/uapi/linux/nsfs.h"""
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
"""include/uapi/linux/mount.h, include/linux/fs.h"""
_libc = ctypes.CDLL(None, use_errno=True)


def read_nodes(arguments: tuple[str, ...]) -> tuple[NodeSpec, ...]:
    """The nodes of a system; without any, one that is this machine under its host name. Raises StandaloneError."""
    nodes = tuple(_read_node(text) for text in arguments or (socket.gethostname().lower(),))
    for number, node in enumerate(nodes):
        for other in nodes[:number]:
            if other.name == node.name:
                raise StandaloneError(f"--node {node.name} is given twice")
            if same_namespace(node.netns or OWN_NETNS, other.netns or OWN_NETNS):
                raise StandaloneError(f"nodes {other.name} and {node.name} are the same network namespace")
    return nodes


def pin_shim_netns(pin: Path) -> str:
    """Where a shim finds the leaves' loopback, whatever namespace it is started in.

    Process 1's namespace can be named for as long as the machine runs, so it serves where `up` runs in it and may look. Elsewhere
    (in a container, without the capabilities of process 1) our own namespace is mounted on `pin`, as `ip netns` does it.
    Empty where not even that is allowed: then a shim must be started where the leaves are.
    """
    if same_namespace(OWN_NETNS, INIT_NETNS):
        return INIT_NETNS
    unpin_shim_netns(pin)
    pin.touch(mode=0o400)
    if _libc.mount(OWN_NETNS.encode(), os.fsencode(pin), None, _MS_BIND, None) != 0:
        pin.unlink()
        return ""
    return str(pin)


def unpin_shim_netns(pin: Path) -> None:
    """Takes the mount away, that of a killed `up` too. Nothing to do is no error."""
    _libc.umount2(os.fsencode(pin), _MNT_DETACH)
    pin.unlink(missing_ok=True)


def flaw_of_node(text: str) -> str:
    """Why this is no NAME or NAME=NETNS, whatever namespaces there are; empty if it is one."""
    name, given, netns = text.partition("=")
    if not name or len(name.encode()) > NODE_NAME_MAX_BYTES or not name.isprintable() or " " in name:
        return (
            f"--node {text!r}: a node's name has 1 to {NODE_NAME_MAX_BYTES} characters, none of them a space"
        )
    if given and not netns:
        return f"--node {text!r}: name a network namespace after `=`, or leave the `=` out"
    return ""


def _read_node(text: str) -> NodeSpec:
    if flaw := flaw_of_node(text):
        raise StandaloneError(flaw)
    name, given, netns = text.partition("=")
    if not given:
        return NodeSpec(name=name)
    path = Path(netns).absolute() if "/" in netns else RUN_NETNS / netns
    _assert_netns(name, path)
    return NodeSpec(name=name, netns=str(path))


def _assert_netns(node: str, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StandaloneError(
            f"node {node}: there is no network namespace {path} ({error.strerror}); `ip netns list` shows those with a name"
        ) from None
    try:
        kind = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    finally:
        os.close(descriptor)
    if kind != _CLONE_NEWNET:
        raise StandaloneError(f"node {node}: {path} is not a network namespace")
