"""A node was taken: with its leaf's users and its link to the hub, nothing of another node or of the hub can be moved."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import Any

import pytest

from shared import subjects
from shared.bus import Bus, BusDenied, BusError, Message
from shared.contracts.attach import AttachCompleted
from shared.contracts.codec import encode
from shared.contracts.inventory import RdmaInventory
from shared.contracts.ipam import ALLOCATE_REPLY, Allocate, InterfaceRequest, Refused, Release
from shared.contracts.span import SpanBatch, SpanRecord
from shared.settings import BusSettings
from shared.subjects import STREAMS
from tests.integration.cli.stage import Attached, Stage
from tests.security.attacker import TAKEN, VICTIM, Attacker, connected

SILENCE_S = 0.5
LOCAL = ("agent", "rdma", "shim")
TRACE = "f" * 32

SERVICES_OWN = (
    subjects.lease("incarnation", 1),
    subjects.lead("allocator"),
    subjects.lead("controller"),
    subjects.snapshot("incarnation", 1, "manifest"),
    subjects.facts("SpiderIPPool", "", "v4"),
    subjects.facts("Pod", "prod", "web-2"),
    subjects.FACTS_SYNCED,
)
VICTIMS_OWN = (
    subjects.release(VICTIM),
    subjects.attach(VICTIM),
    subjects.inventory(VICTIM),
    subjects.span("agent", VICTIM),
    subjects.allocate(VICTIM),
    subjects.witness(VICTIM),
    subjects.cni(VICTIM),
    subjects.ask_agent(VICTIM),
    f"{subjects.node_inbox(VICTIM, 'agent')}.guess",
    f"{subjects.tools_inbox(VICTIM)}.guess",
    f"{subjects.allocator_inbox(VICTIM)}.guess",
)


def forged_del(victim: Attached) -> dict[str, str]:
    """A DEL of the victim's pod, as a shim would send it."""
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return {
        "Orb-Version": "1",
        "Orb-Name": "orbweaver",
        "Orb-Attempt": secrets.token_hex(16),
        "Orb-Start-Ns": str(now_ns),
        "Orb-Deadline-Ns": str(now_ns + 10_000_000_000),
        "Cni-Command": "DEL",
        "Cni-Containerid": victim.container_id,
        "Cni-Ifname": "eth0",
    }


def forged(victim: Attached) -> list[tuple[str, bytes, dict[str, str]]]:
    """Well-formed messages that would harm the victim, on its subjects and on the attacker's own."""
    common = {"container_id": victim.container_id, "ifname": "eth0", "pod_namespace": "prod"}
    told = AttachCompleted(
        **common,
        at_ns=time.time_ns(),
        node=VICTIM,
        pod_name=victim.pod,
        pod_uid="forged",
        addresses=("192.0.2.1/24",),
        duration_ms=1.0,
        trace_id=TRACE,
    )
    spans = SpanBatch(
        spans=tuple(
            SpanRecord(
                trace_id=TRACE, span_id=n, name="forged", service=service, node=node, start_ns=1, end_ns=2
            )
            for n, (service, node) in enumerate_spans()
        )
    )
    inventory = RdmaInventory(node=VICTIM, at_ns=1, netns_mode="forged", devices=())
    messages: list[tuple[str, bytes, dict[str, str]]] = [
        (subjects.cni(node), b"{}", forged_del(victim)) for node in (VICTIM,)
    ]
    for subject_node in (TAKEN, VICTIM):
        for node in (TAKEN, VICTIM):
            for generation in (0, 1, 2, 3):
                release = Release(
                    node=node,
                    container_id=victim.container_id,
                    ifname="eth0",
                    attempt=secrets.token_hex(16),
                    generation=generation,
                    pod_uid=f"{victim.pod}-uid",
                )
                messages.append((subjects.release(subject_node), encode(release), {}))
        messages += [
            (subjects.attach(subject_node), encode(told), {}),
            (subjects.inventory(subject_node), encode(inventory), {}),
            (subjects.span("agent", subject_node), encode(spans), {}),
        ]
    return messages


def enumerate_spans() -> list[tuple[str, tuple[str, str]]]:
    claims = (("allocator", ""), ("agent", VICTIM), ("allocator", TAKEN), ("allocator", VICTIM))
    return [(f"{n:016x}", claim) for n, claim in enumerate(claims)]


def standing(stage: Stage) -> dict[str, Any]:
    """All that a user sees of the victim, and of the whole log."""
    return {
        "leases": stage.items("leases"),
        "attachments": stage.items("attachments"),
        "events": stage.items("events", "--node", VICTIM),
        "traces": [t for t in stage.items("traces") if t["traceID"] == TRACE],
        "pools": [stage.json("get", "sp", pool)["status"] for pool in ("v4", "v6")],
    }


async def each(bus: Bus, messages: list[tuple[str, bytes, dict[str, str]]]) -> None:
    for subject, payload, headers in messages:
        await bus.publish(subject, payload, headers or None)
    await bus.flush()


def test_nothing_of_another_node_moves(
    stage: Stage, attacker: Attacker, rogue: BusSettings, attached: list[Attached]
) -> None:
    victim = attached[1]
    before = standing(stage)

    async def attack() -> None:
        async with connected(rogue, *map(attacker.node, LOCAL)) as buses:
            for bus in buses:
                await each(bus, forged(victim))
                await each(bus, [(s, b"forged", {}) for s in (*SERVICES_OWN, *VICTIMS_OWN)])
            await asyncio.sleep(SILENCE_S)

    asyncio.run(attack())
    assert standing(stage) == before
    assert stage.json("doctor")["ok"]
    assert stage.lab.ip(victim.netns, "link", "show", "eth0")


def test_no_acknowledgement_is_stored_in_anothers_name(
    stage: Stage, attacker: Attacker, rogue: BusSettings, attached: list[Attached]
) -> None:
    """JetStream acknowledges wherever the publisher names, and asks no permission: an account of its own a node stops it."""
    before = asyncio.run(attacker.settled())
    term = stage.json("status")["services"]

    async def attack() -> None:
        async with connected(rogue, attacker.node("agent"), attacker.node("rdma")) as buses:
            for bus in buses:
                for subject in (
                    subjects.release(TAKEN),
                    subjects.inventory(TAKEN),
                    subjects.attach(TAKEN),
                    subjects.allocate(TAKEN),
                ):
                    for reply in (*SERVICES_OWN, *VICTIMS_OWN, "$JS.API.STREAM.PURGE.LEASES"):
                        await bus.publish(subject, b"\x80", reply=reply)
                await bus.flush()
            await asyncio.sleep(SILENCE_S)

    asyncio.run(attack())
    after = asyncio.run(attacker.streams())
    for stream in ("LEASES", "LEAD", "FACTS", "SNAPSHOTS"):
        assert after[stream] == before[stream], stream
    assert after["INVENTORY"][0] == before["INVENTORY"][0]
    now = stage.json("status")["services"]
    assert [s["facts"].get("term") for s in now] == [s["facts"].get("term") for s in term]
    assert [s["restarts"] for s in now] == [s["restarts"] for s in term]


def test_a_traced_message_leaves_no_trace_where_its_sender_may_not_write(
    attacker: Attacker, rogue: BusSettings
) -> None:
    """Nats-Trace-Dest makes servers publish what they did with a message (nats-server ADR-41)."""
    before = asyncio.run(attacker.settled())

    async def attack() -> None:
        async with connected(rogue, attacker.node("agent")) as buses:
            for bus in buses:
                for target in SERVICES_OWN:
                    await bus.publish(subjects.release(TAKEN), b"\x80", {"Nats-Trace-Dest": target})
                    await bus.publish(subjects.witness(TAKEN), b"\x80", {"Nats-Trace-Dest": target})
            await asyncio.sleep(SILENCE_S)

    asyncio.run(attack())
    after = asyncio.run(attacker.streams())
    for stream in ("LEASES", "LEAD", "FACTS", "SNAPSHOTS"):
        assert after[stream] == before[stream], stream


@pytest.mark.parametrize("who", ["rogue", *LOCAL])
def test_no_interface_of_jetstream_answers(attacker: Attacker, rogue: BusSettings, who: str) -> None:
    names = tuple(spec.name for spec in STREAMS)
    verbs = [
        "INFO",
        "STREAM.NAMES",
        "STREAM.LIST",
        *(
            f"{verb}.{name}"
            for name in names
            for verb in (
                "STREAM.INFO",
                "STREAM.CREATE",
                "STREAM.UPDATE",
                "STREAM.DELETE",
                "STREAM.PURGE",
                "STREAM.MSG.GET",
                "STREAM.MSG.DELETE",
                "STREAM.SNAPSHOT",
                "DIRECT.GET",
                "CONSUMER.CREATE",
                "CONSUMER.NAMES",
            )
        ),
        *(f"CONSUMER.DURABLE.CREATE.{name}.mine" for name in names),
        *(f"CONSUMER.CREATE.{name}.mine.>" for name in names),
        *(f"CONSUMER.MSG.NEXT.{name}.allocator" for name in names),
        *(f"CONSUMER.DELETE.{name}.allocator" for name in names),
    ]
    settings = rogue if who == "rogue" else attacker.node(who)
    before = asyncio.run(attacker.settled())

    async def attack() -> None:
        async with connected(settings) as (bus,):

            async def ask(verb: str) -> None:
                with pytest.raises(BusError):
                    await bus.request(f"$JS.API.{verb}", b"{}", 1.0)

            await asyncio.gather(*map(ask, verbs))

    asyncio.run(attack())
    after = asyncio.run(attacker.streams())
    assert {name: after[name][1] for name in names} == {name: before[name][1] for name in names}


def test_a_pod_of_another_node_is_given_nothing_here(
    stage: Stage, attacker: Attacker, attached: list[Attached]
) -> None:
    victim = attached[1]

    async def ask(node: str, container_id: str) -> Refused:
        request = Allocate(
            attempt=secrets.token_hex(16),
            node=node,
            container_id=container_id,
            ifname="eth0",
            interfaces=(InterfaceRequest(ifname="eth0"),),
            ttl_ms=2000,
            pod_namespace="prod",
            pod_name=victim.pod,
            pod_uid=f"{victim.pod}-uid",
        )
        async with connected(attacker.node("agent")) as (bus,):
            answer = await bus.request(subjects.allocate(TAKEN), encode(request), 1.0)
        refused = ALLOCATE_REPLY.decode(answer.data)
        assert isinstance(refused, Refused)
        return refused

    before = stage.items("leases")
    for container_id in (victim.container_id, secrets.token_hex(32)):
        assert asyncio.run(ask(TAKEN, container_id)).error == "wrong_node"
    with pytest.raises(BusError):
        asyncio.run(ask(VICTIM, victim.container_id))
    assert stage.items("leases") == before


def test_nobody_answers_for_another(stage: Stage, attacker: Attacker, rogue: BusSettings) -> None:
    """The taker offers to answer everything; an attach and a detach on the victim neither ask it nor believe it."""
    heard: list[str] = []

    async def answer(message: Message) -> bytes:
        if not message.subject.startswith("$"):
            heard.append(message.subject)
        return b"\x80"

    async def attack() -> None:
        async with connected(rogue) as (bus,):
            for subject in (
                ">",
                subjects.ALLOCATE_ALL,
                "orb.cni.*",
                "orb.ask.>",
                subjects.IPAM_QUERY,
                f"{subjects.node_inbox(VICTIM, 'agent')}.>",
                "_R_.>",
                "$JS.>",
            ):
                await bus.serve(subject, answer)
            await asyncio.sleep(0.3)
            one = await asyncio.to_thread(stage.attach, "web-2")
            await asyncio.to_thread(stage.done, "sync")
            await asyncio.to_thread(stage.items, "attachments", "--node", VICTIM)
            await asyncio.to_thread(stage.detach, one)
            stage.lab.remove(one.netns)

    asyncio.run(attack())
    assert [subject for subject in heard if "n1" not in subject.split(".")] == []


def test_the_shims_user_has_its_own_request_and_nothing_else(stage: Stage, attacker: Attacker) -> None:
    before = asyncio.run(attacker.settled())

    async def attack() -> None:
        async with connected(attacker.node("shim")) as (bus,):
            for subject in (*SERVICES_OWN, *VICTIMS_OWN, subjects.allocate(TAKEN), subjects.release(TAKEN)):
                with pytest.raises(BusDenied):
                    await bus.request(subject, b"", 1.0)
            for subject in (">", "orb.>", subjects.cni(TAKEN), f"{subjects.node_inbox(TAKEN)}.>", "$SYS.>"):
                with pytest.raises(BusDenied):
                    await bus.serve(subject, silent)
            # The agent answers what was asked, where answers go; it writes into no stream for whoever asks.
            for reply in (subjects.release(TAKEN), subjects.attach(TAKEN), subjects.witness(TAKEN), "$SYS.x"):
                await bus.publish(subjects.cni(TAKEN), b"{}", {"Orb-Version": "1"}, reply=reply)
            answer = await bus.request(subjects.cni(TAKEN), b"{}", 2.0, {"Orb-Version": "0"})
            assert b'"code"' in answer.data
            await asyncio.sleep(SILENCE_S)

    async def silent(message: Message) -> None:
        return None

    asyncio.run(attack())
    after = asyncio.run(attacker.streams())
    for stream in ("RELEASES", "ATTACH"):
        assert after[stream][0] == before[stream][0], stream


@pytest.mark.parametrize("identity", ["agent", "rdma"])
def test_a_nodes_services_publish_neither_facts_nor_leases(attacker: Attacker, identity: str) -> None:
    async def attack() -> None:
        async with connected(attacker.node(identity)) as (bus,):
            for subject in (*SERVICES_OWN, *VICTIMS_OWN):
                with pytest.raises(BusDenied):
                    await bus.request(subject, b"", 1.0)

    asyncio.run(attack())


OWNERS = {
    "allocator": {"LEASES", "SNAPSHOTS", "LEAD", "RELEASES", "SPANS", "DISAGREEMENTS"},
    "controller": {"FACTS", "LEAD", "ATTACH", "SPANS", "INVENTORY"},
    "webhook": set[str](),
    "roster": set[str](),
    "tools": set[str](),
}


@pytest.mark.parametrize("identity", OWNERS)
def test_a_service_changes_only_the_streams_that_it_makes(attacker: Attacker, identity: str) -> None:
    """The forbidden verbs are refused by the server before JetStream sees them; none is sent to a stream of one's own."""

    async def attack() -> None:
        async with connected(attacker.hub(identity)) as (bus,):
            for spec in STREAMS:
                verbs = ["DELETE", "MSG.DELETE", "RESTORE", "SNAPSHOT", "PEER.REMOVE", "LEADER.STEPDOWN"]
                if spec.name not in OWNERS[identity]:
                    verbs += ["CREATE", "UPDATE", "PURGE"]
                for verb in verbs:
                    with pytest.raises(BusDenied):
                        await bus.request(f"$JS.API.STREAM.{verb}.{spec.name}", b"{}", 1.0)

    asyncio.run(attack())


def test_a_nodes_link_is_told_at_once_that_nobody_listens(attacker: Attacker, rogue: BusSettings) -> None:
    """The accounts are apart, and yet the interest of the services is known on the node: no request runs into a time-out."""

    async def ask() -> float:
        async with connected(attacker.node("agent"), rogue) as (agent, other):
            began = time.monotonic()
            for bus, subject in ((agent, subjects.rdma(TAKEN, "claim")), (other, "orb.ipam.nobody")):
                with contextlib.suppress(BusError):
                    await bus.request(subject, b"", 2.0)
            return time.monotonic() - began

    assert asyncio.run(ask()) < 1.0
