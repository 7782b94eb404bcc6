"""A node that asks without end takes no turn from the others, and what has no room is told to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared import limits, subjects
from shared.bus import Message
from shared.contracts.codec import encode
from shared.contracts.ipam import ALLOCATE_REPLY, Allocated, Refused
from shared.errors import ERRORS
from tests.integration.allocator.conftest import Cluster, Replicas
from tests.integration.allocator.held import HeldBus, held

Run = Callable[[Callable[[Cluster], Awaitable[None]]], None]
FLOOD = 3 * limits.QUEUE_NODE_MAX_REQUESTS
HONEST = 20


def test_a_node_that_floods_waits_behind_itself(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        bus = await HeldBus.connect(cluster.server.settings("allocator"), "held")
        async with held(cluster, replicas, bus):
            await cluster.attach("warm", timeout_s=2.0)
            answers: list[Allocated | Refused] = []

            def take(message: Message) -> None:
                answers.append(ALLOCATE_REPLY.decode(message.data))

            inbox = cluster.bus.connection.new_inbox()
            await cluster.bus.listen(f"{inbox}.*", take)
            bus.appends.clear()
            for number in range(FLOOD):
                command = encode(cluster.command(f"flood-{number}", node="n2"))
                await cluster.bus.publish(subjects.allocate("n2"), command, reply=f"{inbox}.{number}")

            async def refused() -> bool:
                return len(answers) >= FLOOD - limits.QUEUE_NODE_MAX_REQUESTS - 700

            await cluster.until(refused)
            assert all(
                isinstance(answer, Refused) and answer.error == "try_later" and "of node n2" in answer.message
                for answer in answers
            )
            assert ERRORS["try_later"].retry
            answers.clear()
            for number in range(HONEST):
                command = encode(cluster.command(f"honest-{number}"))
                await cluster.bus.publish(subjects.allocate("n1"), command, reply=f"{inbox}.h{number}")
            await cluster.bus.flush()
            await asyncio.sleep(0.2)
            bus.appends.set()

            async def served() -> list[int] | None:
                honest = [i for i, a in enumerate(answers) if a.attempt.startswith("attempt-honest")]
                return honest if len(honest) == HONEST else None

            places = await cluster.until(served)
            # what was decided before they came is answered before them; then the nodes are served in turn
            assert places[-1] - places[0] <= 2 * HONEST, places
            await cluster.check()

    run(body)
