"""A node's identity at the hub, from the attacker's side: real tokens of a real API server, real nats-servers with TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from shared.bus import Bus, BusDenied, BusError, Message
from shared.contracts.codec import encode
from shared.contracts.facts import ObjectFact, ObjectGone
from shared.settings import BusSettings
from shared.subjects import FACTS, INVENTORY, allocate, cni, facts, inventory, release, witness
from tests.cluster.bus.conftest import NODES, Site, await_true
from tests.support.kube import ApiServer

OWN, OTHER = NODES
SILENCE_S = 1.0


@contextlib.asynccontextmanager
async def connected(*settings: BusSettings) -> AsyncIterator[list[Bus]]:
    buses = [await Bus.connect(one, f"test-{one.user}", attempts=100) for one in settings]
    try:
        yield buses
    finally:
        for bus in buses:
            await bus.close()


async def tell_nodes(
    site: Site, *nodes: str, version: int = 1, gone: bool = False, by: int = 0, replicas: int = 1
) -> None:
    """The facts that the controller publishes, by its connection to one server of the hub."""
    async with connected(site.of_hub("controller", by)) as (controller,):
        await made(controller, replicas)
        for node in nodes:
            fact = (
                ObjectGone(kind="Node", namespace="", name=node, uid="u", version=version)
                if gone
                else ObjectFact(
                    kind="Node",
                    api_version="v1",
                    namespace="",
                    name=node,
                    uid="u",
                    version=version,
                    object=b"{}",
                )
            )
            await controller.append(facts("Node", "", node), encode(fact))


async def made(controller: Bus, replicas: int) -> None:
    """The stream of facts; a hub of three needs a moment before it can make one."""
    deadline = time.monotonic() + 120.0
    while True:
        try:
            await controller.ensure_stream(FACTS, replicas)
            return
        except BusError as error:
            assert time.monotonic() < deadline, error
            await asyncio.sleep(0.5)


async def links(site: Site) -> set[str]:
    """Names of the leaves that the hub lists."""
    return await links_as(site.of_hub("sys"))


async def links_as(system_user: BusSettings) -> set[str]:
    async with connected(system_user) as (system,):
        answer = json.loads((await system.request("$SYS.REQ.SERVER.PING.LEAFZ", b"")).data)
    return {leaf["name"] for leaf in answer["data"].get("leafs") or ()}


async def eventually(what: str, found: Callable[[], Awaitable[object]], limit_s: float = 40.0) -> None:
    deadline = time.monotonic() + limit_s
    while not await found():
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:.0f} s"
        await asyncio.sleep(0.1)


def test_a_node_links_with_its_pods_token_and_speaks_for_itself(site: Site) -> None:
    site.start_hub()
    site.start_leaf(OWN)

    async def answer(message: Message) -> bytes:
        return message.subject.encode()

    async def scenario() -> None:
        await tell_nodes(site, *NODES)
        await eventually("the link", lambda: has_link(f"leaf-{OWN}"))
        async with connected(site.of_hub("allocator"), site.of_node("agent", OWN)) as (allocator, agent):
            await allocator.serve("orb.ipam.>", answer)
            await eventually("the interest", lambda: answers(agent))

    async def has_link(name: str) -> bool:
        return name in await links(site)

    async def answers(agent: Bus) -> bool:
        try:
            return (await agent.request(allocate(OWN), b"")).data == allocate(OWN).encode()
        except BusError:
            return False

    asyncio.run(scenario())


def test_a_nodes_token_gives_no_other_nodes_key(site: Site) -> None:
    """What the hub gives is what the API server says of the token: no word of who asks has a part in it."""
    site.start_hub()
    for node in NODES:
        status, body = site.ask(site.token(f"agent-{node}"))
        assert status == 200 and json.loads(body)["node"] == node
    own, other = (json.loads(site.ask(site.token(f"agent-{node}"))[1])["seed"] for node in NODES)
    assert own != other
    rogue = site.start_rogue(own)
    heard: list[str] = []

    async def hear(message: Message) -> None:
        heard.append(message.subject)

    async def scenario() -> None:
        await tell_nodes(site, *NODES)
        await eventually("the rogue's link", lambda: any_link())
        async with connected(site.of_hub("allocator"), rogue) as (allocator, attacker):
            await allocator.serve("orb.ipam.>", hear)
            await allocator.serve("orb.witness.*", hear)
            await eventually("its own words arrive", lambda: own_arrives(attacker))
            await attacker.flush()
            await asyncio.sleep(SILENCE_S)
            heard.clear()
            for subject in (allocate(OTHER), witness(OTHER), release(OTHER), cni(OTHER), allocate(OWN)):
                await attacker.publish(subject, b"forged")
            await attacker.flush()
            await asyncio.sleep(SILENCE_S)
        assert heard == [allocate(OWN)]

    async def any_link() -> bool:
        return any(name.startswith("rogue") for name in await links(site))

    async def own_arrives(attacker: Bus) -> bool:
        await attacker.publish(allocate(OWN), b"")
        return bool(heard)

    asyncio.run(scenario())


def test_who_is_no_agent_on_a_node_gets_no_key(site: Site) -> None:
    site.start_hub()
    accounts = f"/api/v1/namespaces/{site.namespace}/serviceaccounts"
    site.server.client.create(accounts, {"metadata": {"name": "somebody"}})
    site.make_pod(OWN, "impostor", "somebody")
    site.make_pod(OWN, "short-lived")
    gone = site.token("short-lived")
    assert site.ask(gone)[0] == 200
    site.delete_pod("short-lived")
    good = site.token(f"agent-{OWN}")
    head, payload, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["kubernetes.io"]["node"]["name"] = OTHER
    edited = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    unbound = site.server.service_account_token(
        site.namespace, "orbweaver-agent", audiences=["orbweaver-hub"]
    )
    tokens = {
        "no token": "",
        "garbage": "a.b.c",
        "another account": site.token("impostor", "somebody"),
        "another audience": site.token(f"agent-{OWN}", audience="https://kubernetes.default.svc"),
        "bound to no pod": unbound,
        "of a pod that is gone": gone,
        "edited": f"{head}.{edited}.{signature}",
    }
    # The API server may believe a token of a deleted pod for as long as it caches its answers (10 s).
    await_true("the deleted pod's token is refused", lambda: site.ask(gone)[0] == 401, 60)
    for what, token in tokens.items():
        status, body = site.ask(token)
        assert status == 401 and "seed" not in body, (what, body)
    assert site.ask(good)[0] == 200


def test_an_ended_key_is_refused_and_cut(site: Site) -> None:
    """A link that was opened with a key is cut when that key ends; the key opens none any more."""
    site.start_hub(epoch_s=4.0)
    seed = json.loads(site.ask(site.token(f"agent-{OWN}"))[1])["seed"]

    async def scenario() -> None:
        await tell_nodes(site, *NODES)
        site.start_rogue(seed)
        await eventually("the link", lambda: any_link())
        await eventually("it is cut", lambda: no_link())
        await asyncio.sleep(3.0)
        assert not await links(site)

    async def any_link() -> bool:
        return bool(await links(site))

    async def no_link() -> bool:
        return not await links(site)

    asyncio.run(scenario())
    assert "authentication error - Nkey" in site.log("orbweaver-nats-0")


def test_renewal_of_keys_drops_no_call(site: Site) -> None:
    """Five epochs pass: calls within the node never fail, questions to the allocator are answered within their deadline."""
    site.start_hub(epoch_s=3.0)
    site.start_leaf(OWN)
    slowest_s = 0.0

    async def answer(message: Message) -> bytes:
        return b"answer"

    async def scenario() -> None:
        nonlocal slowest_s
        await tell_nodes(site, *NODES)
        settings = (site.of_hub("allocator"), site.of_node("agent", OWN), site.of_node("shim", OWN))
        async with connected(*settings) as (allocator, agent, shim):
            await allocator.serve("orb.ipam.>", answer)
            await agent.serve(cni(OWN), answer)
            await patient(agent, 40.0)
            ends = time.monotonic() + 16.0
            while time.monotonic() < ends:
                # as the shim has it: nobody answers for it while a connection of the leaf is cut
                assert (await shim.request(cni(OWN), b"", 5.0)).data == b"answer"
                slowest_s = max(slowest_s, await patient(agent, 10.0))
                await asyncio.sleep(0.02)
            assert shim.connection.connects == agent.connection.connects == 1

    async def patient(agent: Bus, limit_s: float) -> float:
        """As the agent asks: again and again until the caller's deadline."""
        began = time.monotonic()
        while time.monotonic() < began + limit_s:
            with contextlib.suppress(BusError):
                await agent.request(allocate(OWN), b"", 0.5)
                return time.monotonic() - began
            await asyncio.sleep(0.02)
        raise AssertionError(f"no answer within {limit_s:.0f} s\n{site.log(f'leaf-{OWN}')[-3000:]}")

    asyncio.run(scenario())
    assert site.log(f"leaf-{OWN}").count("key for the link to the hub") >= 4
    assert slowest_s < 8.0


def test_a_node_that_is_gone_has_no_link(site: Site) -> None:
    site.start_hub()
    site.start_leaf(OWN)

    async def scenario() -> None:
        await tell_nodes(site, *NODES)
        await eventually("the link", lambda: has_link())
        await tell_nodes(site, OWN, version=2, gone=True)
        await eventually("it is cut", lambda: no_link())

    async def has_link() -> bool:
        return bool(await links(site))

    async def no_link() -> bool:
        return not await links(site)

    asyncio.run(scenario())


def test_hub_and_leaf_start_again_while_the_api_server_is_away(
    fresh_api_server: ApiServer, tmp_path: Path
) -> None:
    """Both kept with their pods what the API server told; the hub knows the nodes of before."""
    for node in NODES:
        fresh_api_server.client.create("/api/v1/nodes", {"metadata": {"name": node}})
    site = Site(fresh_api_server, tmp_path)

    async def has_link() -> bool:
        return f"leaf-{OWN}" in await links_as(system)

    try:
        site.start_hub()
        site.start_leaf(OWN)
        system = site.of_hub("sys")
        asyncio.run(tell_nodes(site, *NODES))
        asyncio.run(eventually("the link", has_link))
        fresh_api_server.stop_api()
        for name in (f"leaf-{OWN}", "orbweaver-nats-0"):
            site.stop(name)
            site.start_again(name)
        asyncio.run(eventually("the link again", has_link))
    finally:
        site.stop_all()


def test_each_service_is_told_its_own_password_alone(site: Site) -> None:
    site.start_hub()
    state = json.loads(site.secret("orbweaver-hub")["state"])
    for identity in ("allocator", "controller", "webhook", "roster", "tools"):
        told = site.secret(f"orbweaver-bus-{identity}")
        assert told["password"] == state["users"][identity]
        assert set(told) == ({"password", "system-password"} if identity == "allocator" else {"password"})

    async def scenario() -> None:
        wrong = site.of_hub("tools")
        with pytest.raises(BusDenied):
            await Bus.connect(BusSettings(**{**_fields(wrong), "user": "allocator"}), "attacker", attempts=3)

    asyncio.run(scenario())


def _fields(settings: BusSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def test_what_a_node_tells_is_stored(site: Site) -> None:
    """Releases, events, inventories: a node that came after the hub's start has its acknowledgements."""
    site.start_hub()
    site.start_leaf(OWN)

    async def scenario() -> None:
        async with connected(site.of_hub("controller")) as (controller,):
            await controller.ensure_stream(INVENTORY)
        await tell_nodes(site, *NODES)
        async with connected(site.of_node("rdma", OWN)) as (rdma,):
            await eventually("the acknowledgement", lambda: stored(rdma))

    async def stored(rdma: Bus) -> bool:
        try:
            return await rdma.append(inventory(OWN), b"", timeout_s=1.0) > 0
        except BusError:
            return False

    asyncio.run(scenario())
