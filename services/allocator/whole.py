"""Waiting until the facts are as their source is now.

Owns the question to the controller. A stream of facts that lost its end to a power cut, or that is an older copy, still says that it
is complete; what it lacks is not gone. Must not know what waits for it.
"""

from __future__ import annotations

import asyncio

import structlog

from services.allocator.facts import Facts
from shared import subjects
from shared.bus import Bus, BusError
from shared.contracts.codec import MessageError, encode
from shared.contracts.facts import ASK_FACTS_TIMEOUT_S, SYNC_ANSWER, AskSync

log = structlog.get_logger()

ASK_AGAIN_S = 1.0
LOOK_AGAIN_S = 0.01


async def whole(bus: Bus, facts: Facts, waits: str) -> None:
    """Returns when they are, however long the controller is away; `waits` says what waits so long."""
    while not await whole_if_told(bus, facts, waits):
        await asyncio.sleep(ASK_AGAIN_S)


async def whole_if_told(bus: Bus, facts: Facts, waits: str) -> bool:
    """Asks the controller once. True when they are, False if it does not answer."""
    try:
        reply = await bus.request(subjects.ASK_SYNC, encode(AskSync()), ASK_FACTS_TIMEOUT_S)
        answer = SYNC_ANSWER.decode(reply.data)
    except (BusError, MessageError) as error:
        log.info(f"{waits} waits for the objects", error=str(error))
        return False
    while not facts.synced or facts.sequence < answer.facts_sequence:
        await asyncio.sleep(LOOK_AGAIN_S)
    return True
