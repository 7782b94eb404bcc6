"""Turns of one attachment, and work that no cancellation interrupts."""

from __future__ import annotations

import asyncio

import pytest

from services.agent.turn import Turns, uninterrupted
from shared.ids import AttachmentId

A, B = AttachmentId("a", "eth0"), AttachmentId("b", "eth0")


def test_turns_are_taken_in_order_and_forgotten() -> None:
    async def work() -> None:
        turns = Turns()
        heard: list[str] = []

        async def one(attachment: AttachmentId, name: str) -> None:
            async with turns.turn(attachment):
                heard.append(f"{name} in")
                await asyncio.sleep(0.001)
                heard.append(f"{name} out")

        tasks = [asyncio.create_task(one(A, name)) for name in ("1", "2", "3")]
        tasks.append(asyncio.create_task(one(B, "other")))
        await asyncio.sleep(0)
        assert heard[:2] == ["1 in", "other in"], "attachments do not wait for each other"
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [word for word in heard if "other" not in word] == ["1 in", "1 out", "3 in", "3 out"]
        assert not turns.is_taken(A)

    asyncio.run(work())


def test_uninterrupted_ends_before_it_is_cancelled() -> None:
    async def work() -> None:
        ended = False

        async def slow() -> str:
            nonlocal ended
            await asyncio.sleep(0.02)
            ended = True
            return "result"

        assert await uninterrupted(slow()) == "result"
        ended = False
        task = asyncio.create_task(uninterrupted(slow()))
        await asyncio.sleep(0.001)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.001)
        assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended

    asyncio.run(work())


def test_uninterrupted_raises_what_failed() -> None:
    async def work() -> None:
        async def fails() -> None:
            await asyncio.sleep(0.001)
            raise ValueError("so")

        with pytest.raises(ValueError, match="so"):
            await uninterrupted(fails())

    asyncio.run(work())
