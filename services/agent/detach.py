"""What the allocator asks of this node when a pod is gone and no DEL was heard: detach, then release as every DEL does.

Owns which attachment is meant, and what is answered. Must not know why the pod counts as gone, nor how an attachment is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from services.agent import event
from services.agent.attachments import Attachments
from services.agent.entry import Entry
from shared.bus import Message
from shared.clock import NodeClock
from shared.contracts.attach import AttachEvent
from shared.contracts.codec import MessageError, encode
from shared.contracts.collect import ASK_DETACH, AskDetach, DetachAnswer
from shared.errors import OrbweaverError
from shared.ids import AttachmentId

log = structlog.get_logger()


def meant(entries: Mapping[AttachmentId, Entry], ask: AskDetach) -> Entry | None:
    """The attachment that has this interface: its own, or one of those that were attached together with it. Pure."""
    own = entries.get(AttachmentId(ask.container_id, ask.ifname))
    if own is not None:
        return own
    return next(
        (
            entry
            for entry in entries.values()
            if entry.container_id == ask.container_id
            and any(one.ifname == ask.ifname for one in entry.others)
        ),
        None,
    )


def generation_of(entry: Entry, ifname: str) -> int:
    return next((one.generation for one in entry.leased if one.ifname == ifname), 0)


class Detaching:
    def __init__(
        self,
        *,
        node: str,
        entries: Mapping[AttachmentId, Entry],
        attachments: Attachments,
        clock: NodeClock,
        emit: Callable[[AttachEvent], None],
        refused: Callable[[str], None],
    ) -> None:
        self._node = node
        self._entries = entries
        self._attachments = attachments
        self._clock = clock
        self._emit = emit
        self._refused = refused

    async def on_ask(self, message: Message) -> bytes | None:
        try:
            ask = ASK_DETACH.decode(message.data)
        except MessageError:
            self._refused("orb.ask.detach")
            return None
        return encode(await self.detach(ask))

    async def detach(self, ask: AskDetach) -> DetachAnswer:
        """Undoes the attachment if it still has the generation that was judged. Asked again, it answers the same."""
        asked_ns = self._clock.boottime_ns()
        entry = meant(self._entries, ask)
        if entry is None:
            return DetachAnswer(outcome="unknown")
        generation = generation_of(entry, ask.ifname)
        if generation != ask.generation:
            return DetachAnswer(outcome="newer", message=f"it has generation {generation}")
        if self._attachments.is_busy(entry.attachment):
            return DetachAnswer(outcome="newer", message="a call of it is under way")
        try:
            ended = await self._attachments.delete(entry.attachment, ask.reason, asked_ns)
        except OrbweaverError as error:
            return DetachAnswer(outcome="failed", message=error.message)
        if ended is not None:
            log.warning("detached, for its pod is gone", attachment=str(entry.attachment), reason=ask.reason)
            told_ns = self._clock.boottime_ns() - asked_ns
            self._emit(event.detached(ended, self._node, self._clock.unix_ns(), told_ns, ""))
        return DetachAnswer(outcome="detached")
