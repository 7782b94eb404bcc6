"""Are the NATS servers set as a lease log needs them?

Owns the one setting that no stream info shows: `sync_interval: always`, read from every server through the system account.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from shared.bus import Bus, BusError, Message
from shared.settings import BusSettings

FIRST_S, STEP_S, GATHER_S = 2.0, 0.005, 0.3


class UnsafeServers(Exception):
    """A server acknowledges before it syncs, or none could be asked; the sentence names the setting."""


def wrong_settings(varz: dict[str, Any]) -> str:
    """What is wrong with one server's VARZ, or empty. A server without JetStream holds no log."""
    jetstream: dict[str, Any] = varz.get("jetstream") or {}
    config: dict[str, Any] = jetstream.get("config") or {}
    if not config:
        return ""
    if not config.get("sync_always"):
        return f"server {varz.get('server_name')}: jetstream sync_interval is not `always`: it acknowledges before it syncs"
    return ""


def _varz(answer: Message) -> dict[str, Any]:
    return msgspec.json.decode(answer.data).get("data", {})


async def assert_servers(settings: BusSettings) -> None:
    """Asks all servers: one that is in no cluster is all there is, for the others of a cluster it waits. Raises UnsafeServers."""
    try:
        bus = await Bus.connect(settings, "allocator settings check", attempts=10)
    except BusError as error:
        raise UnsafeServers(f"the system account cannot be used: {error}") from None
    try:
        answers: list[Message] = []
        inbox = bus.connection.new_inbox()
        await bus.listen(inbox, answers.append)
        await bus.publish("$SYS.REQ.SERVER.PING.VARZ", b"", reply=inbox)
        left_s = FIRST_S
        while not answers and left_s > 0:
            await asyncio.sleep(STEP_S)
            left_s -= STEP_S
        if not answers:
            raise UnsafeServers("no server answers for its settings")
        if _varz(answers[0]).get("cluster"):
            await asyncio.sleep(GATHER_S)
        for answer in answers:
            wrong = wrong_settings(_varz(answer))
            if wrong:
                raise UnsafeServers(wrong)
    except BusError as error:
        raise UnsafeServers(f"the servers' settings cannot be read: {error}") from None
    finally:
        await bus.close()
