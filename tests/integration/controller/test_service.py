"""The controller as a process: a real folder, a real JetStream, the permissions of its identity."""

from __future__ import annotations

import asyncio
import shutil
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.controller import app
from services.controller.leases import AllocatorLeases
from services.controller.replica import Alone, Replica
from services.controller.rules import AdmissionRules
from services.controller.source import FolderSource
from shared import subjects
from shared.bus import Bus, BusError, BusTimeout
from shared.contracts.codec import encode
from shared.contracts.facts import (
    FACT,
    FACT_ANSWER,
    SYNC_ANSWER,
    AskFact,
    AskSync,
    Fact,
    FactAnswer,
    FactsSynced,
    FactsTerm,
    ObjectFact,
    ObjectGone,
    SyncAnswer,
)
from shared.contracts.ipam import (
    ALLOCATE_REPLY,
    Allocate,
    Allocated,
    Grant,
    InterfaceRequest,
    Refused,
    Release,
)
from shared.contracts.query import SERVICE_VIEW, QueryService, ServiceView
from shared.limits import TOMBSTONE_KEPT_S
from shared.settings import AllocatorSettings, ControllerSettings, TelemetrySettings
from shared.telemetry import Telemetry
from tests.support.folder import config, decoded, pod, pool
from tests.support.nats import NatsServer
from tests.support.service import Service

ASK_SERVICE = f"{subjects.ask_service('controller')}.c1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "manifests"
    path.mkdir()
    return path


@pytest.fixture
def controller(fresh_nats_server: NatsServer, tmp_path: Path, folder: Path) -> Iterator[Service]:
    settings = ControllerSettings(
        replica="c1", bus=fresh_nats_server.settings("controller"), manifests=str(folder), poll_s=0.1
    )
    process = Service("services.controller", settings, tmp_path)
    process.start()
    yield process
    process.kill()


class Follower:
    """Reads FACTS from its begin, and asks the controller as the allocator and the tools do."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def facts(self) -> list[Fact]:
        read = [FACT.decode(message.data) async for message in self.bus.read("FACTS")]
        return [fact for fact in read if not isinstance(fact, FactsTerm)]

    async def last(self, kind: str, name: str, namespace: str = "") -> Fact | None:
        message = await self.bus.get_last("FACTS", subjects.facts(kind, namespace, name))
        return FACT.decode(message.data) if message is not None else None

    async def until(self, found: Callable[[], Coroutine[Any, Any, object]]) -> Any:
        async with asyncio.timeout(10):
            while True:
                try:
                    if (value := await found()) is not None and value is not False:
                        return value
                except BusError:
                    pass
                await asyncio.sleep(0.02)

    async def sync(self) -> SyncAnswer:
        async def ask() -> SyncAnswer:
            return SYNC_ANSWER.decode(
                (await self.bus.request(subjects.ASK_SYNC, encode(AskSync()), 5.0)).data
            )

        return await self.until(ask)

    async def ask(self, kind: str, name: str, namespace: str = "") -> ObjectFact | None:
        message = await self.bus.request(
            subjects.ASK_FACTS, encode(AskFact(kind=kind, namespace=namespace, name=name)), 5.0
        )
        answer = FACT_ANSWER.decode(message.data)
        assert isinstance(answer, FactAnswer)
        return answer.fact

    async def view(self) -> ServiceView:
        return SERVICE_VIEW.decode((await self.bus.request(ASK_SERVICE, encode(QueryService()))).data)


@asynccontextmanager
async def following(server: NatsServer) -> AsyncIterator[Follower]:
    bus = await Bus.connect(server.settings(), "test")
    try:
        yield Follower(bus)
    finally:
        await bus.close()


@pytest.fixture
def allocator(fresh_nats_server: NatsServer, tmp_path: Path) -> Iterator[Service]:
    """The real one; it answers as soon as it has read the facts and leads."""
    settings = AllocatorSettings(
        replica="a1",
        bus=fresh_nats_server.settings("allocator"),
        system=fresh_nats_server.settings("sys"),
        mark_file=str(tmp_path / "mark.json"),
    )
    process = Service("services.allocator", settings, tmp_path)
    process.start()
    yield process
    process.kill()


async def attach(follower: Follower, pod_name: str, of_pool: str) -> Grant:
    """One address for a pod, asked for as its node's agent does."""
    request = Allocate(
        attempt=f"attempt-{pod_name}",
        node="n1",
        container_id=f"sandbox-{pod_name}",
        ifname="eth0",
        interfaces=(InterfaceRequest(ifname="eth0", ipv4=(of_pool,)),),
        ttl_ms=5000,
        pod_namespace="shop",
        pod_name=pod_name,
        pod_uid=f"uid-{pod_name}",
    )

    async def allocate() -> Grant | None:
        answer = await follower.bus.request(subjects.allocate("n1"), encode(request), 5.0)
        reply = ALLOCATE_REPLY.decode(answer.data)
        if isinstance(reply, Refused) and reply.error == "try_later":
            return None  # the allocator has just started: an agent asks again too
        assert isinstance(reply, Allocated), reply
        return reply.grants[0]

    return await follower.until(allocate)


async def detach(follower: Follower, pod_name: str, generation: int) -> None:
    release = Release(
        node="n1",
        container_id=f"sandbox-{pod_name}",
        ifname="eth0",
        attempt=f"attempt-{pod_name}",
        generation=generation,
        pod_uid=f"uid-{pod_name}",
    )
    await follower.bus.append(subjects.release("n1"), encode(release))


def http(controller: Service, path: str) -> str:
    line = next(line for line in controller.logged('"started"').splitlines() if '"started"' in line)
    with urllib.request.urlopen(f"http://{msgspec.json.decode(line)['http']}{path}", timeout=5) as answer:
        return answer.read().decode()


def test_a_folder_becomes_facts_and_the_synced_mark(
    controller: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    (folder / "pools.yaml").write_text(pool("rack"))
    (folder / "sub").mkdir()
    (folder / "sub" / "pods.yaml").write_text(pod("web-0") + "---\n" + pod("web-1"))

    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            answer = await follower.sync()
            assert (answer.objects, answer.problems) == (3, ())
            facts = await follower.facts()
            assert answer.facts_sequence == len(facts) + 1, "the term stands before them"
            versions = [fact.version for fact in facts]
            assert versions == sorted(set(versions))
            assert sum(isinstance(fact, FactsSynced) for fact in facts) == 1
            fact = await follower.last("SpiderIPPool", "rack")
            assert isinstance(fact, ObjectFact) and decoded(fact)["spec"]["ipVersion"] == 4
            view = await follower.view()
            assert view.ready and view.pid == controller.pid
            assert view.facts["objects"] == "3" and view.facts["files"] == "2"
            assert view.facts["problems"] == "0" and view.facts["synced"] == "true"
            assert view.facts["facts_sequence"] == str(answer.facts_sequence)
            assert view.facts["installation_namespace"] == "kube-system"

    asyncio.run(run())
    assert http(controller, "/readyz") == "ok\n"
    metrics = http(controller, "/metrics")
    assert "spiderpool_total_ippool_counts 1.0" in metrics and "orbweaver_objects 3.0" in metrics
    assert controller.stop() == 0


def test_changes_and_deletions_are_told_without_being_asked_for(
    controller: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            await follower.sync()
            (folder / "a.yaml").write_text(pod("web-0", uid="u1"))
            await follower.until(lambda: follower.last("Pod", "web-0", "shop"))
            (folder / "a.yaml").write_text(pod("web-0", uid="u1", node="n2"))

            async def moved() -> bool:
                fact = await follower.last("Pod", "web-0", "shop")
                return isinstance(fact, ObjectFact) and decoded(fact)["spec"]["nodeName"] == "n2"

            await follower.until(moved)
            (folder / "a.yaml").unlink()

            async def gone() -> bool:
                fact = await follower.last("Pod", "web-0", "shop")
                return isinstance(fact, ObjectGone) and fact.uid == "u1"

            await follower.until(gone)
            before = (await follower.bus.stream_state("FACTS")).last_sequence
            await asyncio.sleep(0.5)
            assert (await follower.bus.stream_state("FACTS")).last_sequence == before

    asyncio.run(run())


def test_a_bad_file_is_a_problem_with_its_place_and_mends(
    controller: Service, allocator: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    (folder / "a.yaml").write_text(pool("rack"))

    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            await follower.sync()
            (folder / "a.yaml").write_text(pool("rack", ips="10.9.0.1"))
            (problem,) = (await follower.sync()).problems
            assert (problem.file, problem.line, problem.field) == ("a.yaml", 6, "spec.ips[0]")
            fact = await follower.ask("SpiderIPPool", "rack")
            assert fact is not None and decoded(fact)["spec"]["ips"] == ["10.6.0.10-10.6.0.20"]
            assert (await follower.view()).facts["problems"] == "1"
            (folder / "a.yaml").write_text(pool("rack", ips="10.6.9.1"))

            async def mended() -> bool:  # as soon as the allocator leads and tells that nothing is in use
                return (await follower.sync()).problems == ()

            await follower.until(mended)

    asyncio.run(run())


def test_asking_for_a_fact_reads_the_folder_as_of_now(
    controller: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            await follower.sync()
            assert await follower.ask("Pod", "web-0", "shop") is None
            (folder / "a.yaml").write_text(pod("web-0", uid="u1"))
            fact = await follower.ask("Pod", "web-0", "shop")
            assert fact is not None and fact.uid == "u1"
            # what is answered is in the stream already
            assert await follower.last("Pod", "web-0", "shop") == fact
            (folder / "a.yaml").unlink()
            assert await follower.ask("Pod", "web-0", "shop") is None

    asyncio.run(run())


def test_a_thousand_questions_at_once_share_their_looks(
    controller: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            await follower.sync()
            for i in range(1000):
                (folder / f"{i}.yaml").write_text(pod(f"web-{i}", uid=f"u{i}"))
            start_s = time.monotonic()
            found = await asyncio.gather(*(follower.ask("Pod", f"web-{i}", "shop") for i in range(1000)))
            assert [fact and fact.uid for fact in found] == [f"u{i}" for i in range(1000)]
            assert time.monotonic() - start_s < 15

    asyncio.run(run())


def test_a_restart_tells_only_what_changed_meanwhile(
    controller: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    for name in "abc":
        (folder / f"{name}.yaml").write_text(pod(name))
    (folder / "rack.yaml").write_text(pool("rack"))

    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            before = (await follower.sync()).facts_sequence
            controller.kill()
            (folder / "a.yaml").unlink()
            (folder / "b.yaml").write_text(pod("b", node="n2"))
            (folder / "rack.yaml").write_text("kind: [unclosed")
            controller.start()
            answer = await follower.sync()
            assert answer.objects == 3 and answer.problems[0].file == "rack.yaml"
            told = [fact async for fact in _after(follower, before)]
            assert [type(fact) for fact in told] == [ObjectGone, ObjectFact, FactsSynced]
            assert told[0].version < told[1].version < told[2].version

    asyncio.run(run())


async def _after(follower: Follower, sequence: int) -> AsyncIterator[Fact]:
    async for message in follower.bus.read("FACTS", start_sequence=sequence + 1):
        fact = FACT.decode(message.data)
        if not isinstance(fact, FactsTerm):
            yield fact


def test_after_the_stream_was_lost_everything_is_told_again(
    controller: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    (folder / "a.yaml").write_text(pod("a"))

    async def first() -> Fact | None:
        async with following(fresh_nats_server) as follower:
            await follower.sync()
            return await follower.last("Pod", "a", "shop")

    async def again() -> None:
        async with following(fresh_nats_server) as follower:
            told = await follower.until(lambda: follower.last("Pod", "a", "shop"))
            assert told == before

            async def synced() -> bool:
                return isinstance((await follower.facts())[-1], FactsSynced)

            await follower.until(synced)
            (folder / "b.yaml").write_text(pod("b"))
            assert (await follower.sync()).objects == 2

    before = asyncio.run(first())
    fresh_nats_server.stop(kill=True)
    shutil.rmtree(fresh_nats_server.directory / "js")
    fresh_nats_server.start()
    asyncio.run(again())


def test_changes_made_while_the_bus_is_away_are_told_when_it_is_back(
    controller: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    (folder / "a.yaml").write_text(pod("a"))

    async def synced() -> None:
        async with following(fresh_nats_server) as follower:
            await follower.sync()

    async def told() -> None:
        async with following(fresh_nats_server) as follower:
            await follower.until(lambda: follower.last("Pod", "b", "shop"))

            async def gone() -> bool:
                return isinstance(await follower.last("Pod", "a", "shop"), ObjectGone)

            await follower.until(gone)

    asyncio.run(synced())
    fresh_nats_server.stop()
    (folder / "a.yaml").unlink()
    (folder / "b.yaml").write_text(pod("b"))
    controller.logged("facts wait for the bus")
    fresh_nats_server.start()
    asyncio.run(told())


def test_a_pool_with_leases_is_terminating_and_goes_with_its_last_lease(
    controller: Service, allocator: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    (folder / "a.yaml").write_text(pool("rack"))
    (folder / "pod.yaml").write_text(pod("web-0", uid="uid-web-0"))

    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            await follower.sync()
            grant = await attach(follower, "web-0", "rack")
            assert grant.address == "10.6.0.10/16"
            (folder / "a.yaml").write_text(pool("rack", ips="10.6.0.11-10.6.0.20"))
            (problem,) = (await follower.sync()).problems
            assert "10.6.0.10" in problem.message and "shop/web-0" in problem.message
            (folder / "a.yaml").unlink()
            await follower.sync()
            fact = await follower.last("SpiderIPPool", "rack")
            assert isinstance(fact, ObjectFact) and decoded(fact)["metadata"]["deletionTimestamp"]
            (folder / "a.yaml").write_text(pool("rack"))
            (problem,) = (await follower.sync()).problems
            assert "anew" in problem.message
            (folder / "pod.yaml").unlink()
            await follower.sync()
            await detach(follower, "web-0", grant.generation)

            async def anew() -> bool:
                last = await follower.last("SpiderIPPool", "rack")
                return isinstance(last, ObjectFact) and last.uid != fact.uid

            await follower.until(anew)
            assert (await follower.sync()).problems == ()
            # a pool without leases is gone when sync answers
            (folder / "a.yaml").unlink()
            await follower.sync()
            assert isinstance(await follower.last("SpiderIPPool", "rack"), ObjectGone)

    asyncio.run(run())


def test_without_an_allocator_a_pool_stays_terminating(
    controller: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    (folder / "a.yaml").write_text(pool("rack"))

    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            await follower.sync()
            (folder / "a.yaml").unlink()
            await follower.sync()
            await asyncio.sleep(1.5)
            assert isinstance(await follower.last("SpiderIPPool", "rack"), ObjectFact)

    asyncio.run(run())


def test_the_config_map_says_where_the_installation_is(
    controller: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    (folder / "conf.yaml").write_text(config(enableIPv6=False).replace("kube-system", "spiderpool"))
    (folder / "v6.yaml").write_text(
        pool("six", ips="fd00::1", subnet="fd00::/64").replace("[fd00::1]", '["fd00::1"]')
    )

    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            (problem,) = (await follower.sync()).problems
            assert "IPv6 is disabled" in problem.message
            assert (await follower.view()).facts["installation_namespace"] == "spiderpool"

    asyncio.run(run())


@pytest.mark.parametrize("subject", [subjects.ASK_FACTS, subjects.ASK_SYNC, ASK_SERVICE])
def test_what_is_no_message_is_counted_and_not_answered(
    controller: Service, fresh_nats_server: NatsServer, subject: str
) -> None:
    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            await follower.sync()
            with pytest.raises(BusTimeout):
                await follower.bus.request(subject, b"\xc1nonsense", 0.3)

    asyncio.run(run())
    family = subject.removesuffix(".controller.c1")
    assert f'orbweaver_messages_refused_total{{family="{family}"}} 1.0' in http(controller, "/metrics")


def test_a_controller_waits_for_its_bus(fresh_nats_server: NatsServer, tmp_path: Path, folder: Path) -> None:
    fresh_nats_server.stop()
    (folder / "a.yaml").write_text(pod("a"))
    settings = ControllerSettings(
        replica="c1", bus=fresh_nats_server.settings("controller"), manifests=str(folder), poll_s=0.1
    )
    process = Service("services.controller", settings, tmp_path)
    process.start()
    try:
        time.sleep(0.3)
        fresh_nats_server.start()

        async def run() -> None:
            async with following(fresh_nats_server) as follower:
                assert (await follower.sync()).objects == 1

        asyncio.run(run())
        assert process.stop() == 0
    finally:
        process.kill()


def test_a_folder_that_does_not_exist_is_a_problem_and_mends(
    controller: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            await follower.sync()
            shutil.rmtree(folder)
            (problem,) = (await follower.sync()).problems
            assert "cannot be read" in problem.message
            Path.mkdir(folder)
            (folder / "a.yaml").write_text(pod("a"))
            answer = await follower.sync()
            assert (answer.objects, answer.problems) == (1, ())

    asyncio.run(run())


def test_two_thousand_files_are_in_force_within_seconds(
    fresh_nats_server: NatsServer, tmp_path: Path, folder: Path
) -> None:
    for i in range(2000):
        (folder / f"{i}.yaml").write_text(pod(f"web-{i}", uid=f"u{i}"))
    settings = ControllerSettings(
        replica="c1", bus=fresh_nats_server.settings("controller"), manifests=str(folder)
    )
    process = Service("services.controller", settings, tmp_path)
    start_s = time.monotonic()
    process.start()
    try:

        async def run() -> None:
            async with following(fresh_nats_server) as follower:
                assert (await follower.sync()).objects == 2000

        asyncio.run(run())
        # about 1.5 s on a quiet machine, process start included; a loaded one is given time
        assert time.monotonic() - start_s < 10
    finally:
        process.kill()


def test_the_server_forgets_a_tombstone_in_time_and_a_fact_never(
    controller: Service, fresh_nats_server: NatsServer, folder: Path
) -> None:
    (folder / "a.yaml").write_text(pod("a"))
    (folder / "b.yaml").write_text(pod("b"))

    async def run() -> None:
        async with following(fresh_nats_server) as follower:
            await follower.sync()
            (folder / "a.yaml").unlink()
            await follower.sync()
            gone = await follower.bus.get_last("FACTS", subjects.facts("Pod", "shop", "a"))
            kept = await follower.bus.get_last("FACTS", subjects.facts("Pod", "shop", "b"))
            assert gone is not None and gone.headers["Nats-TTL"] == f"{TOMBSTONE_KEPT_S}s"
            assert kept is not None and "Nats-TTL" not in kept.headers

    asyncio.run(run())


class StuckSource(FolderSource):
    """A folder on a disk that does not answer."""

    async def refresh(self, *, again: bool = False) -> list[Fact]:
        await asyncio.Event().wait()
        return []


def test_a_look_that_does_not_end_is_told(
    fresh_nats_server: NatsServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "LOOK_STALE_S", 0.5)

    async def run() -> None:
        settings = ControllerSettings(
            replica="c1", bus=fresh_nats_server.settings("controller"), manifests=str(folder), poll_s=0.1
        )
        bus = await Bus.connect(settings.bus, "controller")
        source = StuckSource(folder, AllocatorLeases(bus), AdmissionRules)
        silent = Telemetry("controller", "c1", "", TelemetrySettings())
        stuck = app.App(settings, bus, source, silent)
        serving = asyncio.create_task(Replica(bus, "c1", stuck, Alone("c1")).run())
        try:
            async with following(fresh_nats_server) as follower:

                async def stale() -> bool:
                    return "the last look at the manifests was" in (await follower.view()).reason

                await follower.until(stale)
        finally:
            serving.cancel()
            await bus.close()

    asyncio.run(run())
