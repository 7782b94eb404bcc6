"""ADDs, DELs, CHECKs and kills of the agent in an order that a seed decides: the end is always clean."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.integration.agent.conftest import Answer, Make, Node, until

CONTAINERS = 6
CALLS = 60
ALLOWED = {0, 3, 11, 117, 121}
"""Success; unknown, try later, superseded, and a CHECK that met an ADD's beginning or end."""


def code(answer: Answer) -> int:
    return answer.error["code"] if answer.exit_code else 0


async def storm(node: Node, seed: int) -> None:
    chance = random.Random(seed)
    pods = dict(zip((f"c{n}" for n in range(CONTAINERS)), node.lab.pods(CONTAINERS), strict=True))
    calls: list[tuple[str, str, asyncio.Task[Answer]]] = []
    kills = sorted(chance.sample(range(CALLS), 2))
    for number in range(CALLS):
        container_id, pod = chance.choice(list(pods.items()))
        verb = chance.choice(("ADD", "ADD", "DEL", "CHECK"))
        calls.append(
            (verb, container_id, asyncio.create_task(node.call(verb, container_id, node.lab.path(pod))))
        )
        if number in kills:
            node.service.kill()
            await node.start()
        await asyncio.sleep(chance.uniform(0, 0.01))
    for verb, container_id, call in calls:
        answer = await call
        assert code(answer) in ALLOWED, (seed, verb, container_id, answer.body)

    # whatever stands is whole
    for shown in await node.attachments(check=True):
        assert not shown.differences, (seed, shown)
        if shown.state == "completed":
            assert set(shown.addresses) == node.addresses(pods[shown.container_id])
    for container_id, pod in pods.items():
        assert (await node.call("DEL", container_id, node.lab.path(pod))).exit_code == 0
        assert node.links(pod) == set()

    async def none_left() -> bool:
        return not await node.attachments()

    await until(none_left, "the journal is empty in the end")
    released = {(release.container_id, release.attempt) for release in await node.releases()}
    last = {command.container_id: command.attempt for command in node.allocator.asked}
    assert set(last.items()) <= released, "the last attempt of each container is given back"
    for pod in pods.values():
        node.lab.remove(pod)


@pytest.mark.parametrize("seed", range(3))
def test_storm(make: Make, seed: int) -> None:
    async def work() -> None:
        async with make as node:
            await storm(node, seed)

    asyncio.run(work())
