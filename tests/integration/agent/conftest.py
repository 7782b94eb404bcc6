"""An agent as a real process on a real nats-server, its node and pods as real namespaces, and an allocator of a few lines.

The allocator here answers what a test tells it to: the real one is tested in its own place, and together with the agent in
tests/runtime.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shared import subjects
from shared.bus import Bus, Message
from shared.contracts.attach import ATTACH_EVENT, AttachEvent
from shared.contracts.codec import encode
from shared.contracts.ipam import (
    ALLOCATE,
    RELEASE,
    Allocate,
    Allocated,
    AllocateReply,
    Grant,
    Mark,
    Refused,
    Release,
)
from shared.contracts.query import ATTACHMENTS_PAGE, AttachmentView, QueryAttachments
from shared.contracts.span import SPAN_BATCH, SpanRecord
from shared.settings import AgentSettings, BusSettings, TelemetrySettings
from tests.support.lab import Lab
from tests.support.nats import NatsServer
from tests.support.service import Service

NODE = "n1"
GATEWAYS = ("10.6.0.1/16", "fd00:6::1/64")


def native(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": "underlay",
        "type": "orbweaver",
        "cniType": "macvlan",
        "master": ["eth1"],
    }
    return whole | changes


@dataclass
class Answer:
    exit_code: int
    body: bytes

    @property
    def result(self) -> dict[str, Any]:
        assert self.exit_code == 0, self.body
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        assert self.exit_code == 1, self.body
        error: dict[str, Any] = json.loads(self.body)
        assert set(error) == {"cniVersion", "code", "msg", "details"}
        return error


@dataclass
class TinyAllocator:
    """Gives the next address to each attachment, the same again to the same one. `before` may delay or refuse."""

    asked: list[Allocate] = field(default_factory=list[Allocate])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    given: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    before: Callable[[Allocate], Any] | None = None
    change: Callable[[Allocated], AllocateReply] | None = None
    networks: dict[str, str] = field(default_factory=dict[str, str])

    async def on_request(self, message: Message) -> bytes | None:
        command = ALLOCATE.decode(message.data)
        self.asked.append(command)
        self.headers.append(message.headers)
        if self.before is not None:
            told = self.before(command)
            if asyncio.iscoroutine(told):
                told = await told
            if isinstance(told, Refused):
                return encode(told)
        number = self.given.setdefault((command.container_id, command.ifname), len(self.given) + 9)
        grants = (
            Grant(
                ifname=command.ifname,
                family=4,
                address=f"10.6.{number >> 8}.{number & 255}/16",
                pool="v4",
                generation=number,
                gateway="10.6.0.1",
            ),
            Grant(
                ifname=command.ifname,
                family=6,
                address=f"{ipaddress.ip_address('fd00:6::') + number}/64",
                pool="v6",
                generation=number,
                gateway="fd00:6::1",
            ),
        )
        reply = Allocated(
            attempt=command.attempt,
            pod_uid=command.pod_uid or f"container:{command.container_id}",
            grants=grants,
            mark=Mark(incarnation="i1", sequence=len(self.asked), digest="ab"),
            term=1,
            networks=self.networks,
        )
        return encode(self.change(reply) if self.change is not None else reply)


@dataclass
class Node:
    """The agent under test, and the runtime's side of it."""

    lab: Lab
    server: NatsServer
    service: Service
    bus: Bus
    allocator: TinyAllocator
    settings: AgentSettings
    serving: Any = None

    async def start(self) -> None:
        known = self.service.log.read_text().count('"event":"serving"') if self.service.log.exists() else 0
        self.service.start()
        await until(
            lambda: self.service.log.read_text().count('"event":"serving"') > known, "the agent starts"
        )

    async def serve_allocator(self) -> None:
        self.serving = await self.bus.serve(subjects.ALLOCATE_ALL, self.allocator.on_request)

    async def remove_allocator(self) -> None:
        await self.serving.stop()
        await self.bus.flush()

    async def call(
        self,
        verb: str,
        container_id: str = "",
        netns: str = "",
        configuration: dict[str, Any] | bytes | None = None,
        *,
        ifname: str = "eth0",
        name: str = "orbweaver",
        attempt: str = "",
        start_ns: int = 0,
        deadline_s: float = 20.0,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """As the shim asks: the same attempt again until there is an answer."""
        body = native() if configuration is None else configuration
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        sent = {
            "Orb-Version": "1",
            "Orb-Name": name,
            "Orb-Attempt": attempt or secrets.token_hex(16),
            "Orb-Start-Ns": str(start_ns or now_ns),
            "Orb-Deadline-Ns": str(now_ns + int(deadline_s * 1e9)),
            "Cni-Command": verb,
            "Cni-Containerid": container_id,
            "Cni-Netns": netns,
            "Cni-Ifname": ifname,
        }
        sent = {key: value for key, value in (sent | (headers or {})).items() if value}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        deadline = time.monotonic() + deadline_s
        while True:
            try:
                message = await self.bus.request(subjects.cni(NODE), data, 2.0, sent)
                return Answer(int(message.headers["Orb-Exit"]), message.data)
            except Exception:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.02)

    async def attachments(self, *, check: bool = False) -> tuple[AttachmentView, ...]:
        message = await self.bus.request(subjects.ask_agent(NODE), encode(QueryAttachments(check=check)), 5.0)
        return ATTACHMENTS_PAGE.decode(message.data).attachments

    async def releases(self) -> list[Release]:
        """All of the work queue, which nobody works on here."""
        state = await self.bus.stream_state("RELEASES")
        found = [
            await self.bus.get_message("RELEASES", sequence) for sequence in range(1, state.last_sequence + 1)
        ]
        return [RELEASE.decode(message.data) for message in found if message is not None]

    async def events(self) -> list[AttachEvent]:
        return [ATTACH_EVENT.decode(m.data) async for m in self.bus.read("ATTACH")]

    async def spans(self) -> list[SpanRecord]:
        batches = [SPAN_BATCH.decode(m.data) async for m in self.bus.read("SPANS")]
        return [span for batch in batches for span in batch.spans]

    def links(self, pod: str) -> set[str]:
        return {link["ifname"] for link in self.lab.ip(pod, "link")} - {"lo"}

    def addresses(self, pod: str, ifname: str = "eth0") -> set[str]:
        (shown,) = self.lab.ip(pod, "address", "show", "dev", ifname)
        return {f"{a['local']}/{a['prefixlen']}" for a in shown["addr_info"] if a["scope"] == "global"}


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        holds = condition()
        if asyncio.iscoroutine(holds):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def agent_lab() -> Iterator[Lab]:
    with Lab(nodes=1, gateways=GATEWAYS) as lab:
        yield lab


class Make:
    """`async with make() as node:` — server, streams, allocator and agent of one test."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._directory = directory
        self._server = NatsServer(directory)
        self._node: Node | None = None

    async def __aenter__(self) -> Node:
        self._server.start()
        bus = await Bus.connect(self._server.settings(), "test", attempts=50)
        for stream in (subjects.RELEASES, subjects.ATTACH, subjects.SPANS):
            await bus.ensure_stream(stream)
        given = self._server.settings("agent", NODE)
        settings = AgentSettings(
            node=NODE,
            bus=BusSettings(
                servers=given.servers,
                user=given.user,
                password=given.password,
                inbox_prefix=given.inbox_prefix,
            ),
            telemetry=TelemetrySettings(),
            state=str(self._directory / "state"),
            netns=self._lab.path(self._lab.nodes[0]),
            reconcile_interval_s=0.2,
        )
        node = Node(
            self._lab,
            self._server,
            Service("services.agent", settings, self._directory),
            bus,
            TinyAllocator(),
            settings,
        )
        self._node = node
        await node.serve_allocator()
        await node.start()
        return node

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if self._node is not None:
            if error is not None and self._node.service.log.exists():
                print(self._node.service.log.read_text()[-4000:])
            self._node.service.kill()
            await self._node.bus.close()
        self._server.stop()


@pytest.fixture
def make(agent_lab: Lab, tmp_path: Path) -> Make:
    return Make(agent_lab, tmp_path)


def run(work: AsyncIterator[None] | Any) -> None:
    asyncio.run(work)


async def forgotten(node: Node) -> None:
    async def none_left() -> bool:
        return not await node.attachments()

    await until(none_left, "the journal forgets what is released")
