"""Messages of the wrong shape on every subject: refused, counted, and nothing else is disturbed."""

from __future__ import annotations

import asyncio
import inspect
import secrets
import time
from collections.abc import Callable

import msgspec
import pytest

from shared import subjects
from shared.bus import Bus, BusError, NoResponder
from shared.contracts.codec import encode
from shared.contracts.ipam import Allocate, InterfaceRequest, Release
from shared.settings import BusSettings
from tests.contract.examples import EXAMPLES, golden_bytes
from tests.integration.cli.stage import Stage
from tests.security.attacker import TAKEN, VICTIM, Attacker, connected

BIG = 900_000
"""Just below what a server takes (max_payload is 1 MiB)."""


def shapes(tag: str) -> dict[str, bytes]:
    """Ways not to be the message `tag`."""
    golden = golden_bytes(tag)
    fields = msgspec.msgpack.decode(golden)
    first = next((key for key in fields if key != "type"), "type")
    return {
        "empty": b"",
        "text": b'{"type":"x"}',
        "noise": secrets.token_bytes(200),
        "other-tag": msgspec.msgpack.encode({**fields, "type": "of.another.world.1"}),
        "other-message": golden_bytes("leases.released.1"),
        "wrong-type": msgspec.msgpack.encode({**fields, first: {"a": 1}, "type": 7}),
        "cut": golden[:-1],
        "longer": golden + b"\xc0",
        "deep": b"\x91" * 200_000,
        "deep-map": b"\x81\xa4type" * 100_000,
        "huge": msgspec.msgpack.encode({"type": "x" * BIG}),
        "huge-length": b"\xdf\xff\xff\xff\xff",
        "lone-surrogates": b"\x81\xa4type\xa3\xed\xa0\x80",
    }


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """`settings` tells who may send on `subject`; what is refused is counted for `family`."""

    subject: str
    family: str
    tag: str
    settings: Callable[[Attacker], BusSettings]


def _agent(attacker: Attacker) -> BusSettings:
    return attacker.node("agent")


def _tools(attacker: Attacker) -> BusSettings:
    return attacker.hub("tools")


def _of_node(attacker: Attacker) -> BusSettings:
    return attacker.tool(TAKEN)


def _asked(service: str, instance: str) -> str:
    return f"{subjects.ask_service(service)}.{subjects.token(instance)}"


CASES = (
    Case(
        subject=subjects.allocate(TAKEN),
        family="orb.ipam.allocate",
        tag="ipam.allocate.1",
        settings=_agent,
    ),
    Case(subject=subjects.release(TAKEN), family="orb.release", tag="release.attachment.1", settings=_agent),
    Case(subject=subjects.witness(TAKEN), family="orb.witness", tag="witness.report.1", settings=_agent),
    Case(subject=subjects.IPAM_QUERY, family="orb.ipam.query", tag="query.leases.1", settings=_tools),
    Case(subject=subjects.IPAM_EXPLAIN, family="orb.ipam.explain", tag="explain.pod.1", settings=_tools),
    Case(
        subject=subjects.ASK_FACTS,
        family="orb.ask.facts",
        tag="ask.fact.1",
        settings=lambda attacker: attacker.hub("allocator"),
    ),
    Case(subject=subjects.ASK_SYNC, family="orb.ask.sync", tag="ask.sync.1", settings=_tools),
    *(
        Case(
            subject=subject,
            family="orb.ask.witness",
            tag="ask.witness.detail.1",
            settings=lambda attacker: attacker.hub("allocator"),
        )
        for subject in (subjects.ask_witness(TAKEN), subjects.ASK_WITNESS_ALL)
    ),
    Case(
        subject=subjects.ask_detach(TAKEN),
        family="orb.ask.detach",
        tag="ask.detach.1",
        settings=lambda attacker: attacker.hub("allocator"),
    ),
    Case(subject=subjects.IPAM_COLLECT, family="orb.ipam.collect", tag="ipam.collect.1", settings=_tools),
    Case(
        subject=subjects.ask_agent(TAKEN),
        family="orb.ask.agent",
        tag="query.attachments.1",
        settings=_of_node,
    ),
    *(
        Case(
            subject=_asked(service, instance),
            family="orb.ask.service",
            tag="query.service.1",
            settings=_of_node if service in ("agent", "rdma") else _tools,
        )
        for service, instance in (
            ("allocator", "allocator-0"),
            ("controller", "controller-0"),
            ("webhook", "webhook-0"),
            ("agent", TAKEN),
            ("rdma", TAKEN),
        )
    ),
    Case(
        subject=subjects.facts("Pod", "prod", "shapeless"),
        family="orb.facts",
        tag="facts.object.1",
        settings=lambda attacker: attacker.hub("controller"),
    ),
)


APART = {
    subjects.cni(TAKEN): "test_calls_that_no_shim_made_are_refused_and_counted",
}
"""Requests whose shape is not a message of the contracts, and the test that holds them."""


UNSERVED = {"orb.ask.mirrored", "orb.ipam.adopt", "orb.mark", "orb.rdma.n1"}
"""Families of the table that no process of a standalone system takes."""


def asked_subjects() -> set[str]:
    """Every subject of shared/subjects.py on which somebody is asked or told what no stream stores."""
    made: set[str] = set()
    for name, one in vars(subjects).items():
        if isinstance(one, str) and not name.startswith("_"):
            made.add(one)
        elif inspect.isfunction(one) and one.__module__ == subjects.__name__ and not name.startswith("_"):
            parameters = inspect.signature(one).parameters.values()
            if inspect.signature(one).return_annotation == "str":
                made.add(one(*(1 if p.annotation == "int" else TAKEN for p in parameters)))
    stored = [pattern.split(".")[1] for spec in subjects.STREAMS for pattern in spec.subjects]
    return {
        one
        for one in made
        if one.startswith("orb.") and one.split(".")[1] not in stored and not one.endswith(("*", ">"))
    }


def test_every_request_has_its_case() -> None:
    """A new subject of the table comes with its attack."""
    covered = {case.subject for case in CASES} | APART.keys()
    families = {".".join(one.split(".")[:3]) for one in covered} | UNSERVED
    missing = {
        one for one in asked_subjects() if one not in covered and ".".join(one.split(".")[:3]) not in families
    }
    assert missing == set()
    assert all(test in globals() for test in APART.values())


async def send(bus: Bus, subject: str, payload: bytes) -> None:
    """Whether anybody answers does not matter: a request, so that a handler that wants to answer could."""
    await bus.publish(subject, payload, reply=f"{bus.connection.new_inbox()}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.subject)
def test_what_is_no_message_of_its_subject_is_counted_and_disturbs_nothing(
    stage: Stage, attacker: Attacker, case: Case
) -> None:
    wrong = shapes(case.tag)
    refused = attacker.refused().get(case.family, 0)
    before = attacker.processes()

    async def attack() -> None:
        async with connected(case.settings(attacker)) as (bus,):
            for payload in wrong.values():
                await send(bus, case.subject, payload)
            await bus.flush()

    asyncio.run(attack())
    # Of a fact only the last is kept: a follower may pass over those before it. Several services read it, and each counts.
    least = 1 if case.family == "orb.facts" else len(wrong)
    deadline = time.monotonic() + 15
    while (counted := attacker.refused().get(case.family, 0) - refused) < least:
        assert time.monotonic() < deadline, f"{counted} of {len(wrong)} were counted"
        time.sleep(0.05)
    assert counted == least or case.family in ("orb.facts", "orb.witness", "orb.ask.witness")
    assert attacker.processes() == before
    one = stage.attach("web-1")
    stage.detach(one)
    stage.lab.remove(one.netns)


def test_requests_that_lie_about_themselves_are_refused(stage: Stage, attacker: Attacker) -> None:
    """Of the right form, but of another node than the one whose subject they came on, or beyond every bound."""
    request = Allocate(
        attempt=secrets.token_hex(16),
        node=TAKEN,
        container_id=secrets.token_hex(32),
        ifname="eth0",
        interfaces=(InterfaceRequest(ifname="eth0"),),
        ttl_ms=1000,
    )
    release = Release(
        node=TAKEN, container_id=request.container_id, ifname="eth0", attempt=request.attempt, generation=0
    )
    replace = msgspec.structs.replace
    lies: list[tuple[str, msgspec.Struct]] = [
        (subjects.allocate(TAKEN), replace(request, node=VICTIM)),
        (subjects.allocate(TAKEN), replace(request, node="x" * BIG)),
        (subjects.release(TAKEN), replace(release, node=VICTIM)),
        (subjects.release(TAKEN), replace(release, node="x" * BIG)),
        (subjects.release(TAKEN), replace(release, container_id="x" * BIG)),
        (subjects.release(TAKEN), replace(release, attempt="x" * BIG)),
    ]
    bounded: list[msgspec.Struct] = [
        replace(request, container_id="x" * BIG),
        replace(request, attempt="x" * BIG),
        replace(request, interfaces=()),
        replace(request, interfaces=request.interfaces * 1000),
        replace(request, interfaces=(InterfaceRequest(ifname="x" * BIG),)),
        replace(request, interfaces=(InterfaceRequest(ifname="eth0", ipv4=("*",) * 100_000),)),
        replace(request, pod_namespace="prod", pod_name="x" * BIG),
        replace(request, ttl_ms=-(1 << 62)),
        replace(request, ttl_ms=1 << 62, interfaces=(InterfaceRequest(ifname="eth0", ipv4=("no",)),)),
    ]
    before = attacker.refused()
    leases = stage.items("leases")

    async def attack() -> None:
        async with connected(attacker.node("agent")) as (bus,):
            for subject, message in lies:
                await send(bus, subject, encode(message))
            for message in bounded:
                try:
                    answer = await bus.request(subjects.allocate(TAKEN), encode(message), 1.5)
                except NoResponder:
                    raise
                except BusError:
                    continue  # refused in silence
                assert msgspec.msgpack.decode(answer.data)["type"] == "ipam.refused.1", message
                assert len(answer.data) < BIG + 1000  # the attempt is told back

    asyncio.run(attack())
    time.sleep(0.3)
    after = attacker.refused()
    for family in ("orb.ipam.allocate", "orb.release"):
        sent = sum(subject.startswith(family) for subject, _ in lies)
        assert after.get(family, 0) - before.get(family, 0) >= sent, family
    assert stage.items("leases") == leases
    assert stage.json("status")["ready"]


CALLS: dict[str, dict[str, str]] = {
    "no headers": {},
    "other version": {"Orb-Version": "2", "Orb-Attempt": "0" * 32},
    "no attempt": {"Orb-Version": "1"},
    "attempt with a path": {"Orb-Version": "1", "Orb-Attempt": "../../etc/passwd"},
    "upper-case attempt": {"Orb-Version": "1", "Orb-Attempt": "A" * 32},
    "huge version": {"Orb-Version": "1" * 60_000, "Orb-Attempt": "0" * 32},
}


def test_calls_that_no_shim_made_are_refused_and_counted(stage: Stage, attacker: Attacker) -> None:
    before = attacker.refused().get("orb.cni", 0)

    async def attack() -> None:
        async with connected(attacker.node("shim")) as (bus,):
            for headers in CALLS.values():
                answer = await bus.request(subjects.cni(TAKEN), b"\xff" * 1000, 2.0, headers or None)
                assert answer.headers["Orb-Exit"] == "1"
                assert msgspec.json.decode(answer.data)["code"] == 122
            # One call that hurries, and one that wants no answer at all.
            await bus.publish(subjects.cni(TAKEN), b"", {"Orb-Version": "9"})
            await bus.flush()

    asyncio.run(attack())
    assert attacker.refused()["orb.cni"] - before >= len(CALLS)
    assert stage.json("status")["ready"]


def test_what_a_node_tells_wrongly_keeps_nobody_from_reading(stage: Stage, attacker: Attacker) -> None:
    """Streams that only tools read: garbage in them is passed over."""
    sent = (
        (attacker.node("agent"), subjects.attach(TAKEN), "attach.completed.1"),
        (attacker.node("agent"), subjects.span("agent", TAKEN), "span.batch.1"),
        (attacker.node("rdma"), subjects.span("rdma", TAKEN), "span.batch.1"),
        (attacker.node("rdma"), subjects.inventory(TAKEN), "inventory.rdma.1"),
        (attacker.node("agent"), subjects.witness(TAKEN), "span.batch.1"),
    )

    async def attack() -> None:
        for settings, subject, tag in sent:
            async with connected(settings) as (bus,):
                for payload in shapes(tag).values():
                    await bus.publish(subject, payload)
                fields = msgspec.msgpack.decode(golden_bytes("attach.completed.1"))
                for at_ns in (-1, -(1 << 63), (1 << 64) - 1, (1 << 63) - 1):
                    told = {**fields, "node": TAKEN, "at_ns": at_ns}
                    await bus.publish(subject, msgspec.msgpack.encode(told))
                await bus.flush()

    asyncio.run(attack())
    one = stage.attach("web-1")
    events = stage.items("events", "--pod", "prod/web-1")
    assert events[-1]["reason"] == "Attached" and events[-1]["containerID"] == one.container_id
    address = one.addresses[0].partition("/")[0]
    trace_id = stage.json("who", address)["holders"][0]["traceID"]
    assert stage.json("get", "traces", trace_id)["spans"]
    assert stage.items("traces")
    assert stage.json("explain", "pod", "prod/web-1")["leases"]
    assert stage.json("doctor")["ok"]
    stage.detach(one)
    stage.lab.remove(one.netns)


def test_a_stored_message_is_no_word_of_the_server(stage: Stage, attacker: Attacker) -> None:
    """Headers come back as they were published: none of them ends a reading, or makes the reader write where it says."""
    before = asyncio.run(attacker.settled())
    refused = attacker.refused().get("orb.release", 0)
    told = (
        {"Status": "100", "Nats-Consumer-Stalled": subjects.ASK_SYNC},
        {"Status": "404"},
        {"Status": "503"},
    )

    async def attack() -> None:
        async with connected(attacker.node("agent")) as (bus,):
            for headers in told:
                for subject in (
                    subjects.attach(TAKEN),
                    subjects.span("agent", TAKEN),
                    subjects.release(TAKEN),
                ):
                    await bus.publish(subject, b"\x80", headers)
            await bus.flush()

    asyncio.run(attack())
    one = stage.attach("web-1")
    assert stage.items("events", "--pod", "prod/web-1")[-1]["containerID"] == one.container_id
    assert stage.items("traces")
    stage.detach(one)
    stage.lab.remove(one.netns)
    deadline = time.monotonic() + 8
    while attacker.refused().get("orb.release", 0) < refused + len(told):
        assert time.monotonic() < deadline, "a release that calls itself a status was never read"
        time.sleep(0.1)
    while asyncio.run(attacker.streams())["RELEASES"][0] > before["RELEASES"][0]:
        assert time.monotonic() < deadline, "a release that calls itself a status was never acknowledged"
        time.sleep(0.1)


def test_no_message_fills_the_logs(stage: Stage, attacker: Attacker) -> None:
    """What is refused is quoted in part: a line of the log is no copy of a message."""
    request = Allocate(
        attempt="a",
        node="x" * BIG,
        container_id="c",
        ifname="eth0",
        interfaces=(InterfaceRequest(ifname="eth0"),),
        ttl_ms=1000,
    )
    told = msgspec.structs.replace(EXAMPLES["witness.report.1"], node="x" * BIG)

    async def attack() -> None:
        async with connected(attacker.node("agent")) as (bus,):
            await send(bus, subjects.allocate(TAKEN), encode(request))
            await send(bus, subjects.witness(TAKEN), encode(told))
            await bus.flush()
            await asyncio.sleep(0.3)

    asyncio.run(attack())
    for log in (stage.system.state / "log").iterdir():
        assert all(len(line) < 64 * 1024 for line in log.read_bytes().splitlines()), log


def test_answers_are_wanted_where_answers_go(stage: Stage, attacker: Attacker) -> None:
    """A question whose answer would go to a subject of the table is dropped by whoever was asked."""
    before = asyncio.run(attacker.settled())

    async def attack() -> None:
        async with connected(attacker.hub("tools"), attacker.tool(TAKEN)) as (tools, of_node):
            for reply in (
                subjects.lease("i", 1),
                subjects.lead("allocator"),
                subjects.facts("Pod", "a", "b"),
            ):
                for subject, tag in (
                    (subjects.IPAM_QUERY, "query.leases.1"),
                    (subjects.IPAM_EXPLAIN, "explain.pod.1"),
                    (subjects.ASK_SYNC, "ask.sync.1"),
                    (_asked("allocator", "allocator-0"), "query.service.1"),
                    (_asked("controller", "controller-0"), "query.service.1"),
                ):
                    await tools.publish(subject, golden_bytes(tag), reply=reply)
                for subject, tag in (
                    (subjects.ask_agent(TAKEN), "query.attachments.1"),
                    (_asked("agent", TAKEN), "query.service.1"),
                ):
                    await of_node.publish(subject, golden_bytes(tag), reply=reply)
            await tools.flush()
            await asyncio.sleep(0.5)

    asyncio.run(attack())
    after = asyncio.run(attacker.streams())
    for stream in ("LEASES", "LEAD", "FACTS"):
        assert after[stream] == before[stream], stream
