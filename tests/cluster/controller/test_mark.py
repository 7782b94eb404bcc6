"""The mark of the lease log in a ConfigMap: kept by the controller for all allocators, with the rights of its README."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared import subjects
from shared.bus import Bus
from shared.contracts import mark
from shared.contracts.codec import encode
from shared.contracts.mark import KeepMark, LogMark, Mirrored
from shared.contracts.mirrored import MIRRORED_PAGE, AskMirrored, MirroredPage
from shared.limits import MARK_SHARE_INTERVAL_S
from tests.cluster.controller.conftest import (
    LEASE,
    Starting,
    allocating,
    attach,
    pod,
    pool,
    reading,
    wait_for,
)
from tests.cluster.controller.test_rights import grant
from tests.support.kube import ApiServer, namespace
from tests.support.nats import NatsServer
from tests.support.service import Service

PLACE = "/api/v1/namespaces/kube-system/configmaps"
PATH = f"{PLACE}/{mark.CONFIG_MAP}"
FIRST = LogMark(incarnation="i1", sequence=40, digest="aa")


def kept(server: ApiServer) -> LogMark | None:
    found = [one for one in server.client.items(PLACE) if one["metadata"]["name"] == mark.CONFIG_MAP]
    return mark.read_mark(found[0]["data"]) if found else None


def forget(server: ApiServer) -> None:
    server.client.delete(PATH)


async def tell(bus: Bus, *marks: LogMark) -> None:
    for one in marks:
        await bus.publish(subjects.MARK, encode(KeepMark(mark=one)))


def test_the_furthest_mark_is_kept(
    crds: ApiServer, starting: Starting, fresh_nats_server: NatsServer, tmp_path: Path
) -> None:
    """With exactly the rights of the README: made where there is none, written over only by one that goes further."""
    forget(crds)
    kubeconfig = crds.write_kubeconfig(tmp_path / "controller.kubeconfig", token=grant(crds))
    service = starting(kubeconfig=str(kubeconfig))

    async def until(bus: Bus, wanted: LogMark, *told: LogMark) -> None:
        deadline_s = time.monotonic() + 40.0
        while await asyncio.to_thread(kept, crds) != wanted:
            assert time.monotonic() < deadline_s, (wanted, kept(crds), service.log.read_text()[-3000:])
            await tell(bus, *told)
            await asyncio.sleep(0.5)

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()
            await reader.bus.publish(subjects.MARK, b"\x81\xa4type")
            await until(reader.bus, FIRST, FIRST)
            further = msgspec.structs.replace(FIRST, sequence=90, digest="bb")
            await until(reader.bus, further, FIRST, further)
            # another log, of which nobody says that this one was lost before it
            other = LogMark(incarnation="i9", sequence=500)
            await tell(reader.bus, other, FIRST)
            await asyncio.sleep(MARK_SHARE_INTERVAL_S + 2.0)
            assert await asyncio.to_thread(kept, crds) == further
            after = LogMark(incarnation="i2", sequence=3, epoch=1)
            await until(reader.bus, after, after)
            told = await reader.until(lambda: _told(reader, after))
            assert told
            await asyncio.to_thread(forget, crds)
            await until(reader.bus, after, after)

    asyncio.run(main())
    log = service.log.read_text()
    assert "forbidden" not in log and "a mark that is none" in log
    forget(crds)


async def _told(reader: Any, wanted: LogMark) -> bool:
    """Every allocator reads it as a fact."""
    found = await reader.object("ConfigMap", mark.CONFIG_MAP, "kube-system")
    return found is not None and mark.read_mark(found["data"]) == wanted


def test_a_leading_allocator_is_followed_and_writes_are_few(
    crds: ApiServer, starting: Starting, allocator: Service, fresh_nats_server: NatsServer
) -> None:
    forget(crds)
    place = namespace(crds)
    crds.client.create("/apis/spiderpool.spidernet.io/v2beta1/spiderippools", pool("rack"))
    starting()

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()
            versions: set[str] = set()
            began_s = time.monotonic()
            for number in range(8):
                made = await asyncio.to_thread(
                    crds.client.create, f"/api/v1/namespaces/{place}/pods", pod(f"web-{number}")
                )
                await attach(reader, made, "rack")
                found = await asyncio.to_thread(kept, crds)
                versions |= {str(found)}
            last = (await reader.bus.stream_state("LEASES")).last_sequence

            async def whole() -> bool:
                found = await asyncio.to_thread(kept, crds)
                versions.add(str(found))
                return found is not None and found.sequence >= last

            await reader.until(whole)
            assert len(versions) <= 3 + (time.monotonic() - began_s) / MARK_SHARE_INTERVAL_S

    asyncio.run(main())
    wait_for(lambda: kept(crds))
    forget(crds)


def mirrored(server: ApiServer) -> Mirrored | None:
    found = [one for one in server.client.items(PLACE) if one["metadata"]["name"] == mark.CONFIG_MAP]
    return mark.read_mirrored(found[0]["data"]) if found else None


@pytest.fixture
def nodes(crds: ApiServer) -> Iterator[None]:
    for name in ("n1", "n2"):
        crds.client.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    yield
    for name in ("n1", "n2"):
        crds.client.delete(f"/api/v1/nodes/{name}")


@pytest.mark.usefixtures("nodes")
def test_a_wiped_store_is_seen_by_an_allocator_on_a_fresh_node(
    crds: ApiServer, starting: Starting, allocator: Service, fresh_nats_server: NatsServer, tmp_path: Path
) -> None:
    """All streams are gone, and with them the facts; nothing on the new node's disk tells of a log, and no agent answers. What the
    endpoints show is given to nobody else, and is enough to go on."""
    forget(crds)
    place = namespace(crds)
    crds.client.create("/apis/spiderpool.spidernet.io/v2beta1/spiderippools", pool("rack"))
    controller = starting()
    pods = f"/api/v1/namespaces/{place}/pods"
    made = [crds.client.create(pods, pod(name, node)) for name, node in (("web", "n1"), ("db", "n2"))]

    async def fill() -> tuple[int, dict[str, str]]:
        async with reading(fresh_nats_server) as reader:
            given = {one["spec"]["nodeName"]: (await attach(reader, one, "rack")).address for one in made}
            last = (await reader.bus.stream_state("LEASES")).last_sequence
            page: list[MirroredPage] = []

            async def told() -> bool:
                question = encode(AskMirrored(nodes=("n2", "n7")))
                answer = await reader.bus.request(subjects.ASK_MIRRORED, question, 10.0)
                page[:] = [MIRRORED_PAGE.decode(answer.data)]
                return page[0].through is not None and page[0].through.sequence >= last

            await reader.until(told)
            assert [(one.node, one.pod_name, one.address) for one in page[0].addresses] == [
                ("n2", "db", given["n2"])
            ]
            return last, given

    last, given = asyncio.run(fill())
    wait_for(lambda: (found := mirrored(crds)) is not None and found.sequence >= last)
    before = wait_for(lambda: found if (found := kept(crds)) is not None and found.sequence >= last else None)
    for service in (controller, allocator):
        service.kill()
    fresh_nats_server.stop()
    shutil.rmtree(fresh_nats_server.directory / "js")
    fresh_nats_server.start()
    fresh = allocating(fresh_nats_server, tmp_path, "fresh")
    crds.client.delete(LEASE)
    starting("c2")

    async def go_on() -> str:
        async with reading(fresh_nats_server) as reader:
            new = await asyncio.to_thread(crds.client.create, pods, pod("new", "n1"))
            return (await attach(reader, new, "rack")).address

    try:
        log = fresh.logged("log rebuilt", 60.0)
        assert any(
            words in log
            for words in (
                f"record {before.sequence} of log {before.incarnation}",
                f"the mark knows log {before.incarnation}",
            )
        )
        assert asyncio.run(go_on()) not in given.values()
        after = wait_for(lambda: found if (found := kept(crds)) is not None and found.epoch == 1 else None)
        assert after.incarnation != before.incarnation
        assert set(after.unmirrored) == {"n1", "n2"}, (
            "both have more than the endpoints will show from now on"
        )
    finally:
        fresh.kill()
        forget(crds)
