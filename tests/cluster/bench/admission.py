"""How long the webhook takes for a review when it gets 200 a second: pods with our annotations, judged on pools and networks in memory."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from services.webhook.review import PATHS
from tests.cluster.bench.stage import Services
from tests.support.kube import ApiServer
from tests.support.kube_workload import IPPOOL, pod, pool

RATE_PER_S = 200
DURATION_S = 15.0
POOLS = 50
_CONNECTIONS = 8
_WARM_UP_S = 2.0
_PATHS = tuple(path for path, (_, kind) in PATHS.items() if kind == "Pod")


def p99_ms(directory: Path, say: Callable[[str], None], duration_s: float = DURATION_S) -> float:
    """Requests leave when they are due, whatever became of those before; a late answer counts from when its request was due."""
    server = ApiServer(directory / "server")
    with Services(directory, server) as services:
        for number in range(POOLS):
            one = pool(
                f"p{number}",
                f"10.{number}.0.0/16",
                f"10.{number}.0.2-10.{number}.250.250",
                default=number == 0,
            )
            server.client.create("/apis/spiderpool.spidernet.io/v2beta1/spiderippools", one)
        services.start()
        took_ms = asyncio.run(_load(services, duration_s))
    took_ms.sort()
    p50, p99 = (took_ms[int(len(took_ms) * share)] for share in (0.5, 0.99))
    say(
        f"{len(took_ms)} reviews at {RATE_PER_S}/s: p50 {p50:.2f} ms, p99 {p99:.2f} ms, longest {took_ms[-1]:.2f} ms"
    )
    return p99


async def _load(services: Services, duration_s: float) -> list[float]:
    took_ms: list[float] = []
    host, _, port = services.https.rpartition(":")
    tls = ssl.create_default_context(cafile=str(services.ca_file))
    idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(_CONNECTIONS):
        idle.put_nowait(await asyncio.open_connection(host, int(port), ssl=tls))
    began = time.monotonic()
    asking: set[asyncio.Task[None]] = set()

    async def ask(number: int, due: float) -> None:
        reader, writer = await idle.get()
        writer.write(_request(number))
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        answer = json.loads(await reader.readexactly(length))
        assert answer["response"]["allowed"], answer
        if due - began > _WARM_UP_S:
            took_ms.append((time.monotonic() - due) * 1000)
        idle.put_nowait((reader, writer))

    for number in range(int(RATE_PER_S * (duration_s + _WARM_UP_S))):
        due = began + number / RATE_PER_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.create_task(ask(number, due))
        asking.add(task)
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)
    while not idle.empty():
        idle.get_nowait()[1].close()
    return took_ms


def _request(number: int) -> bytes:
    body = json.dumps(
        {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": f"review-{number}",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "operation": "CREATE",
                "namespace": "default",
                "name": f"pod-{number}",
                "object": pod(f"pod-{number}", {IPPOOL: {"ipv4": [f"p{number % POOLS}"]}}),
            },
        }
    ).encode()
    path = _PATHS[number % len(_PATHS)]
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
