"""What a taken node may do without end takes nothing from others: links, memory, disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from pathlib import Path

from services.bus.config import LINKS_MAX
from shared import subjects
from shared.settings import BusSettings
from shared.subjects import STREAMS
from tests.integration.cli.stage import Stage
from tests.security.attacker import TAKEN, VICTIM, Attacker, connected


def test_a_nodes_credential_opens_few_links(stage: Stage, attacker: Attacker, tmp_path: Path) -> None:
    """However many leaves log in with it; the nodes' own come back."""

    async def links() -> list[str]:
        async with connected(attacker.hub("sys")) as (system,):
            answer = await system.request("$SYS.REQ.SERVER.PING.LEAFZ", b"")
        return [leaf["name"] for leaf in json.loads(answer.data)["data"]["leafs"]]

    with contextlib.ExitStack() as rogues:
        for number in range(LINKS_MAX + 2):
            directory = tmp_path / str(number)
            directory.mkdir()
            rogues.enter_context(attacker.rogue(directory))
        found = asyncio.run(links())
        assert len(found) <= LINKS_MAX + 1, found
        assert {f"leaf-{TAKEN}", f"leaf-{VICTIM}"} <= set(found)
    assert sorted(asyncio.run(links())) == [f"leaf-{TAKEN}", f"leaf-{VICTIM}"]
    one = stage.attach("web-1")
    stage.detach(one)
    stage.lab.remove(one.netns)


def test_what_nodes_tell_freely_has_an_end(attacker: Attacker) -> None:
    """Every stream that takes a node's word keeps the last of a subject, or is bounded, in all or for each node."""
    for spec in STREAMS:
        if spec.name in ("RELEASES", "INVENTORY", "SPANS", "ATTACH"):
            assert spec.last_per_subject or spec.subject_max_messages > 0 or spec.max_bytes > 0, spec.name


def test_a_flood_of_garbage_keeps_no_pod_of_another_node_waiting(
    stage: Stage, attacker: Attacker, rogue: BusSettings
) -> None:
    payload = secrets.token_bytes(2000)
    until = asyncio.Event()

    async def flood() -> int:
        sent = 0
        async with connected(rogue) as (bus,):
            while not until.is_set():
                for subject in (
                    subjects.allocate(TAKEN),
                    subjects.witness(TAKEN),
                    subjects.span("agent", TAKEN),
                    subjects.attach(TAKEN),
                ):
                    await bus.publish(subject, payload)
                    sent += 1
                await asyncio.sleep(0.005)
        return sent

    async def scenario() -> int:
        flooding = asyncio.create_task(flood())
        await asyncio.sleep(0.5)
        for _ in range(3):
            one = await asyncio.to_thread(stage.attach, "web-2")
            await asyncio.to_thread(stage.detach, one)
            stage.lab.remove(one.netns)
        until.set()
        return await flooding

    assert asyncio.run(scenario()) > 100
    assert stage.json("status")["ready"]
