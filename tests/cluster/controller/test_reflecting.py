"""A reflector on a real API server whose history is gone: it lists anew, takes away what went meanwhile, and its metrics say so."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from services.controller.kube import KubeClient, KubeRefused
from services.controller.reflecting import GONE
from shared.settings import TelemetrySettings
from tests.cluster.controller.conftest import OURS, Starting, pool, reading, wait_for
from tests.support.kube import ApiServer
from tests.support.nats import NatsServer

_STORED = "/registry/spiderpool.spidernet.io/spiderippools/"


def etcd(server: ApiServer, call: str, **body: Any) -> dict[str, Any]:
    request = Request(f"{server.etcd_url}/v3/kv/{call}", json.dumps(body).encode())
    with urlopen(request, timeout=30) as response:
        return json.load(response)


def compact(server: ApiServer, revision: str) -> None:
    etcd(server, "compaction", revision=revision, physical=True)


def metric(address: str, name: str, **labels: str) -> float:
    """0 where it is not told."""
    try:
        with urlopen(f"http://{address}/metrics", timeout=10) as response:
            text = response.read().decode()
    except URLError:
        return 0.0
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
        if found and all(f'{key}="{value}"' in found[1] for key, value in labels.items()):
            return float(found[2])
    return 0.0


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


def test_what_went_while_the_history_was_lost_goes(
    crds: ApiServer, starting: Starting, fresh_nats_server: NatsServer
) -> None:
    """An object goes without an event that any watch could tell, and the version to go on from is forgotten: the server says 410."""
    for name in ("goes", "stays"):
        crds.client.create(f"{OURS}/spiderippools", pool(name))
    address = free_address()
    service = starting(telemetry=TelemetrySettings(http_address=address))
    kind = {"kind": "SpiderIPPool"}

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.until(lambda: reader.object("SpiderIPPool", "goes"))
            held = metric(address, "orbweaver_reflected_objects", **kind)
            listed = metric(address, "orbweaver_reflector_relists", **kind)
            assert held == 2 and listed >= 1
            assert metric(address, "orbweaver_kubernetes_requests", verb="WATCH") > 0
            assert metric(address, "orbweaver_reflector_failing", **kind) == 0
            crds.stop_api()
            key = base64.b64encode(f"{_STORED}goes".encode()).decode()
            answer = etcd(crds, "deleterange", key=key)
            assert answer["deleted"] == "1"
            await asyncio.to_thread(
                wait_for, lambda: metric(address, "orbweaver_reflector_failing", **kind) == 1
            )
            compact(crds, answer["header"]["revision"])
            crds.start_api()

            async def gone() -> bool:
                return await reader.object("SpiderIPPool", "goes") is None

            await reader.until(gone)
            assert await reader.object("SpiderIPPool", "stays")
            assert metric(address, "orbweaver_reflected_objects", **kind) == held - 1
            assert metric(address, "orbweaver_reflector_relists", **kind) > listed
            await asyncio.to_thread(
                wait_for, lambda: metric(address, "orbweaver_reflector_failing", **kind) == 0
            )

    asyncio.run(main())
    assert "listed anew" in service.log.read_text()


def test_a_page_whose_list_is_forgotten_is_410(crds: ApiServer) -> None:
    for number in range(3):
        crds.client.create(f"{OURS}/spiderippools", pool(f"p{number}"))

    path, query = f"{OURS}/spiderippools", {"limit": "1"}
    query["continue"] = crds.client.get(path, limit="1")["metadata"]["continue"]
    made = crds.client.create(path, pool("later"))
    compact(crds, made["metadata"]["resourceVersion"])
    # A server that has the list in its memory goes on with it.
    crds.stop_api()
    crds.start_api()

    async def main() -> int:
        client = await KubeClient.open(str(crds.kubeconfig))
        try:
            await client.get(path, query)
        except KubeRefused as error:
            return error.status
        finally:
            await client.close()
        return 200

    assert asyncio.run(main()) == GONE
