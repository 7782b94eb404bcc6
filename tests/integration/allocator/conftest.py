"""Allocator replicas as real processes on a real nats-server; the test is agent, controller and power cut."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from services.allocator.audit import audit
from services.allocator.log import fold_message
from services.allocator.state import State
from shared import subjects
from shared.bus import Bus, BusError, Message, NoResponder, StreamMessage
from shared.contracts.codec import encode
from shared.contracts.facts import ASK_SYNC, FactsSynced, ObjectFact, ObjectGone, SyncAnswer
from shared.contracts.ipam import ALLOCATE_REPLY, Allocate, Allocated, InterfaceRequest, Refused, Release
from shared.contracts.query import (
    IPAM_ANSWER,
    SERVICE_VIEW,
    AllocatorView,
    QueryAllocator,
    QueryService,
    ServiceView,
)
from shared.manifests.document import parse
from shared.net.ranges import format_address
from shared.settings import AllocatorSettings
from tests.support.nats import NatsServer
from tests.support.nats_cluster import NatsCluster
from tests.support.pure_allocator import pool
from tests.support.service import Service

T = TypeVar("T")
START_S = 30.0
POOLS = (
    pool("v4", "10.0.0.0/16", "10.0.1.0-10.0.200.255", default=True),
    pool("v6", "fd00::/64", "fd00::1:0-fd00::ffff:ffff", default=True),
)


class Replicas:
    """Processes by name; they share the mark file, as those of one machine do."""

    def __init__(self, server: NatsServer | NatsCluster, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.mark = directory / "mark.json"
        self._services: dict[str, Service] = {}

    def start(self, *names: str) -> None:
        for name in names:
            directory = self.directory / name
            directory.mkdir(exist_ok=True)
            settings = AllocatorSettings(
                replica=name,
                bus=self.server.settings("allocator"),
                system=self.server.settings("sys"),
                mark_file=str(self.mark),
                stream_replicas=self.server.stream_replicas,
            )
            self._services[name] = Service("services.allocator", settings, directory)
            self._services[name].start()

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self._services[name].pid, number)

    def start_again(self) -> None:
        for one in self._services.values():
            one.start_again()

    def kill(self, *names: str) -> None:
        for name in names or tuple(self._services):
            self._services[name].kill()


@pytest.fixture
def replicas(fresh_nats_server: NatsServer, tmp_path: Path) -> Iterator[Replicas]:
    made = Replicas(fresh_nats_server, tmp_path)
    yield made
    made.kill()


class Cluster:
    """What an agent, the controller and a tool do on the bus."""

    def __init__(self, bus: Bus, server: NatsServer | NatsCluster) -> None:
        self.bus = bus
        self.server = server
        self.acknowledged: dict[str, tuple[str, ...]] = {}
        self._version = 0

    @asynccontextmanager
    async def objects_known(self) -> AsyncGenerator[None]:
        """Answers as a controller does whose facts are as their source: before that nothing is judged or rebuilt."""

        async def synced(message: Message) -> bytes:
            ASK_SYNC.decode(message.data)
            state = await self.bus.stream_state("FACTS")
            return encode(SyncAnswer(facts_sequence=state.last_sequence, objects=0))

        serving = await self.bus.serve(subjects.ASK_SYNC, synced)
        try:
            yield
        finally:
            await serving.stop()

    async def facts(self, *manifests: str, synced: bool = True) -> None:
        """Publishes objects and, if `synced`, the mark of a full list."""
        await self.bus.ensure_stream(subjects.FACTS, self.server.stream_replicas)
        for text in manifests:
            for document in parse(text, "test.yaml").documents:
                self._version += 1
                key = document.key
                fact = ObjectFact(
                    kind=key.kind,
                    api_version=document.api_version,
                    namespace=key.namespace,
                    name=key.name,
                    uid="",
                    version=self._version,
                    object=msgspec.json.encode(document.raw),
                )
                await self.bus.append(subjects.facts(key.kind, key.namespace, key.name), encode(fact))
        if synced:
            self._version += 1
            mark = FactsSynced(incarnation="c1", version=self._version, objects=len(manifests))
            await self.bus.append(subjects.FACTS_SYNCED, encode(mark))

    async def gone(self, kind: str, namespace: str, name: str) -> None:
        """Publishes that an object is deleted."""
        self._version += 1
        fact = ObjectGone(kind=kind, namespace=namespace, name=name, uid="", version=self._version)
        await self.bus.append(subjects.facts(kind, namespace, name), encode(fact))

    async def connected(self) -> None:
        """Waits until the server, started again, has this client back."""
        async with asyncio.timeout(START_S):
            while not self.bus.connection.connected:
                await asyncio.sleep(0.01)

    def command(self, container: str, node: str = "n1", ttl_ms: int = 20_000) -> Allocate:
        return Allocate(
            attempt=f"attempt-{container}",
            node=node,
            container_id=container,
            ifname="eth0",
            interfaces=(InterfaceRequest(ifname="eth0"),),
            ttl_ms=ttl_ms,
        )

    async def ask(self, container: str, node: str = "n1", timeout_s: float = 0.3) -> Allocated | Refused:
        """One request, once. Raises BusError."""
        message = await self.bus.request(
            subjects.allocate(node), encode(self.command(container, node)), timeout_s
        )
        reply = ALLOCATE_REPLY.decode(message.data)
        if isinstance(reply, Allocated):
            self.acknowledged[container] = tuple(grant.address for grant in reply.grants)
        return reply

    async def attach(self, container: str, node: str = "n1", timeout_s: float = 0.3) -> Allocated:
        """Asks again and again, as an agent does within its deadline, until it is allocated."""

        async def once() -> Allocated | None:
            reply = await self.ask(container, node, timeout_s)
            if isinstance(reply, Refused):
                await asyncio.sleep(0.05)
                return None
            return reply

        return await self.until(once)

    async def until(self, found: Callable[[], Awaitable[T | None]], within_s: float = START_S) -> T:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    if value := await found():
                        return value
                except BusError as error:
                    if isinstance(error, NoResponder):
                        await asyncio.sleep(0.01)
                await asyncio.sleep(0)

    async def release(self, container: str, generation: int, node: str = "n1") -> None:
        command = Release(
            node=node,
            container_id=container,
            ifname="eth0",
            attempt=f"attempt-{container}",
            generation=generation,
        )
        await self.bus.append(subjects.release(node), encode(command))

    async def view(self) -> AllocatorView | None:
        """The leader's; raises BusError while nobody leads."""
        message = await self.bus.request(subjects.IPAM_QUERY, encode(QueryAllocator()), 1.0)
        answer = IPAM_ANSWER.decode(message.data)
        return answer if isinstance(answer, AllocatorView) else None

    async def leader(self, other_than: str = "") -> str:
        async def leads() -> str | None:
            view = await self.view()
            return view.replica if view is not None and view.replica != other_than else None

        return await self.until(leads)

    async def service(self, replica: str) -> ServiceView:
        subject = f"{subjects.ask_service('allocator')}.{subjects.token(replica)}"
        return SERVICE_VIEW.decode((await self.bus.request(subject, encode(QueryService()), 0.5)).data)

    async def ready(self, replica: str) -> None:
        """Waits until the replica leads or stands by."""

        async def told() -> bool:
            return (await self.service(replica)).ready

        await self.until(told)

    async def reason(self, replica: str, fragment: str) -> str:
        """Waits until the replica says why it does not serve; the sentence."""

        async def told() -> str | None:
            reason = (await self.service(replica)).reason
            return reason if fragment in reason else None

        return await self.until(told)

    async def log(self) -> State:
        """The whole log, whoever leads the stream now, folded by the product's own reader, which raises where the chain is broken."""
        await self.bus.settle("LEASES")
        state = State()

        async for message in self.bus.read("LEASES"):
            fold_message(state, message)
        return state

    async def records(self) -> list[StreamMessage]:
        return [message async for message in self.bus.read("LEASES")]

    async def check(self) -> State:
        """No address twice, every acknowledged address is in the log, and the chain is whole."""
        state = await self.log()
        assert audit(state) == ()
        held: dict[str, list[str]] = {}
        for holding, _, _, lease in state.leases():
            held.setdefault(f"{lease.family}/{lease.address}", []).append(holding.owner)
        assert all(len(owners) == 1 for owners in held.values())
        for container, addresses in self.acknowledged.items():
            holding = state.holdings[f"container:n1/{container}"]
            leases = holding.interfaces["eth0"].leases
            assert tuple(f"{format_address(o.address, o.family)}/{o.prefix_len}" for o in leases) == addresses
        return state


@pytest.fixture
def run(fresh_nats_server: NatsServer) -> Callable[[Callable[[Cluster], Awaitable[None]]], None]:
    """Runs a test's coroutine with a connected `Cluster` that has the pools."""

    def runner(body: Callable[[Cluster], Awaitable[None]], *, facts: bool = True) -> None:
        async def main() -> None:
            bus = await Bus.connect(fresh_nats_server.settings(), "test")
            try:
                cluster = Cluster(bus, fresh_nats_server)
                if facts:
                    await cluster.facts(*POOLS)
                await body(cluster)
            finally:
                await bus.close()

        asyncio.run(main())

    return runner
