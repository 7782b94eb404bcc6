"""What survives: kill -9 in the middle of an attach or a detach, hub and allocator away, a rebooted machine."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from pathlib import Path

import msgspec

from services.agent.journal import Journal
from shared import subjects
from tests.integration.agent.conftest import Make, Node, forgotten, native, until
from tests.support.service import Service


def test_killed_in_the_middle_and_the_same_attempt_answers(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            gate = asyncio.Event()
            node.allocator.before = lambda _: gate.wait()
            attempt = secrets.token_hex(16)
            adding = asyncio.create_task(node.call("ADD", "c1", path, attempt=attempt))
            await until(lambda: node.allocator.asked, "the allocator is asked")
            node.service.kill()
            gate.set()
            await node.start()
            result = (await adding).result
            assert {ip["address"] for ip in result["ips"]} == node.addresses(pod)
            assert {command.attempt for command in node.allocator.asked} == {attempt}
            (shown,) = await node.attachments(check=True)
            assert (shown.state, shown.differences) == ("completed", ())

    asyncio.run(work())


def test_killed_at_any_moment(make: Make) -> None:
    """Eight attaches under way, a kill after some milliseconds: every one of them ends whole."""

    async def work() -> None:
        async with make as node:
            pods = node.lab.pods(8)
            adding = [
                asyncio.create_task(node.call("ADD", f"c{number}", node.lab.path(pod)))
                for number, pod in enumerate(pods)
            ]
            await asyncio.sleep(0.008)
            node.service.kill()
            await node.start()
            for task, pod in zip(adding, pods, strict=True):
                result = (await task).result
                assert {ip["address"] for ip in result["ips"]} == node.addresses(pod)
            assert all(not shown.differences for shown in await node.attachments(check=True))
            for number, pod in enumerate(pods):
                await node.call("DEL", f"c{number}", node.lab.path(pod))
                assert node.links(pod) == set()
            await forgotten(node)

    asyncio.run(work())


def test_a_completed_attach_answers_after_a_kill(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            first = (await node.call("ADD", "c1", path)).result
            node.service.kill()
            await node.start()
            assert (await node.call("ADD", "c1", path)).result == first
            assert len(node.allocator.asked) == 1
            assert (await node.call("CHECK", "c1", path)).exit_code == 0

    asyncio.run(work())


def test_del_while_hub_and_allocator_are_away_is_settled_later(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            await node.call("ADD", "c1", path)
            await node.bus.api("STREAM.DELETE.RELEASES")
            assert (await node.call("DEL", "c1", path)).exit_code == 0
            assert node.links(pod) == set()
            (shown,) = await node.attachments()
            assert shown.state == "releasing"
            assert (await node.call("DEL", "c1", path)).exit_code == 0
            node.service.kill()
            await node.start()
            (shown,) = await node.attachments()
            assert shown.state == "releasing"
            late = await node.call("ADD", "c1", path, deadline_s=1.5)
            assert late.error["code"] == 11, "an attachment begins anew only when its release is acknowledged"
            await node.bus.ensure_stream(subjects.RELEASES)
            await forgotten(node)
            (release,) = await node.releases()
            assert (release.container_id, release.generation) == ("c1", 9)
            assert (await node.call("ADD", "c1", path)).exit_code == 0

    asyncio.run(work())


def test_links_of_an_unfinished_add_are_removed_at_the_start(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            await node.call("ADD", "c1", node.lab.path(pod))
            node.service.kill()
            await _rewritten(node, state="intent")
            await node.start()
            assert node.links(pod) == set()
            (shown,) = await node.attachments()
            assert shown.state == "intent"
            assert (await node.call("CHECK", "c1", node.lab.path(pod))).error["code"] == 3

    asyncio.run(work())


def test_a_detach_that_was_begun_is_ended_at_the_start(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            await node.call("ADD", "c1", node.lab.path(pod))
            node.service.kill()
            await _rewritten(node, state="releasing", reason="DEL")
            await node.start()
            await forgotten(node)
            assert node.links(pod) == set()
            assert len(await node.releases()) == 1

    asyncio.run(work())


def test_after_a_reboot_an_attach_is_planned_anew(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            first = (await node.call("ADD", "c1", path)).result
            node.service.kill()
            await _rewritten(node, boot_id="another")
            node.lab.run(pod, "ip", "link", "del", "eth0")
            await node.start()
            (shown,) = await node.attachments(check=True)
            assert shown.state == "completed"
            assert len(shown.differences) == 1
            assert (await node.call("CHECK", "c1", path)).error["code"] == 121
            assert (await node.call("ADD", "c1", path)).result == first
            assert node.links(pod) == {"eth0"}

    asyncio.run(work())


def test_another_namespace_at_the_same_path_is_not_the_same(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            await node.call("ADD", "c1", path)
            node.lab.run(node.lab.nodes[0], "true")
            _recreated(path)
            assert (await node.call("CHECK", "c1", path)).error["code"] == 121
            assert (await node.call("ADD", "c1", path)).exit_code == 0
            assert node.links(pod) == {"eth0"}

    asyncio.run(work())


def test_a_second_agent_does_not_start(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            directory = Path(node.settings.state).parent / "second"
            directory.mkdir()
            second = Service("services.agent", node.settings, directory)
            second.start()
            second.logged("in use")
            second.kill()

    asyncio.run(work())


def test_a_chain_of_versions_of_one_journal(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            await node.call("ADD", "c1", node.lab.path(pod), native(cniVersion="0.3.1"))
            node.service.kill()
            path = Path(node.settings.state) / "journal"
            content = path.read_bytes().rstrip(b"\0")
            path.write_bytes(content + b"ORBJ torn")
            await node.start()
            answer = await node.call("ADD", "c1", node.lab.path(pod), native(cniVersion="1.1.0"))
            assert answer.result["interfaces"][0]["mtu"] == 1500

    asyncio.run(work())


def _recreated(path: str) -> None:
    name = Path(path).name
    subprocess.run(["ip", "netns", "del", name], check=True)
    subprocess.run(["ip", "netns", "add", name], check=True)


async def _rewritten(node: Node, **changes: str) -> None:
    """What a kill at another moment, or a reboot, would have left in the journal."""
    journal = Journal.open(Path(node.settings.state))
    for entry in tuple(journal.entries.values()):
        await journal.put(msgspec.structs.replace(entry, **changes))
    await journal.close()
