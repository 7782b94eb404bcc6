"""Asks those whose names or inboxes a tool does not know beforehand: all replicas of a service, and the services of any node.

Must not know what is asked.
"""

from __future__ import annotations

import asyncio

from shared.bus import Bus, Message
from shared.bus.node_questions import NodeQuestions, is_nobody


async def answers(bus: Bus, subject: str, payload: bytes, within_s: float) -> list[Message]:
    """All answers that come within that time. Raises BusError."""
    found: list[Message] = []
    reply = bus.connection.new_inbox()
    serving = await bus.listen(reply, found.append)
    try:
        await bus.publish(subject, payload, reply=reply)
        await asyncio.sleep(within_s)
    finally:
        await serving.stop()
    return [message for message in found if not is_nobody(message)]


class NodeBus:
    """How the services of one node are asked."""

    def __init__(self, questions: NodeQuestions, node: str) -> None:
        self._questions = questions
        self._node = node

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> Message:
        return await self._questions.request(self._node, subject, payload, timeout_s)
