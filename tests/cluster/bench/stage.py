"""Our services beside an API server without nodes: for what is measured about them alone.

Owns their life. Must not know what is measured.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from shared.settings import AllocatorSettings, ControllerSettings, TelemetrySettings, WebhookSettings
from tests.support.kube import ApiServer
from tests.support.kube_system import CONTROLLER, ROOT
from tests.support.nats import NatsServer
from tests.support.service import Service

READY_S = 300.0


class Services:
    """`with` starts the API server with our CRDs and a hub; `start` a controller, an allocator and a webhook, and waits until they serve."""

    def __init__(self, directory: Path, server: ApiServer) -> None:
        self.directory = directory
        self.server = server
        hub = directory / "hub"
        hub.mkdir(parents=True)
        self.nats = NatsServer(hub)
        self.https = _free_address()

    def __enter__(self) -> Self:
        # Before the settings of those that connect to it: it says then where it listens.
        self.nats.start()
        self.controller, self._controller_http = self._controller()
        self.allocator, self._allocator_http = self._allocator()
        self.webhook, self._webhook_http = self._webhook()
        self.server.start()
        self.server.kubectl("apply", "--server-side", "-k", str(ROOT / "deploy" / "crds"))
        self.server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for service in (self.webhook, self.controller, self.allocator):
            service.kill()
        self.server.stop()
        self.nats.stop(kill=True)

    def start(self) -> None:
        every = (
            (self.allocator, self._allocator_http),
            (self.controller, self._controller_http),
            (self.webhook, self._webhook_http),
        )
        for service, _ in every:
            service.start()
        for service, http in every:
            _await_ready(service, http)

    @property
    def ca_file(self) -> Path:
        return self.directory / "certificates" / "ca.crt"

    def _controller(self) -> tuple[Service, str]:
        self.server.pki.issue(CONTROLLER, CONTROLLER, groups=("system:masters",))
        kubeconfig = self.server.write_kubeconfig(
            self.directory / "controller.kubeconfig", certificate=CONTROLLER
        )
        http = _free_address()
        settings = ControllerSettings(
            replica="controller-0",
            bus=self.nats.settings("controller"),
            telemetry=TelemetrySettings(http_address=http),
            source="kubernetes",
            kubeconfig=str(kubeconfig),
        )
        return Service("services.controller", settings, self.directory), http

    def _allocator(self) -> tuple[Service, str]:
        http = _free_address()
        settings = AllocatorSettings(
            replica="allocator-0",
            bus=self.nats.settings("allocator"),
            system=self.nats.settings("sys"),
            telemetry=TelemetrySettings(http_address=http),
            mark_file=str(self.directory / "leases.json"),
        )
        return Service("services.allocator", settings, self.directory), http

    def _webhook(self) -> tuple[Service, str]:
        http = _free_address()
        settings = WebhookSettings(
            replica="webhook-0",
            bus=self.nats.settings("webhook"),
            telemetry=TelemetrySettings(http_address=http),
            https_address=self.https,
            certificates=str(self.directory / "certificates"),
        )
        return Service("services.webhook", settings, self.directory), http


def memory_mib(pid: int, key: str = "VmRSS") -> float:
    """Of one process: `VmRSS` now, `VmHWM` at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
    return kib / 1024


def _await_ready(service: Service, http: str) -> None:
    deadline = time.monotonic() + READY_S
    answer = "it does not listen"
    while time.monotonic() < deadline:
        try:
            with urlopen(f"http://{http}/readyz", timeout=5) as response:
                if response.status == 200:
                    return
        except OSError as error:
            answer = str(error)
        time.sleep(0.1)
    raise RuntimeError(f"not ready after {READY_S:.0f} s: {answer}\n{service.log.read_text()[-3000:]}")


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
