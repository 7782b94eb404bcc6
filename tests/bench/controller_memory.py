"""`python -m tests.bench.controller_memory [PODS]`: what a controller holds of a large cluster, in MiB.

The API server is a crowd (tests/support/kube_crowd.py) in this process; the controller is the real process on a real JetStream.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from shared import subjects
from shared.bus import Bus, BusError
from shared.contracts.codec import encode
from shared.contracts.query import SERVICE_VIEW, QueryService
from shared.settings import ControllerSettings
from tests.support.kube_crowd import Crowd
from tests.support.nats import NatsServer
from tests.support.service import Service

PODS = 150_000
WAIT_S = 900.0


def kubeconfig(directory: Path, url: str) -> Path:
    path = directory / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "crowd", "cluster": {"server": url}}],
        "users": [{"name": "user", "user": {"token": "t"}}],
        "contexts": [{"name": "crowd", "context": {"cluster": "crowd", "user": "user"}}],
        "current-context": "crowd",
    }
    path.write_text(json.dumps(document))
    return path


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident now, and at most so far."""
    members = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return tuple(int(members[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))  # pyright: ignore


async def synced(bus: Bus, service: Service) -> float:
    """Seconds until the controller that was just started has told everything."""
    began_s = time.monotonic()
    while True:
        await asyncio.sleep(0.5)
        assert time.monotonic() - began_s < WAIT_S, service.log.read_text()
        try:
            subject = f"{subjects.ask_service('controller')}.c1"
            answer = await bus.request(subject, encode(QueryService()), 5.0)
        except BusError:
            continue
        if SERVICE_VIEW.decode(answer.data).facts.get("synced") == "true":
            took_s = time.monotonic() - began_s
            await asyncio.sleep(2)
            return took_s


async def measure(pods: int) -> dict[str, float]:
    """Seconds from the start until all is told, and MiB of the controller, now and at most."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        nats, crowd = NatsServer(directory), Crowd(pods)
        nats.start()
        await crowd.start()
        settings = ControllerSettings(
            replica="c1",
            bus=nats.settings("controller"),
            source="kubernetes",
            kubeconfig=str(kubeconfig(directory, crowd.url)),
            adopt=False,
        )
        service = Service("services.controller", settings, directory)
        bus = await Bus.connect(nats.settings(), "bench")
        try:
            service.start()
            took_s = await synced(bus, service)
            now, most = memory_mib(service.pid)
            service.stop()
            service.start()
            again_s = await synced(bus, service)
            _, again = memory_mib(service.pid)
        finally:
            service.kill()
            await bus.close()
            await crowd.stop()
            nats.stop()
    return {
        "pods": pods,
        "controller_150k_pods_mib": round(now),
        "most_mib": round(most),
        "synced_s": round(took_s, 1),
        "restart_most_mib": round(again),
        "restart_synced_s": round(again_s, 1),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else PODS))))
