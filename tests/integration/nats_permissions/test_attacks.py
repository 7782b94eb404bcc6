"""What must not pass, from the attacker's side: a node whose root was taken, each local user, each identity of the hub."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from services.bus.config import link_user
from shared.bus import Bus, BusDenied, BusError, Message
from shared.settings import BusSettings
from shared.subjects import (
    ALLOCATE_ALL,
    LEAF_DENY,
    STREAMS,
    allocate,
    allocator_inbox,
    ask_agent,
    attach,
    cni,
    disagreement,
    facts,
    inbox,
    inventory,
    lease,
    node_inbox,
    release,
    snapshot,
    span,
    tools_inbox,
    witness,
)
from tests.integration.nats_permissions import conftest as servers
from tests.integration.nats_permissions.conftest import OTHER, OWN, Island, connected, linked, make_streams

SILENCE_S = 0.5
"""How long nothing must arrive; a message that may pass needs about a millisecond."""

FOREIGN = (
    allocate(OTHER),
    release(OTHER),
    attach(OTHER),
    witness(OTHER),
    inventory(OTHER),
    span("agent", OTHER),
    span("rdma", OTHER),
    span("allocator"),
    disagreement(OWN),
    disagreement(OTHER),
    cni(OTHER),
    cni(OWN),
    ask_agent(OTHER),
    f"orb.rdma.{OTHER}.claim",
    "orb.ipam.query",
    "orb.ipam.explain",
    "orb.ask.facts",
    "orb.ask.sync",
    lease("incarnation", 1),
    snapshot("incarnation", 1, "manifest"),
    "orb.lead.allocator",
    facts("Pod", "default", "web"),
    "orb.facts.synced._._",
    f"{node_inbox(OTHER, 'agent')}.guessed",
    f"{tools_inbox(OTHER)}.guessed",
    f"{allocator_inbox(OTHER)}.guessed",
    f"{inbox('shim')}.guessed",
    f"{inbox('allocator')}.guessed",
)
"""Subjects that node OWN has no business to send to."""


def identities(island: Island) -> dict[str, BusSettings]:
    """Every credential but the system account's."""
    hub = {
        identity: island.of_hub(identity)
        for identity in ("allocator", "controller", "webhook", "roster", "tools")
    }
    return hub | {identity: island.of_node(identity, OWN) for identity in ("agent", "rdma", "shim")}


async def may_publish(bus: Bus, subject: str) -> bool:
    """Does the server take a message on this subject from this identity?"""
    try:
        await bus.request(subject, b"", 3.0)
    except BusDenied:
        return False
    except BusError:
        return True
    return True


async def may_subscribe(bus: Bus, subject: str) -> bool:
    async def ignore(message: Message) -> None:
        return None

    try:
        await (await bus.serve(subject, ignore)).stop()
    except BusDenied:
        return False
    return True


@pytest.mark.parametrize("deny", [True, False], ids=["own-configuration", "rogue-configuration"])
def test_a_taken_node_sends_nothing_in_anothers_name(island: Island, deny: bool) -> None:
    """Whatever its leaf says: the hub judges the link. The control is that its own subjects do arrive."""
    if not deny:
        rogue = island.rogue_leaf_of(OWN)
        asyncio.run(linked(island, "rogue"))
    else:
        rogue = island.of_node("agent", OWN)
    heard: list[str] = []

    async def hear(message: Message) -> None:
        heard.append(message.subject)

    async def scenario() -> None:
        await make_streams(island)
        async with connected(
            rogue, island.of_hub("allocator"), island.of_hub("controller"), island.of_node("agent", OTHER)
        ) as (attacker, allocator, controller, victim):
            for subject in ("orb.ipam.>", "orb.witness.*", f"{inbox('allocator')}.>"):
                await allocator.serve(subject, hear)
            for subject in ("orb.ask.facts", "orb.ask.sync"):
                await controller.serve(subject, hear)
            for subject in (cni(OTHER), ask_agent(OTHER), f"{node_inbox(OTHER, 'agent')}.>"):
                await victim.serve(subject, hear)
            await asyncio.sleep(0.3)
            for subject in (*FOREIGN, allocate(OWN), witness(OWN)):
                await attacker.publish(subject, b"forged")
            await attacker.flush()
            await asyncio.sleep(SILENCE_S)
            states = {spec.name: await _messages(island, spec.name) for spec in STREAMS}
            assert not any(states.values()), states
        assert sorted(heard) == sorted([allocate(OWN), witness(OWN)])

    asyncio.run(scenario())


async def _messages(island: Island, stream: str) -> int:
    async with connected(island.of_hub("sys")) as (system,):
        answer = await system.request("$SYS.REQ.SERVER.PING.JSZ", b'{"accounts":true,"streams":true}')
        for account in json.loads(answer.data)["data"]["account_details"]:
            for detail in account["stream_detail"]:
                if detail["name"] == stream:
                    return int(detail["state"]["messages"])
    raise AssertionError(f"no stream {stream}")


def test_no_service_answers_into_a_stream(island: Island) -> None:
    """The server lets a requester name any subject for its answer; who answers does not go along."""
    rogue = island.rogue_leaf_of(OWN)
    asyncio.run(linked(island, "rogue"))
    asked: list[Message] = []

    async def answer(message: Message) -> bytes:
        asked.append(message)
        return b"answer"

    async def scenario() -> None:
        await make_streams(island)
        # Two connections: a second subscription of one connection would use up its single answer (nats-server 2.15.1).
        replicas = (island.of_hub("allocator"), island.of_hub("allocator"))
        async with connected(rogue, *replicas) as (attacker, serving, listening):
            await serving.serve(ALLOCATE_ALL, answer)
            await listening.listen(ALLOCATE_ALL, asked.append)
            await asyncio.sleep(0.3)
            for reply in (lease("incarnation", 1), "orb.lead.allocator", "$JS.API.STREAM.PURGE.LEASES"):
                await attacker.publish(allocate(OWN), b"", reply=reply)
            assert (await attacker.request(allocate(OWN), b"")).data == b"answer"
            await asyncio.sleep(SILENCE_S)
        assert len(asked) == 2 and all(message.reply.startswith(node_inbox(OWN)) for message in asked)
        assert await _messages(island, "LEASES") == 0 and await _messages(island, "LEAD") == 0

    asyncio.run(scenario())


def test_a_taken_node_hears_nothing_of_others(island: Island) -> None:
    rogue = island.rogue_leaf_of(OWN)
    asyncio.run(linked(island, "rogue"))
    heard: list[str] = []

    async def hear(message: Message) -> None:
        if message.subject.startswith(("orb.", "_INBOX")):
            heard.append(message.subject)

    async def answer(message: Message) -> bytes:
        return b""

    async def scenario() -> None:
        await make_streams(island)
        async with connected(
            rogue,
            island.of_hub("allocator"),
            island.of_hub("controller"),
            island.of_node("agent", OTHER),
            island.of_node("shim", OTHER),
            island.of_node("shim", OWN),
            island.of_tool(OTHER),
            island.of_tool(OWN),
        ) as (spy, allocator, controller, agent, shim, own_shim, tool, own_tool):
            for subject in (">", "orb.>", "orb.cni.*", ALLOCATE_ALL, "$JS.>", f"{node_inbox(OTHER)}.>"):
                await spy.serve(subject, hear)
            await agent.serve(cni(OTHER), answer)
            await agent.serve(ask_agent(OTHER), answer)
            await allocator.serve(ALLOCATE_ALL, answer)
            await asyncio.sleep(0.3)
            await shim.request(cni(OTHER), b"")
            await agent.request(allocate(OTHER), b"")
            await tool.request(ask_agent(OTHER), b"")
            await agent.append(release(OTHER), b"")
            await allocator.append(lease("incarnation", 1), b"")
            await controller.append(facts("Secret", "default", "web"), b"")
            # The shim of the spy's own node speaks to another leaf of that node: its subject never crosses the hub.
            await own_shim.publish(cni(OWN), b"")
            await own_tool.publish(ask_agent(OWN), b"")
            await asyncio.sleep(SILENCE_S)
        assert set(heard) == {ask_agent(OWN)}, heard

    asyncio.run(scenario())


def test_a_taken_node_may_not_use_jetstreams_interface(island: Island) -> None:
    rogue = island.rogue_leaf_of(OWN)
    asyncio.run(linked(island, "rogue"))

    async def scenario() -> None:
        await make_streams(island)
        async with connected(rogue) as (attacker,):
            for verb in ("STREAM.DELETE.LEASES", "STREAM.PURGE.LEASES", "STREAM.INFO.LEASES", "STREAM.NAMES"):
                with pytest.raises(BusError):
                    await attacker.request(f"$JS.API.{verb}", b"", 0.3)
            with pytest.raises(BusError):
                await attacker.request("$SYS.REQ.SERVER.PING.VARZ", b"", 0.3)
        assert await _messages(island, "LEASES") == 0

    asyncio.run(scenario())


def test_a_links_credential_is_no_clients_and_a_services_no_links(island: Island) -> None:
    async def client() -> None:
        settings = BusSettings(
            servers=(island.of_hub("tools").servers[0],),
            user=link_user(OWN),
            password=island.credentials.nodes[OWN].link,
            inbox_prefix=node_inbox(OWN),
        )
        with pytest.raises(BusDenied):
            await Bus.connect(settings, "attacker", attempts=3)

    asyncio.run(client())
    island.rogue_leaf("allocator", island.credentials.hub["allocator"])

    async def link() -> None:
        with pytest.raises(AssertionError, match="not linked"):
            await linked(island, "rogue")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "LIMIT_S", 1.5)
        asyncio.run(link())


def test_a_wrong_password_is_refused_everywhere(island: Island) -> None:
    async def scenario() -> None:
        for settings in (*identities(island).values(), island.of_hub("sys")):
            with pytest.raises(BusDenied):
                await Bus.connect(msgspec.structs.replace(settings, password="guess"), "attacker", attempts=3)

    asyncio.run(scenario())


MAY_PUBLISH: dict[str, set[str]] = {
    "allocator": {lease("incarnation", 1), snapshot("incarnation", 1, "manifest"), "orb.lead.allocator"}
    | {"orb.ask.facts", "orb.ask.sync", span("allocator"), disagreement(OWN), disagreement(OTHER)},
    "controller": {facts("Pod", "default", "web"), "orb.facts.synced._._", "orb.ipam.query"},
    "webhook": {"orb.ipam.query", "orb.ipam.explain"},
    "roster": set(),
    "tools": {"orb.ipam.query", "orb.ipam.explain", "orb.ask.sync", ask_agent(OTHER)},
    "agent": set(),
    "rdma": set(),
    "shim": {cni(OWN)},
}
"""What each may send of FOREIGN; all else is refused."""


@pytest.mark.parametrize("identity", MAY_PUBLISH)
def test_an_identity_sends_only_what_is_its_own(island: Island, identity: str) -> None:
    async def scenario() -> None:
        async with connected(identities(island)[identity]) as (bus,):
            answers = await asyncio.gather(*(may_publish(bus, subject) for subject in FOREIGN))
        allowed = {subject for subject, may in zip(FOREIGN, answers, strict=True) if may}
        assert allowed == MAY_PUBLISH[identity]

    asyncio.run(scenario())


@pytest.mark.parametrize("identity", MAY_PUBLISH)
def test_an_identity_hears_only_what_is_its_own(island: Island, identity: str) -> None:
    everything = (
        ">",
        "orb.>",
        "orb.*.*",
        cni(OTHER),
        "orb.lease.>",
        "orb.facts.>",
        "$JS.>",
        "$SYS.>",
        "_INBOX_node.>",
    )
    own = {"agent": {cni(OWN), ask_agent(OWN)}, "allocator": {ALLOCATE_ALL}}

    async def scenario() -> None:
        async with connected(identities(island)[identity]) as (bus,):
            for subject in everything:
                assert not await may_subscribe(bus, subject), subject
            for subject in (cni(OWN), ask_agent(OWN), ALLOCATE_ALL):
                assert await may_subscribe(bus, subject) == (subject in own.get(identity, set())), subject

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("identity", "others"),
    [
        ("agent", [node_inbox(OWN, "rdma"), node_inbox(OTHER, "agent"), inbox("shim")]),
        ("rdma", [node_inbox(OWN, "agent"), node_inbox(OWN), inbox("shim")]),
        ("shim", [node_inbox(OWN, "agent"), node_inbox(OWN)]),
        ("webhook", [inbox("tools"), inbox("allocator"), node_inbox(OWN)]),
        ("tools", [inbox("webhook"), inbox("allocator"), node_inbox(OWN)]),
    ],
)
def test_an_identity_reads_no_answer_to_another(island: Island, identity: str, others: list[str]) -> None:
    async def scenario() -> None:
        async with connected(identities(island)[identity]) as (bus,):
            for prefix in others:
                assert not await may_subscribe(bus, f"{prefix}.>"), prefix

    asyncio.run(scenario())


@pytest.mark.parametrize("identity", ["webhook", "roster", "tools", "agent", "rdma", "shim"])
def test_who_only_reads_changes_no_stream(island: Island, identity: str) -> None:
    async def scenario() -> None:
        await make_streams(island)
        async with connected(identities(island)[identity]) as (bus,):
            for spec in STREAMS:
                for verb in ("CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE"):
                    assert not await may_publish(bus, f"$JS.API.STREAM.{verb}.{spec.name}"), (verb, spec.name)

    asyncio.run(scenario())


def test_the_lease_log_is_deleted_by_nobody(island: Island) -> None:
    async def scenario() -> None:
        for identity, settings in identities(island).items():
            async with connected(settings) as (bus,):
                assert not await may_publish(bus, "$JS.API.STREAM.DELETE.LEASES"), identity
                assert not await may_publish(bus, "$JS.API.STREAM.MSG.DELETE.LEASES"), identity

    asyncio.run(scenario())


def test_the_shims_subjects_are_denied_on_the_link_in_both_directions(island: Island) -> None:
    """Also where the hub would allow it: the leaf itself neither sends nor takes them."""
    for name in ("leaf-n1",):
        config = (island.directory / f"{name}.conf").read_text()
        for subject in LEAF_DENY:
            assert config.count(f'"{subject}"') >= 2


def test_no_acknowledgement_of_a_stream_lands_in_another(island: Island) -> None:
    """JetStream acknowledges on whatever subject a publisher names, with the right of the account it does so in."""
    rogue = island.rogue_leaf_of(OWN)
    asyncio.run(linked(island, "rogue"))
    targets = (lease("incarnation", 1), "orb.lead.allocator", facts("SpiderIPPool", "", "v4"), release(OTHER))
    sources = (release(OWN), attach(OWN), inventory(OWN), span("agent", OWN))

    async def scenario() -> None:
        await make_streams(island)
        async with connected(rogue) as (attacker,):
            for source in sources:
                for target in targets:
                    await attacker.publish(source, b"", reply=target)
            assert await attacker.append(release(OWN), b"") == len(targets) + 1
            await asyncio.sleep(SILENCE_S)
        for stream, messages in (("LEASES", 0), ("LEAD", 0), ("FACTS", 0), ("RELEASES", len(targets) + 1)):
            assert await _messages(island, stream) == messages, stream

    asyncio.run(scenario())
