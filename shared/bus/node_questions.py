"""Requests from the hub to the services of nodes.

Owns the inboxes of the answers. Must not know what is asked. One connection serves all nodes: the link of each lets it answer below an
inbox prefix of its own only (shared.subjects.tools_inbox, allocator_inbox), so an answer counts where it was asked for and nowhere else.
An ordinary request would have no answer: a hub does not extend `allow_responses` over a leaf link.
"""

from __future__ import annotations

import asyncio
import secrets

from shared.bus import Bus, BusTimeout, Message, NoResponder, Serving
from shared.subjects import inbox, token

AT_ONCE = 256


def is_nobody(message: Message) -> bool:
    """Whether the server itself answers that nobody serves the subject."""
    return message.headers.get("Status") == "503"


class NodeQuestions:
    """On the bus of `identity`, which the nodes' links must know as one that asks them."""

    def __init__(self, bus: Bus, identity: str) -> None:
        self._bus = bus
        self._inbox = inbox(identity)
        self._own = secrets.token_hex(8)
        self._asked = 0
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._opening = asyncio.Lock()
        self._serving: Serving | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def request(self, node: str, subject: str, payload: bytes, limit_s: float) -> Message:
        """The node's answer. Raises NoResponder or BusTimeout."""
        async with self._opening:
            if self._serving is None:
                self._serving = await self._bus.listen(f"{self._inbox}.*.{self._own}.*", self._on_answer)
        self._asked += 1
        reply = f"{self._inbox}.{token(node)}.{self._own}.{self._asked}"
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
        if is_nobody(message):
            raise NoResponder(f"nobody answers {subject}")
        return message

    async def close(self) -> None:
        """What is asked now is not answered any more."""
        if self._serving is not None:
            await self._serving.stop()

    def _on_answer(self, message: Message) -> None:
        waiting = self._waiting.get(message.subject)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)
