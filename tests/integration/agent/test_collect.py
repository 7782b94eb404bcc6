"""CHECK, GC and the agent's own reconciliation; and where we only give addresses."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from shared import limits
from shared.contracts.attach import Detached, SweepStopped
from tests.integration.agent.conftest import Make, Node, native, until

IPAM = {
    "cniVersion": "1.0.0",
    "name": "chain",
    "type": "macvlan",
    "master": "eth1",
    "ipam": {"type": "spiderpool", "default_ipv4_ippool": ["v4"], "clean_gateway": True},
}


async def add(node: Node, container_id: str, configuration: dict[str, Any] | None = None) -> str:
    pod = node.lab.pod()
    answer = await node.call("ADD", container_id, node.lab.path(pod), configuration)
    assert answer.exit_code == 0, answer.body
    return pod


async def held(node: Node) -> set[str]:
    return {shown.container_id for shown in await node.attachments() if shown.state != "releasing"}


def test_check_names_each_difference(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = await add(node, "c1")
            path = node.lab.path(pod)
            node.lab.run(pod, "ip", "addr", "del", "10.6.0.9/16", "dev", "eth0")
            node.lab.run(pod, "ip", "link", "set", "eth0", "mtu", "1300")
            error = (await node.call("CHECK", "c1", path)).error
            assert error["code"] == 121
            assert "10.6.0.9/16" in error["msg"]
            assert "1300" in error["msg"]
            (shown,) = await node.attachments(check=True)
            assert len(shown.differences) >= 2
            assert (await node.call("CHECK", "unknown", path)).error["code"] == 3

    asyncio.run(work())


def test_collection_is_scoped(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            for container_id in ("kept", "dropped"):
                await add(node, container_id)
            await add(node, "foreign", native(name="another"))
            new = native(cniVersion="1.1.0")
            before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            await add(node, "younger")
            assert (await node.call("GC", configuration=new)).exit_code == 0
            assert len(await held(node)) == 4, "without the key nothing is deleted"
            valid = new | {"cni.dev/attachments": [{"containerID": "kept", "ifname": "eth0"}]}
            assert (await node.call("GC", configuration=valid, start_ns=before_ns)).exit_code == 0
            assert await held(node) == {"kept", "foreign", "younger"}
            detached = [event for event in await node.events() if isinstance(event, Detached)]
            assert [(event.container_id, event.reason) for event in detached] == [("dropped", "GC")]

    asyncio.run(work())


def test_a_container_that_went_without_a_del_is_found(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pods = {container_id: await add(node, container_id) for container_id in ("c1", "c2", "c3")}
            node.lab.remove(pods["c1"])

            async def swept() -> bool:
                return await held(node) == {"c2", "c3"}

            await until(swept, "the attachment that is gone is swept")
            await until(node.releases, "its release is published")
            (release,) = await node.releases()
            assert (release.container_id, release.reason) == ("c1", "gone")
            node.lab.remove(pods["c2"])
            node.lab.remove(pods["c3"])

            async def stopped() -> bool:
                return any(isinstance(event, SweepStopped) for event in await node.events())

            await until(stopped, "all at once is not believed")
            assert await held(node) == {"c2", "c3"}
            for container_id in ("c2", "c3"):
                assert (await node.call("DEL", container_id, "")).exit_code == 0

    asyncio.run(work())


def test_addresses_for_another_plugin(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            answer = await node.call("ADD", "c1", path, IPAM, name="spiderpool")
            assert set(answer.result) == {"cniVersion", "ips", "routes", "dns"}
            assert [ip["address"] for ip in answer.result["ips"]] == ["10.6.0.9/16", "fd00:6::9/64"]
            assert node.links(pod) == set()
            (asked,) = node.allocator.asked
            assert asked.interfaces[0].clean_gateway
            assert asked.interfaces[0].ipv4 == ("v4",)
            assert (await node.call("ADD", "c1", path, IPAM, name="spiderpool")).result == answer.result
            assert len(node.allocator.asked) == 1
            assert (await node.call("CHECK", "c1", path, IPAM, name="spiderpool")).exit_code == 0
            assert (await node.call("DEL", "c1", path, IPAM, name="spiderpool")).exit_code == 0
            await until(node.releases, "the release is published")
            (release,) = await node.releases()
            assert release.cooldown_s == limits.COOLDOWN_IPAM_S

    asyncio.run(work())


def test_chained_plugins_do_not_touch_what_the_main_plugin_attached(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = await add(node, "c1")
            path = node.lab.path(pod)
            idle = native(type="coordinator", mode="disable", prevResult={"cniVersion": "1.0.0", "ips": []})
            answer = await node.call("ADD", "c1", path, idle, name="coordinator")
            assert answer.result == {"cniVersion": "1.0.0", "ips": []}
            for verb in ("CHECK", "DEL"):
                assert (await node.call(verb, "c1", path, idle, name="coordinator")).body == b""
            assert node.links(pod) == {"eth0"}
            assert (await node.call("ADD", "c1", path, native(type="coordinator"), name="coordinator")).error[
                "code"
            ] == 119

    asyncio.run(work())


def test_refused_namespaces(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            for path, code in (
                (node.lab.path(node.lab.nodes[0]), 113),
                ("/proc/1/ns/net", 113),
                ("/etc/passwd", 113),
                ("/run/netns/none-of-this-name", 4),
            ):
                assert (await node.call("ADD", "c1", path)).error["code"] == code
            assert await held(node) == set()
            assert not node.allocator.asked

    asyncio.run(work())


def test_del_with_any_configuration(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            for number, body in enumerate(
                (
                    b"",
                    b"{",
                    native(cniVersion="9"),
                    native(name="other", master="none"),
                    *(native(cniVersion=version) for version in ("0.3.0", "0.3.1", "0.4.0")),
                )
            ):
                pod = await add(node, f"c{number}")
                answer = await node.call("DEL", f"c{number}", "", body)
                assert (answer.exit_code, answer.body) == (0, b"")
                assert node.links(pod) == set()

    asyncio.run(work())
