"""ADD, DEL and what comes between them, on a real agent."""

from __future__ import annotations

import asyncio

from tests.integration.agent.conftest import Make, until


def test_add_and_del(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            result = (await node.call("ADD", "c1", path)).result
            assert result["cniVersion"] == "1.0.0"
            (interface,) = result["interfaces"]
            assert interface["name"] == "eth0"
            assert interface["sandbox"] == path
            assert (
                {ip["address"] for ip in result["ips"]}
                == node.addresses(pod)
                == {"10.6.0.9/16", "fd00:6::9/64"}
            )
            assert {route["gw"] for route in result["routes"]} == {"10.6.0.1", "fd00:6::1"}
            assert node.lab.ping(pod, "10.6.0.1")
            assert node.lab.ping(pod, "fd00:6::1")
            (shown,) = await node.attachments(check=True)
            assert (shown.state, shown.differences, shown.parent) == ("completed", (), "eth1")
            assert (await node.call("CHECK", "c1", path)).exit_code == 0

            assert (await node.call("DEL", "c1", path)).body == b""
            assert node.links(pod) == set()
            await until(lambda: node.releases(), "the release is published")
            (release,) = await node.releases()
            assert (release.container_id, release.ifname, release.generation) == ("c1", "eth0", 9)
            assert release.attempt == node.allocator.asked[0].attempt
            assert release.cooldown_s == 0
            await until(lambda: _none_left(node), "the entry is forgotten")
            assert (await node.call("DEL", "c1", path)).exit_code == 0
            assert [type(event).__name__ for event in await node.events()] == ["AttachCompleted", "Detached"]

    asyncio.run(work())


async def _none_left(node: object) -> bool:
    return not await node.attachments()  # type: ignore[attr-defined]
