"""What the product takes from the machine at import, given from the simulation for the time of one run."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import structlog

from services.agent import call_trace, kernel_thread
from services.agent.netns import NetnsGoneError
from shared import limits
from tests.simulation.clock import BOOTED_NS
from tests.simulation.kernel import SimulatedNetns, Wire
from tests.simulation.loop import Scheduler

LOG_HISTORY_S = 20.0


def _clocked() -> list[ModuleType]:
    """The agent's modules that look at the clock of boot time."""
    return [
        module
        for name, module in sys.modules.items()
        if name.startswith("services.agent.") and "now_ns" in vars(module)
    ]


@contextmanager
def machine(scheduler: Scheduler, wire: Wire) -> Generator[None]:
    """The clock of boot time and the mounts of network namespaces are the simulation's; history is short."""

    def now_ns() -> int:
        return BOOTED_NS + int(scheduler.now_s * 1e9)

    class Netns:
        @staticmethod
        def open(path: str) -> SimulatedNetns:
            namespace = wire.namespaces.get(path)
            if namespace is None:
                raise NetnsGoneError(path, "does not exist")
            return SimulatedNetns(namespace)

    class Path:
        def __init__(self, path: str) -> None:
            self._path = path

        def exists(self) -> bool:
            return self._path in wire.namespaces

        def stat(self) -> Any:
            namespace = wire.namespaces.get(self._path)
            if namespace is None:
                raise FileNotFoundError(self._path)
            return _Status(4, namespace.inode)

    with ExitStack() as stack:
        for module in _clocked():
            stack.enter_context(patch.object(module, "now_ns", now_ns))
        stack.enter_context(patch.object(call_trace, "boottime_offset_ns", lambda: 0))
        stack.enter_context(patch.object(kernel_thread, "Netns", Netns))
        stack.enter_context(patch.object(kernel_thread, "Path", Path))
        stack.enter_context(patch.object(limits, "LOG_HISTORY_S", LOG_HISTORY_S))
        yield


class _Status:
    def __init__(self, device: int, inode: int) -> None:
        self.st_dev = device
        self.st_ino = inode


@contextmanager
def quiet() -> Generator[None]:
    """No log line is made."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)
