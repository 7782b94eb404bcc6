"""The controller against a real API server: its process, the objects as an admin writes them, the facts as others read them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared import subjects
from shared.bus import Bus, BusError
from shared.contracts.codec import encode
from shared.contracts.facts import FACT, FACT_ANSWER, AskFact, Fact, FactAnswer, ObjectFact
from shared.contracts.ipam import (
    ALLOCATE_REPLY,
    Allocate,
    Allocated,
    Grant,
    InterfaceRequest,
    Refused,
    Release,
)
from shared.contracts.mark import CONFIG_MAP
from shared.settings import AllocatorSettings, ControllerSettings
from tests.support.kube import ApiServer, api_server, fresh_api_server
from tests.support.nats import NatsServer, fresh_nats_server
from tests.support.service import Service

__all__ = ["api_server", "fresh_api_server", "fresh_nats_server"]

CRDS = Path(__file__).parents[3] / "deploy" / "crds"
OURS = "/apis/spiderpool.spidernet.io/v2beta1"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/orbweaver-controller"
MARK = f"/api/v1/namespaces/kube-system/configmaps/{CONFIG_MAP}"
WAIT_S = 40.0


def install_crds(server: ApiServer) -> None:
    server.kubectl("apply", "--server-side", "-k", str(CRDS))
    server.kubectl("apply", "--server-side", "-k", str(CRDS / "multus"))
    server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


@pytest.fixture
def crds(api_server: ApiServer) -> Iterator[ApiServer]:
    """The session's API server with our CRDs, and without objects of ours after the test."""
    install_crds(api_server)
    yield api_server
    for plural in (
        "spiderippools",
        "spidersubnets",
        "spiderreservedips",
        "spidermultusconfigs",
        "spidercoordinators",
        "spiderendpoints",
    ):
        for one in api_server.client.items(f"{OURS}/{plural}"):
            meta = one["metadata"]
            place = f"{OURS}/namespaces/{meta['namespace']}" if "namespace" in meta else OURS
            path = f"{place}/{plural}/{meta['name']}"
            if meta.get("finalizers"):
                api_server.client.patch(path, {"metadata": {"finalizers": None}})
            api_server.client.delete(path)
    for one in api_server.client.items("/api/v1/pods"):
        meta = one["metadata"]
        api_server.client.delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", grace_s=0)


Starting = Callable[..., Service]


@pytest.fixture
def starting(
    crds: ApiServer, fresh_nats_server: NatsServer, tmp_path: Path
) -> Iterator[Callable[..., Service]]:
    """Starts a controller with settings of the test's; every one is killed at the end."""
    started: list[Service] = []
    # a test's controllers are killed, and its log is no more: theirs would have to expire, and would be missed
    crds.client.delete(LEASE)
    crds.client.delete(MARK)

    def start(replica: str = "c1", **more: Any) -> Service:
        directory = tmp_path / replica
        directory.mkdir(exist_ok=True)
        settings = ControllerSettings(
            replica=replica,
            bus=fresh_nats_server.settings("controller"),
            source="kubernetes",
            **{"kubeconfig": str(crds.kubeconfig), "adopt": False, **more},
        )
        service = Service("services.controller", settings, directory)
        service.start()
        started.append(service)
        return service

    yield start
    for service in started:
        service.kill()


class Reader:
    """Reads FACTS as others do."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def facts(self) -> list[Fact]:
        return [FACT.decode(message.data) async for message in self.bus.read("FACTS")]

    async def last(self, kind: str, name: str, namespace: str = "") -> Fact | None:
        message = await self.bus.get_last("FACTS", subjects.facts(kind, namespace, name))
        return FACT.decode(message.data) if message is not None else None

    async def object(self, kind: str, name: str, namespace: str = "") -> Any:
        found = await self.last(kind, name, namespace)
        return msgspec.json.decode(found.object) if isinstance(found, ObjectFact) else None

    async def ask(self, kind: str, name: str, namespace: str = "") -> ObjectFact | None:
        question = encode(AskFact(kind=kind, namespace=namespace, name=name))
        answer = FACT_ANSWER.decode((await self.bus.request(subjects.ASK_FACTS, question, 10.0)).data)
        assert isinstance(answer, FactAnswer)
        return answer.fact

    async def until(self, found: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What `found` answers when it is neither None nor False. Raises AssertionError when it does not come."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            with contextlib.suppress(BusError):
                value = await found()
                if value is not None and value is not False:
                    return value
            assert time.monotonic() < deadline_s, "it does not come"
            await asyncio.sleep(0.05)

    async def synced(self) -> None:
        await self.until(lambda: self.bus.get_last("FACTS", subjects.FACTS_SYNCED))


@contextlib.asynccontextmanager
async def reading(server: NatsServer) -> AsyncIterator[Reader]:
    bus = await Bus.connect(server.settings(), "test")
    try:
        yield Reader(bus)
    finally:
        await bus.close()


def wait_for(found: Callable[[], Any]) -> Any:
    """What `found` answers when it is true. Raises AssertionError when it does not come."""
    deadline_s = time.monotonic() + WAIT_S
    while not (value := found()):
        assert time.monotonic() < deadline_s, "it does not come"
        time.sleep(0.05)
    return value


def pool(
    name: str, subnet: str = "10.6.0.0/16", ips: tuple[str, ...] = ("10.6.0.10-10.6.0.19",), **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderIPPool",
        "metadata": {"name": name},
        "spec": {"subnet": subnet, "ips": list(ips), "ipVersion": 6 if ":" in subnet else 4, **spec},
    }


def pod(name: str, node: str = "n1", **meta: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **meta},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }


def allocating(nats: NatsServer, place: Path, replica: str) -> Service:
    """One that was started, on a machine of its own: its mark is in no other's folder."""
    directory = place / replica
    directory.mkdir()
    settings = AllocatorSettings(
        replica=replica,
        bus=nats.settings("allocator"),
        system=nats.settings("sys"),
        mark_file=str(directory / "mark.json"),
    )
    service = Service("services.allocator", settings, directory)
    service.start()
    return service


@pytest.fixture
def allocator(fresh_nats_server: NatsServer, tmp_path: Path) -> Iterator[Service]:
    """The real one; it answers as soon as it has read the facts and leads."""
    service = allocating(fresh_nats_server, tmp_path, "a1")
    yield service
    service.kill()


async def attach(reader: Reader, pod: dict[str, Any], of_pool: str, interface: str = "eth0") -> Grant:
    """One address for a pod of the API server, asked for as its node's agent does."""
    meta, node = pod["metadata"], pod["spec"]["nodeName"]
    request = Allocate(
        attempt=f"attempt-{meta['uid']}-{interface}",
        node=node,
        container_id=f"sandbox-{meta['uid']}",
        ifname=interface,
        interfaces=(InterfaceRequest(ifname=interface, ipv4=(of_pool,)),),
        ttl_ms=5000,
        pod_namespace=meta["namespace"],
        pod_name=meta["name"],
        pod_uid=meta["uid"],
    )

    async def allocate() -> Grant | None:
        answer = await reader.bus.request(subjects.allocate(node), encode(request), 5.0)
        reply = ALLOCATE_REPLY.decode(answer.data)
        if isinstance(reply, Refused) and reply.error in ("try_later", "pool_unknown", "no_pool"):
            return None
        assert isinstance(reply, Allocated), reply
        return reply.grants[0]

    return await reader.until(allocate)


async def detach(reader: Reader, pod: dict[str, Any], grant: Grant) -> None:
    """The DEL of that attachment, as its node's agent tells it."""
    meta, node = pod["metadata"], pod["spec"]["nodeName"]
    release = Release(
        node=node,
        container_id=f"sandbox-{meta['uid']}",
        ifname=grant.ifname,
        attempt=f"attempt-{meta['uid']}-{grant.ifname}",
        generation=grant.generation,
        pod_uid=meta["uid"],
    )
    await reader.bus.append(subjects.release(node), encode(release))
