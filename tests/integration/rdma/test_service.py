"""The RDMA service as a process against a real JetStream, with the permissions of its node."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from shared import subjects
from shared.bus import Bus, NoResponder
from shared.contracts.codec import encode
from shared.contracts.inventory import INVENTORY, RdmaInventory
from shared.contracts.query import SERVICE_VIEW, QueryService, ServiceView
from shared.settings import RdmaSettings
from tests.support.nats import NatsServer
from tests.support.service import Service
from tests.support.sysfs import remove_device, write_sysfs

ASK = f"{subjects.ask_service('rdma')}.n1"


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    return tmp_path / "sys"


@pytest.fixture
def service(fresh_nats_server: NatsServer, tmp_path: Path, sysfs: Path) -> Iterator[Service]:
    settings = RdmaSettings(
        node="n1", bus=fresh_nats_server.settings("rdma", "n1"), sysfs=str(sysfs), interval_s=0.1
    )
    process = Service("services.rdma", settings, tmp_path)
    yield process
    process.kill()


async def make_stream(server: NatsServer) -> Bus:
    bus = await Bus.connect(server.settings(), "test")
    await bus.ensure_stream(subjects.INVENTORY)
    return bus


async def published(bus: Bus, fits: Callable[[RdmaInventory], bool]) -> RdmaInventory:
    async with asyncio.timeout(10):
        while True:
            message = await bus.get_last("INVENTORY", subjects.inventory("n1"))
            if message is not None and fits(found := INVENTORY.decode(message.data)):
                return found
            await asyncio.sleep(0.02)


def test_without_rdma_the_empty_inventory_is_published(
    service: Service, fresh_nats_server: NatsServer
) -> None:
    async def run() -> None:
        bus = await make_stream(fresh_nats_server)
        service.start()
        found = await published(bus, lambda _: True)
        assert found.node == "n1" and found.devices == ()
        view = SERVICE_VIEW.decode((await bus.request(ASK, encode(QueryService()))).data)
        assert isinstance(view, ServiceView)
        assert (view.ready, view.instance, view.pid) == (True, "n1", service.pid)
        assert view.facts["devices"] == "0"
        await bus.close()

    asyncio.run(run())
    assert service.stop() == 0


def test_a_change_is_published_and_no_change_is_not(
    service: Service,
    fresh_nats_server: NatsServer,
    sysfs: Path,
) -> None:
    write_sysfs(sysfs)

    async def run() -> None:
        bus = await make_stream(fresh_nats_server)
        service.start()
        assert len((await published(bus, lambda one: bool(one.devices))).devices) == 4
        await asyncio.sleep(0.5)
        assert (await bus.stream_state("INVENTORY")).last_sequence == 1
        remove_device(sysfs, "rxe0")
        assert len((await published(bus, lambda one: len(one.devices) == 3)).devices) == 3
        await bus.close()

    asyncio.run(run())


def test_it_waits_for_the_stream_and_says_so(service: Service, fresh_nats_server: NatsServer) -> None:
    service.start()
    address = _http(service)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{address}/readyz", timeout=5)
    refused.value.close()
    assert refused.value.code == 503

    async def run() -> None:
        bus = await make_stream(fresh_nats_server)
        await published(bus, lambda _: True)
        await bus.close()

    asyncio.run(run())
    service.logged("inventory published")
    with urllib.request.urlopen(f"http://{address}/readyz", timeout=5) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        assert "orbweaver_rdma_devices 0" in answer.read().decode()


def test_after_the_stream_was_lost_it_is_published_again(
    service: Service,
    fresh_nats_server: NatsServer,
) -> None:
    async def run() -> None:
        bus = await make_stream(fresh_nats_server)
        service.start()
        await published(bus, lambda _: True)
        await bus.api("STREAM.DELETE.INVENTORY")
        await bus.close()
        fresh_nats_server.stop()
        fresh_nats_server.start()
        bus = await make_stream(fresh_nats_server)
        await published(bus, lambda _: True)
        await bus.close()

    asyncio.run(run())


def test_a_message_that_is_none_is_not_answered(service: Service, fresh_nats_server: NatsServer) -> None:
    async def run() -> None:
        bus = await make_stream(fresh_nats_server)
        service.start()
        await published(bus, lambda _: True)
        await bus.publish(ASK, b"\xc1nonsense", reply="_INBOX_lost")
        answer = await bus.request(ASK, encode(QueryService()))
        assert SERVICE_VIEW.decode(answer.data)
        await bus.close()

    asyncio.run(run())
    with urllib.request.urlopen(f"http://{_http(service)}/metrics", timeout=5) as answer:
        assert 'orbweaver_messages_refused_total{family="orb.ask.service"} 1.0' in answer.read().decode()


def test_nobody_answers_before_it_is_started(fresh_nats_server: NatsServer) -> None:
    async def run() -> None:
        bus = await make_stream(fresh_nats_server)
        with pytest.raises(NoResponder):
            await bus.request(ASK, encode(QueryService()))
        await bus.close()

    asyncio.run(run())


def test_a_wrong_credential_ends_it(fresh_nats_server: NatsServer, tmp_path: Path) -> None:
    bus = msgspec.structs.replace(fresh_nats_server.settings("rdma", "n1"), password="wrong")
    process = Service("services.rdma", RdmaSettings(node="n1", bus=bus), tmp_path)
    process.start()
    try:
        assert process.wait() == 2
        process.logged("refuses user")
    finally:
        process.kill()


def _http(service: Service) -> str:
    line = next(line for line in service.logged('"started"').splitlines() if '"started"' in line)
    return str(msgspec.json.decode(line)["http"])
