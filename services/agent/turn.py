"""One call at a time for each attachment, in the order of arrival; calls of others do not wait.

Owns the locks and their end. Must not know what is done in a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from shared.ids import AttachmentId

T = TypeVar("T")


class Turns:
    def __init__(self) -> None:
        self._locks: dict[AttachmentId, asyncio.Lock] = {}
        self._users: dict[AttachmentId, int] = {}

    @asynccontextmanager
    async def turn(self, attachment: AttachmentId) -> AsyncGenerator[None]:
        lock = self._locks.setdefault(attachment, asyncio.Lock())
        self._users[attachment] = self._users.get(attachment, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._users[attachment] -= 1
            if not self._users[attachment]:
                del self._locks[attachment], self._users[attachment]

    def is_taken(self, attachment: AttachmentId) -> bool:
        return attachment in self._locks


async def uninterrupted(work: Awaitable[T]) -> T:
    """The result of `work`, which a cancellation of the caller does not reach; CancelledError comes when it has ended.

    For what happens in a thread: it goes on whatever the caller does, so its end must be awaited before it is undone.
    """
    future = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            if future.cancelled():
                raise
            cancelled = error
        except BaseException:
            break
    result = future.result()
    if cancelled is not None:
        raise cancelled
    return result
