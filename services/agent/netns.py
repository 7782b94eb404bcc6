"""Network namespaces: opened by path, told apart from anything else, entered for the moment of opening sockets.

Owns the only call of setns in the agent. Must not know what is done in a namespace.
A socket stays in the namespace where it was opened, so a thread enters, opens, comes back: some 30 µs, and all
that follows runs from the agent's own namespace.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from services.agent.route_socket import RouteSocket
from shared.errors import OrbweaverError

_NSFS_MAGIC = 0x6E736673  # include/uapi/linux/magic.h
_NS_GET_NSTYPE = 0xB703  # include/uapi/linux/nsfs.h, _IO(0xb7, 0x3)
_CLONE_NEWNET = 0x40000000
OWN_PATH = "/proc/thread-self/ns/net"
"""The calling thread's namespace."""

# Keeps the GIL: setns on a network namespace takes microseconds, less than a hand-over of the GIL under load.
_libc = ctypes.PyDLL(None, use_errno=True)

T = TypeVar("T")


class NetnsError(OrbweaverError):
    """The path is no network namespace that a pod could have; the sentence says what it is."""

    def __init__(self, path: str, found: str) -> None:
        super().__init__("netns_refused", f"network namespace {path!r}: {found}")


class NetnsGoneError(NetnsError):
    """No network namespace is at the path (any more): a detach has nothing left to do."""


class InsideSockets:
    """The sockets opened inside one namespace. `close_fast` leaves the packet socket to somebody patient.

    `ipv6_off` tells whether a link made now would have IPv6 switched off (False where it was not asked for).
    """

    __slots__ = ("ipv6_off", "packet", "route")

    def __init__(self, *, with_packet: bool, with_ipv6: bool) -> None:
        self.packet: socket.socket | None = None
        self.ipv6_off = with_ipv6 and _ipv6_disabled("default")
        self.route = RouteSocket()
        if with_packet:
            try:
                # Protocol 0 registers no receive hook: this socket only sends.
                self.packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            except BaseException:
                self.route.close()
                raise

    def close_fast(self) -> None:
        """Closes all but the packet socket, whose close waits for an RCU grace period (some 15 ms)."""
        self.route.close()


class Netns:
    """An open network namespace: `fd` keeps it alive, `device` and `inode` are its identity.

    Not bound to a thread: any number may enter at once. Close it, or use it as a context manager.
    """

    __slots__ = ("device", "fd", "inode", "path")

    def __init__(self, path: str, fd: int, device: int, inode: int) -> None:
        self.path = path
        self.fd = fd
        self.device = device
        self.inode = inode

    @classmethod
    def open(cls, path: str) -> Self:
        """Opens and validates. Raises NetnsGoneError or NetnsError; leaves nothing open on an error."""
        try:
            # O_NONBLOCK: a FIFO at the path must not hang the caller.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError, ValueError):
            raise NetnsGoneError(path, "does not exist") from None
        except OSError as cause:
            raise NetnsError(path, f"cannot be opened: {cause}") from cause
        try:
            _demand_netns(path, fd)
            status = os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd, status.st_dev, status.st_ino)

    def same_as(self, other: Netns) -> bool:
        return (self.device, self.inode) == (other.device, other.inode)

    def is_at(self, path: str) -> bool:
        """Whether the path leads to this namespace now. The path's own namespace is not kept alive by asking."""
        try:
            status = Path(path).stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self.device, self.inode)

    def inside(self, action: Callable[[], T]) -> T:
        """Runs `action` in this namespace on the calling thread, and comes back whatever happens.

        `action` must not start threads. Where coming back fails the process is aborted: a thread left in a pod
        would do the next attachment's work in the wrong namespace.
        """
        home_fd = os.open(OWN_PATH, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self.fd)
            try:
                return action()
            finally:
                try:
                    _setns(home_fd)
                except BaseException:
                    os.write(2, b"orbweaver agent: cannot return from a pod's network namespace; aborting\n")
                    os.abort()
        finally:
            os.close(home_fd)

    def sockets_inside(self, *, with_packet: bool = False, with_ipv6: bool = False) -> InsideSockets:
        """Route and on request packet socket of this namespace; the caller closes them."""
        return self.inside(lambda: InsideSockets(with_packet=with_packet, with_ipv6=with_ipv6))

    def ipv6_disabled(self, names: tuple[str, ...]) -> frozenset[str]:
        """Those of `names` (links, or `default` for links to come) that have IPv6 switched off."""
        return self.inside(lambda: frozenset(name for name in names if _ipv6_disabled(name)))

    def set_ipv6_disabled(self, name: str, disabled: bool) -> None:
        """Raises OSError."""
        self.inside(lambda: Path(_sysctl(name)).write_text("1" if disabled else "0"))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _demand_netns(path: str, fd: int) -> None:
    if _filesystem_magic(fd) != _NSFS_MAGIC:
        raise NetnsGoneError(path, "is a file, not a mounted namespace")
    if fcntl.ioctl(fd, _NS_GET_NSTYPE) != _CLONE_NEWNET:
        raise NetnsGoneError(path, "is a namespace of another kind")


def _sysctl(name: str) -> str:
    # /proc/sys/net shows the namespace of the thread that opens the path (fs/proc/proc_sysctl.c).
    return f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"


def _ipv6_disabled(name: str) -> bool:
    """Of the calling thread's namespace. A kernel without IPv6 has it switched off everywhere."""
    try:
        fd = os.open(_sysctl(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return os.read(fd, 1) != b"0"
    finally:
        os.close(fd)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


def _filesystem_magic(fd: int) -> int:
    # struct statfs starts with f_type as a long; os.statvfs does not show it.
    buffer = (ctypes.c_long * 32)()
    if _libc.fstatfs(fd, buffer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"fstatfs: {os.strerror(code)}")
    return buffer[0]
