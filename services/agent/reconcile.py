"""Finds attachments whose container went without a DEL: containerd never calls GC, so the agent looks by itself.

Owns the rule (`judge`, pure) and the loop around it. Must not know how an attachment is detached.
An attachment is gone when its namespace is missing or another one, at two looks in a row. Where all of them are gone at once,
or more than a few, the mount that shows us the namespaces is the likelier cause: then nothing is detached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec
import structlog

from services.agent import event
from services.agent.attachments import Attachments
from services.agent.entry import Entry
from services.agent.kernel_thread import KernelThreads
from shared import limits
from shared.clock import NodeClock
from shared.contracts.attach import AttachEvent, SweepStopped
from shared.errors import OrbweaverError
from shared.ids import AttachmentId

log = structlog.get_logger()


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """`suspects` are gone for the first time, or held back; `stopped` is their number where a sweep was held back."""

    sweep: frozenset[AttachmentId] = frozenset()
    suspects: frozenset[AttachmentId] = frozenset()
    stopped: int = 0


def judge(gone: frozenset[AttachmentId], suspects: frozenset[AttachmentId], attachments: int) -> Judgement:
    """`gone` now, `suspects` of the look before, among so many attachments."""
    twice = gone & suspects
    most = max(limits.RECONCILE_SWEEP_MIN, limits.RECONCILE_SWEEP_FRACTION * attachments)
    if twice and (len(gone) == attachments or len(twice) > most):
        return Judgement(suspects=gone, stopped=len(gone))
    return Judgement(sweep=twice, suspects=gone - twice)


class Reconciliation:
    def __init__(
        self,
        *,
        node: str,
        interval_s: float,
        entries: Mapping[AttachmentId, Entry],
        attachments: Attachments,
        kernel: KernelThreads,
        clock: NodeClock,
        emit: Callable[[AttachEvent], None],
    ) -> None:
        self._node = node
        self._interval_s = interval_s
        self._entries = entries
        self._attachments = attachments
        self._kernel = kernel
        self._clock = clock
        self._emit = emit
        self._suspects: frozenset[AttachmentId] = frozenset()
        self._told = 0

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.look()
            except Exception:
                log.exception("reconciliation failed; it is tried again")

    async def look(self) -> None:
        """One look. Attachments with a call under way are left to it."""
        for entry in tuple(self._entries.values()):
            if entry.state == "releasing":
                await self._finish(entry)
        present = [entry for entry in self._entries.values() if entry.state != "releasing"]
        gone = await self._kernel.gone(present)
        judgement = judge(gone, self._suspects, len(present))
        self._suspects = judgement.suspects
        if judgement.stopped and judgement.stopped != self._told:
            log.warning("sweep stopped", gone=judgement.stopped, attachments=len(present))
            self._emit(
                SweepStopped(
                    at_ns=self._clock.unix_ns(),
                    node=self._node,
                    gone=judgement.stopped,
                    attachments=len(present),
                )
            )
        self._told = judgement.stopped
        for entry in present:
            # One that has changed since it was looked at is another attach.
            unchanged = self._entries.get(entry.attachment) is entry
            if (
                entry.attachment in judgement.sweep
                and unchanged
                and not self._attachments.is_busy(entry.attachment)
            ):
                await self._sweep(entry.attachment)

    async def _sweep(self, attachment: AttachmentId) -> None:
        try:
            entry = await self._attachments.delete(attachment, "gone", self._clock.boottime_ns())
        except OrbweaverError as error:
            log.warning("not swept", attachment=str(attachment), error=error.message)
        else:
            if entry is not None:
                log.info("swept", attachment=str(attachment), netns=entry.netns)
                self._emit(event.detached(entry, self._node, self._clock.unix_ns(), 0, ""))

    async def _finish(self, entry: Entry) -> None:
        try:
            await self._attachments.finish_detach(entry)
        except OrbweaverError as error:
            log.warning("detach still fails", attachment=str(entry.attachment), error=error.message)
