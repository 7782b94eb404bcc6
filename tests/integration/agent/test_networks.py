"""An attach of many interfaces on a real agent: all or nothing, whatever fails or is killed, and what is given back."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable

import msgspec
import pytest

from shared import failpoint
from shared.contracts.attach import AttachCompleted, Detached
from shared.contracts.ipam import Allocated, Grant, NetworkInterface, Route
from tests.integration.agent.conftest import Make, Node, native, until

WHOLE = native(multiNetwork="native")
IFNAMES = ("eth0", *(f"net{number}" for number in range(1, 9)))
FIXED = Route(dst="10.9.0.0/16", gw="10.200.0.1")
MACVLAN = {"cniType": "macvlan", "macvlan": {"master": ["eth1"]}}


def several(
    ifnames: tuple[str, ...] = IFNAMES,
    specs: dict[str, object] | None = None,
    routes: dict[str, tuple[Route, ...]] | None = None,
) -> Callable[[Allocated], Allocated]:
    """The tiny allocator's answer, with an interface of network `shop/<ifname>` for each name."""

    def change(reply: Allocated) -> Allocated:
        grants = list(reply.grants)
        generation = grants[0].generation
        for number, ifname in enumerate(ifnames[1:], 1):
            grants += [
                Grant(
                    ifname=ifname,
                    family=family,
                    address=address,
                    pool="p",
                    generation=generation + number,
                    gateway=gateway,
                    routes=(routes or {}).get(ifname, ()) if family == 4 else (),
                )
                for family, address, gateway in (
                    (4, f"10.7.{number}.{generation}/24", f"10.7.{number}.1"),
                    (6, f"fd00:7:{number}::{generation:x}/64", f"fd00:7:{number}::1"),
                )
            ]
        networks = {f"shop/{ifname}": (specs or {}).get(ifname, MACVLAN) for ifname in ifnames[1:]}
        return msgspec.structs.replace(
            reply,
            grants=tuple(grants),
            interfaces=(
                NetworkInterface(ifname="eth0"),
                *(NetworkInterface(ifname=ifname, network=f"shop/{ifname}") for ifname in ifnames[1:]),
            ),
            networks={name: json.dumps(spec) for name, spec in networks.items()},
        )

    return change


async def restart(node: Node, monkeypatch: pytest.MonkeyPatch, point: str = "") -> None:
    node.service.kill()
    if point:
        monkeypatch.setenv(failpoint.VARIABLE, point)
    await node.start()
    monkeypatch.delenv(failpoint.VARIABLE, raising=False)


async def forgotten(node: Node) -> None:
    async def none_left() -> bool:
        return not await node.attachments()

    await until(none_left, "the journal forgets what is released")


async def whole(node: Node, pod: str) -> None:
    assert node.links(pod) == set(IFNAMES)
    assert len({address for ifname in IFNAMES for address in node.addresses(pod, ifname)}) == 18
    shown = await node.attachments(check=True)
    assert [row.interface for row in shown] == list(IFNAMES)
    assert {row.state for row in shown} == {"completed"}
    assert all(not row.differences for row in shown)


def test_nine_interfaces_and_what_is_told_of_them(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            node.allocator.change = several()
            pod = node.lab.pod()
            path = node.lab.path(pod)
            result = (await node.call("ADD", "c1", path, WHOLE)).result
            assert [interface["name"] for interface in result["interfaces"]] == ["eth0"]
            assert {ip["address"] for ip in result["ips"]} == node.addresses(pod)
            assert {route["gw"] for route in result["routes"]} == {"10.6.0.1", "fd00:6::1"}
            await whole(node, pod)
            defaults = {
                route["dev"]
                for family in ("-4", "-6")
                for route in node.lab.ip(pod, family, "route")
                if route["dst"] == "default"
            }
            assert defaults == {"eth0"}
            (asked,) = node.allocator.asked
            assert asked.further_networks
            assert len(asked.interfaces) == 1

            assert (await node.call("DEL", "c1", path)).body == b""
            assert node.links(pod) == set()
            await forgotten(node)
            (release,) = await node.releases()
            assert (release.ifname, release.generation) == ("eth0", 9)
            assert [(one.ifname, one.generation) for one in release.others] == [
                (f"net{number}", 9 + number) for number in range(1, 9)
            ]
            completed, detached = await node.events()
            assert isinstance(completed, AttachCompleted)
            assert isinstance(detached, Detached)
            assert [one.interface for one in completed.network_status] == list(IFNAMES)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("specs", "routes", "code", "named"),
    [
        ({"net6": {"cniType": "macvlan", "macvlan": {"master": ["nowhere0"]}}}, {}, 104, "nowhere0"),
        ({"net6": {"cniType": "sriov", "sriov": {}}}, {}, 119, "shop/net6"),
        ({"net6": {"cniType": "macvlan", "macvlan": {"master": ["eth1"], "mtu": 9000}}}, {}, 7, "net6"),
        ({}, {"net5": (FIXED,), "net6": (Route(dst="10.8.0.0/16", gw="224.0.0.9"),)}, 115, "10.8.0.0/16"),
    ],
    ids=["no parent", "another kind", "MTU too large", "refused by the kernel"],
)
def test_one_that_cannot_be_built_and_nothing_is_left(
    make: Make, specs: dict[str, object], routes: dict[str, tuple[Route, ...]], code: int, named: str
) -> None:
    async def work() -> None:
        async with make as node:
            node.allocator.change = several(specs=specs, routes=routes)
            pod = node.lab.pod()
            path = node.lab.path(pod)
            error = (await node.call("ADD", "c1", path, WHOLE)).error
            assert error["code"] == code, error
            assert named in error["msg"]
            assert node.links(pod) == set()
            node.allocator.change = several()
            await node.call("ADD", "c1", path, WHOLE)
            await whole(node, pod)
            assert len(node.allocator.given) == 1, "the retry drains nothing"

    asyncio.run(work())


def test_networks_that_come_and_go_between_two_adds(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            node.allocator.change = several()
            await node.call("ADD", "c1", path, WHOLE)
            node.lab.run(pod, "ip", "link", "del", "eth0")
            kept = ("eth0", "net4", "net2", "fast")
            node.allocator.change = several(kept)
            await node.call("ADD", "c1", path, WHOLE)
            assert node.links(pod) == set(kept)
            assert (await node.call("CHECK", "c1", path, WHOLE)).exit_code == 0
            await node.call("DEL", "c1", path)
            await forgotten(node)
            (release,) = await node.releases()
            assert {one.ifname for one in release.others} == {*IFNAMES[1:], "fast"}, "all that was ever given"

    asyncio.run(work())


def test_a_del_ends_a_running_add_of_all(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            node.allocator.change = several()
            pods = node.lab.pods(4)
            adding = [
                asyncio.create_task(node.call("ADD", f"c{n}", node.lab.path(pod), WHOLE))
                for n, pod in enumerate(pods)
            ]
            await until(lambda: node.allocator.asked, "the allocator is asked")
            for number, pod in enumerate(pods):
                await asyncio.sleep(0.002)
                assert (await node.call("DEL", f"c{number}", node.lab.path(pod))).exit_code == 0
            for task in adding:
                answer = await task
                assert answer.exit_code == 0 or answer.error["code"] == 117
            assert all(node.links(pod) == set() for pod in pods)
            await forgotten(node)

    asyncio.run(work())


def test_an_allocator_that_knows_one_network_only(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            error = (await node.call("ADD", "c1", node.lab.path(pod), WHOLE)).error
            assert error["code"] == 11
            assert node.links(pod) == set()

    asyncio.run(work())


@pytest.mark.parametrize(
    "point",
    [
        "agent.intent.journaled",
        "agent.allocate.answered",
        "agent.kernel.netns.open",
        "agent.kernel.link.create",
        "agent.kernel.address.batch",
        "agent.kernel.announce",
        "agent.journal.completed",
    ],
)
def test_killed_in_the_middle_of_an_add(make: Make, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    async def work() -> None:
        async with make as node:
            node.allocator.change = several()
            await restart(node, monkeypatch, point)
            pod = node.lab.pod()
            path = node.lab.path(pod)
            attempt = secrets.token_hex(16)
            adding = asyncio.create_task(node.call("ADD", "c1", path, WHOLE, attempt=attempt))
            await asyncio.to_thread(node.service.wait)
            adding.cancel()
            await restart(node, monkeypatch)
            shown = await node.attachments()
            if {row.state for row in shown} == {"completed"}:
                await whole(node, pod)
            else:
                assert node.links(pod) == set(), "repaired"
            await node.call("ADD", "c1", path, WHOLE, attempt=attempt)
            await whole(node, pod)
            assert len(node.allocator.given) == 1
            await node.call("DEL", "c1", path)
            assert node.links(pod) == set()
            await forgotten(node)

    asyncio.run(work())


@pytest.mark.parametrize(
    "point",
    [
        "agent.journal.releasing",
        "agent.kernel.link.delete",
        "agent.kernel.detached",
        "agent.release.published",
    ],
)
def test_killed_in_the_middle_of_a_del(make: Make, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    async def work() -> None:
        async with make as node:
            node.allocator.change = several()
            await restart(node, monkeypatch, point)
            pod = node.lab.pod()
            path = node.lab.path(pod)
            await node.call("ADD", "c1", path, WHOLE)
            deleting = asyncio.create_task(node.call("DEL", "c1", path))
            await asyncio.to_thread(node.service.wait)
            deleting.cancel()
            await restart(node, monkeypatch)
            await forgotten(node)
            assert node.links(pod) == set()
            assert {len(release.others) for release in await node.releases()} == {8}

    asyncio.run(work())


def test_killed_at_any_moment_of_many(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with make as node:
            node.allocator.change = several()
            pods = node.lab.pods(6)
            adding = [
                asyncio.create_task(node.call("ADD", f"c{number}", node.lab.path(pod), WHOLE))
                for number, pod in enumerate(pods)
            ]
            for _ in range(3):
                await asyncio.sleep(0.012)
                await restart(node, monkeypatch)
            for task, pod in zip(adding, pods, strict=True):
                assert (await task).exit_code == 0
                assert node.links(pod) == set(IFNAMES)
            assert all(not row.differences for row in await node.attachments(check=True))

    asyncio.run(work())
