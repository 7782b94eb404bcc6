"""The shim as a script, for a machine where the executable cannot be built: another architecture, no compiler.

Owns the twin, in Python, of what main.c gives the shim, and the text of the launcher: the same sources, run by
`python3 -I -S`. Costs about 5 ms a call more. Must not know the protocol.
"""

import posix
import time


class Native:
    """What the shim needs of the process and cannot have from `posix`; main.c has the same names."""

    start_ns: int
    """CLOCK_BOOTTIME at the start of the process."""
    executable: bytes
    """The file that runs."""
    called_as: bytes
    """The path it was executed by; its last part is the plugin's name."""

    def __init__(self, start_ns: int, called_as: bytes) -> None:
        self.start_ns = start_ns
        self.executable = self.called_as = called_as
        while target := _link_target(self.executable):
            self.executable = target

    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def sleep(self, duration_ns: int) -> None:
        if duration_ns > 0:
            time.sleep(duration_ns / 1e9)

    def setns(self, descriptor: int, kind: int) -> None:
        """Raises OSError. See setns(2)."""
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(descriptor, kind) != 0:
            raise OSError(ctypes.get_errno(), posix.strerror(ctypes.get_errno()))

    def readable(self, descriptor: int, until_ns: int) -> bool:
        """Whether a read returns at once: waits for it, but not beyond `until_ns`."""
        import select

        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        return bool(waiting.poll(max((until_ns - self.boottime_ns()) / 1e6, 0)))


def _link_target(path: bytes) -> bytes:
    try:
        target = posix.readlink(path)
    except OSError:
        return b""
    return target if target[:1] == b"/" else path[: path.rfind(b"/") + 1] + target


_LAUNCHER = """#!/usr/bin/python3 -IS
import time
START_NS = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
import sys

for name, source in {sources!r}.items():
    module = sys.modules[name] = type(sys)(name)
    exec(compile(source, name, "exec"), module.__dict__)
native = sys.modules["cni.fallback"].Native(START_NS, sys.argv[0].encode("utf-8", "surrogateescape"))
sys.modules["cni.shim"].main(native)
"""


def launcher(sources: dict[str, str]) -> str:
    """The text of an executable script that holds `sources` (module name → text, in the order of import)."""
    return _LAUNCHER.format(sources=sources)
