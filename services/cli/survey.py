"""Asks those whose names or inboxes a tool does not know beforehand: all replicas of a service, and the services of any node.

Owns the inboxes. Must not know what is asked. One connection serves all nodes: each may answer below an inbox prefix of its own only
(shared.subjects.tools_inbox), so an answer counts where it was asked for and nowhere else.
"""

from __future__ import annotations

import asyncio
import secrets

from shared.bus import Bus, BusTimeout, Message, NoResponder
from shared.subjects import inbox, tools_inbox

AT_ONCE = 256


def _nobody(message: Message) -> bool:
    return message.headers.get("Status") == "503"


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
    return [message for message in found if not _nobody(message)]


class NodeQuestions:
    """Requests to the services of nodes, on the bus of the identity `tools`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._opening = asyncio.Lock()
        self._open = False
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def request(self, node: str, subject: str, payload: bytes, limit_s: float) -> Message:
        """The node's answer. Raises NoResponder or BusTimeout."""
        async with self._opening:
            if not self._open:
                await self._bus.listen(f"{inbox('tools')}.*.*", self._on_answer)
                self._open = True
        reply = f"{tools_inbox(node)}.{secrets.token_hex(8)}"
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        async with self._turns:
            self._waiting[reply] = future
            try:
                await self._bus.publish(subject, payload, reply=reply)
                async with asyncio.timeout(limit_s):
                    message = await future
            except TimeoutError:
                raise BusTimeout(f"no answer on {subject} within {limit_s:.1f} s") from None
            finally:
                del self._waiting[reply]
        if _nobody(message):
            raise NoResponder(f"nobody answers {subject}")
        return message

    def _on_answer(self, message: Message) -> None:
        waiting = self._waiting.get(message.subject)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)


class NodeBus:
    """How the services of one node are asked."""

    def __init__(self, questions: NodeQuestions, node: str) -> None:
        self._questions = questions
        self._node = node

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> Message:
        return await self._questions.request(self._node, subject, payload, timeout_s)
