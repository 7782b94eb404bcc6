"""The kernel awaited: its calls block, so they run in threads of their own, a bounded number at once.

Owns the threads, and that a call once begun is awaited to its end whatever becomes of the caller. Must not know the
journal's file, leases or the bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from services.agent.call_trace import CallTrace
from services.agent.entry import Entry
from services.agent.execute import StepTiming
from services.agent.kernel import AttachedInterface, Kernel
from services.agent.netns import Netns, NetnsError, NetnsGoneError
from services.agent.scan import Scan
from services.agent.state import DesiredInterface
from services.agent.turn import uninterrupted
from shared.clock import NodeClock
from shared.errors import OrbweaverError
from shared.ids import AttachmentId

log = structlog.get_logger()

THREADS = 16

T = TypeVar("T")


class KernelThreads:
    """`kernel` stays the caller's to close, after `close`."""

    def __init__(self, kernel: Kernel, boot_id: str, clock: NodeClock) -> None:
        self._kernel = kernel
        self._boot_id = boot_id
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kernel")

    def close(self) -> None:
        self._threads.shutdown()

    def open_pod(self, path: str) -> Netns:
        """A pod's namespace; the caller closes it. Raises OrbweaverError: `environment_invalid` where nothing is at the
        path, `netns_refused` for what is there and no pod could have."""
        try:
            netns = self._kernel.open(path)
        except NetnsError as error:
            if isinstance(error, NetnsGoneError) and self._is_absent(path):
                message = f"CNI_NETNS: {error.message}; the runtime makes it before it calls ADD"
                raise OrbweaverError("environment_invalid", message) from None
            raise OrbweaverError("netns_refused", f"CNI_NETNS: {error.message}") from None
        if whose := self._kernel.whose(netns):
            netns.close()
            raise OrbweaverError(
                "netns_refused", f"CNI_NETNS: network namespace {path!r} is {whose}, not a pod's"
            )
        return netns

    async def attach(
        self, netns: Netns, wanted: tuple[DesiredInterface, ...], trace: CallTrace
    ) -> tuple[AttachedInterface, ...]:
        """Raises as Kernel.attach. Cancellation comes after the end: then the interfaces are there."""
        steps: list[StepTiming] = []
        try:
            return await uninterrupted(
                self._run(self._kernel.attach, netns, wanted, steps.append, trace=trace)
            )
        finally:
            trace.kernel(steps)

    async def detach(self, entry: Entry, trace: CallTrace | None = None) -> tuple[str, ...]:
        """Removes what the entry may have made; success where there is nothing. The names of links of others that stand in the
        place of its own. Raises OrbweaverError."""
        if not entry.links:
            return ()
        steps: list[StepTiming] = []
        try:
            detached = await uninterrupted(
                self._run(
                    self._kernel.detach,
                    entry.netns,
                    entry.device,
                    entry.inode,
                    entry.links,
                    steps.append,
                    trace=trace,
                )
            )
        finally:
            if trace is not None:
                trace.kernel(steps)
        if detached.spared:
            log.info("links of others left alone", attachment=str(entry.attachment), links=detached.spared)
        return detached.spared

    async def differences(self, entry: Entry, netns_path: str = "") -> tuple[str, ...]:
        """What the kernel shows otherwise than the journal says; empty where the link is not ours to make."""
        if entry.mode == "ipam" or entry.state != "completed":
            return ()
        return await self._run(self._compare, entry, netns_path or entry.netns)

    async def gone(self, entries: Iterable[Entry]) -> frozenset[AttachmentId]:
        """Those whose namespace is not at its path any more."""
        return await self._run(
            lambda: frozenset(entry.attachment for entry in entries if self._is_gone(entry))
        )

    async def scan(self) -> Scan:
        """What the machine's namespaces show of this node."""
        return await self._run(self._kernel.scan)

    def _compare(self, entry: Entry, netns_path: str) -> tuple[str, ...]:
        if entry.boot_id != self._boot_id:
            return ("the machine was started anew since it was attached",)
        try:
            with self._kernel.open(netns_path) as netns:
                if (netns.device, netns.inode) != (entry.device, entry.inode):
                    return (f"{netns_path!r} is another network namespace than the one that was attached",)
                return tuple(self._kernel.check(netns, entry.desired))
        except NetnsError as error:
            return (error.message,)

    def _is_gone(self, entry: Entry) -> bool:
        if entry.boot_id != self._boot_id:
            return True
        try:
            return self._kernel.identity(entry.netns) != (entry.device, entry.inode)
        except OSError:
            return False

    def _is_absent(self, path: str) -> bool:
        try:
            return self._kernel.identity(path) is None
        except OSError:
            return False

    def _run(
        self, function: Callable[..., T], *arguments: object, trace: CallTrace | None = None
    ) -> asyncio.Future[T]:
        queued_ns = self._clock.boottime_ns()

        def begun() -> T:
            if trace is not None:
                trace.waited_ns += self._clock.boottime_ns() - queued_ns
            return function(*arguments)

        return asyncio.get_running_loop().run_in_executor(self._threads, begun)
