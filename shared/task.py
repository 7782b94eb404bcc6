"""Ending asyncio tasks for certain.

Must not know what a task does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

_HEARD_S = 0.2


async def end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancels until it is heard: before Python 3.12, wait_for loses a cancellation that meets its result (cpython #86296)."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_HEARD_S)
