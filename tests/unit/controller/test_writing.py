"""The loop of writes leaves the event loop to others: what a piece of work waits for must be able to happen."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from services.controller.writing import Writing


class Unready:
    """Has nothing to ask anybody, and wants to be looked at again until `ready`, as a pool that goes before all is told."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self.ready = False
        self.looks = 0

    async def bring(self, namespace: str, name: str) -> float:
        self.looks += 1
        if not self.ready:
            self._writing.add("pool", namespace, name, 0.1)
        return 0.0


def test_work_that_waits_for_others_lets_them_run() -> None:
    async def main() -> None:
        # Nothing is written: there is nothing to count.
        writing = Writing(lambda: True, lambda: 0.5, cast("Any", None))
        worker = Unready(writing)
        for number in range(50):
            writing.add("pool", "", str(number))
        running = asyncio.create_task(writing.run({"pool": worker}))
        await asyncio.sleep(0.5)
        worker.ready = True
        await asyncio.sleep(0.3)
        assert len(writing) == 0
        assert 50 < worker.looks < 50 * 20
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 30))
