"""What the allocator asks of a real agent when a pod is gone and no DEL was heard."""

from __future__ import annotations

import asyncio

from shared import subjects
from shared.contracts.attach import Detached
from shared.contracts.codec import encode
from shared.contracts.collect import DETACH_ANSWER, AskDetach, DetachAnswer
from tests.integration.agent.conftest import NODE, Make, Node
from tests.integration.agent.test_networks import IFNAMES, WHOLE, forgotten, several

REASON = "collected: missing"


async def ask(node: Node, ifname: str, generation: int, container: str = "c1") -> DetachAnswer:
    question = AskDetach(container_id=container, ifname=ifname, generation=generation, reason=REASON)
    reply = await node.bus.request(subjects.ask_detach(NODE), encode(question), 10.0)
    return DETACH_ANSWER.decode(reply.data)


def test_what_was_judged_is_undone_and_released_and_nothing_else(make: Make) -> None:
    """Another generation is another attach: it stays. A late DEL finds nothing, and succeeds."""

    async def work() -> None:
        async with make as node:
            pod, other = node.lab.pod(), node.lab.pod()
            for container, where in (("c1", pod), ("c2", other)):
                assert (await node.call("ADD", container, node.lab.path(where))).exit_code == 0
            assert (await ask(node, "eth0", 8)).outcome == "newer"
            assert (await ask(node, "eth0", 9, container="c9")).outcome == "unknown"
            assert (await ask(node, "net7", 9)).outcome == "unknown"
            assert "eth0" in node.links(pod)
            assert (await ask(node, "eth0", 9)).outcome == "detached"
            assert node.links(pod) == set() and "eth0" in node.links(other)
            assert (await node.call("DEL", "c1", node.lab.path(pod))).exit_code == 0
            (release,) = [one for one in await node.releases() if one.container_id == "c1"]
            assert (release.generation, release.reason) == (9, REASON)
            (told,) = [one for one in await node.events() if isinstance(one, Detached)]
            assert told.reason == REASON
            assert [row.container_id for row in await node.attachments()] == ["c2"]

    asyncio.run(work())


def test_one_interface_asked_for_is_the_whole_attachment_that_made_it(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            node.allocator.change = several()
            pod = node.lab.pod()
            assert (await node.call("ADD", "c1", node.lab.path(pod), WHOLE)).exit_code == 0
            assert node.links(pod) == set(IFNAMES)
            assert (await ask(node, "net3", 9)).outcome == "newer", "each interface has its own generation"
            assert (await ask(node, "net3", 12)).outcome == "detached"
            assert node.links(pod) == set()
            await forgotten(node)
            (release,) = await node.releases()
            assert (release.ifname, release.generation, len(release.others)) == ("eth0", 9, 8)

    asyncio.run(work())
