"""A webhook process with a real nats-server, facts in stream FACTS, and an allocator's answers on the bus."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared import subjects
from shared.bus import Bus, Message
from shared.contracts.codec import encode
from shared.contracts.facts import FactsSynced, ObjectFact
from shared.contracts.query import IPAM_QUERY, LeasesPage, LeaseView, QueryLeases
from shared.settings import TelemetrySettings, WebhookSettings
from tests.support.nats import NatsServer

START_S = 20.0
Json = dict[str, Any]


class Webhook:
    """A running process and a client of it."""

    def __init__(self, settings: WebhookSettings, directory: Path) -> None:
        self.settings = settings
        self.config = directory / "webhook.json"
        self.config.write_bytes(msgspec.json.encode(settings))
        self.log = directory / "webhook.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def certificates(self) -> Path:
        return Path(self.settings.certificates)

    @property
    def port(self) -> int:
        return int(self.settings.https_address.rpartition(":")[2])

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.webhook", "--config", str(self.config)], stderr=log
            )

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(10)
        self._process = None
        return code

    def code(self) -> int | None:
        """The exit code of a process that ended by itself."""
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def context(self) -> ssl.SSLContext:
        """What the API server has: our CA and nothing else."""
        return ssl.create_default_context(cafile=str(self.certificates / "ca.crt"))

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, context=self.context(), timeout=10)

    def wait(self, ready: bool = True) -> None:
        """Until HTTPS is served, and unless told otherwise until the facts are read."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self._process is not None and self._process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError, http.client.HTTPException):
                if not ready:
                    return self._health()
                if self.review("validate", pool("probe"), "DELETE")["allowed"]:
                    return None
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def _health(self) -> None:
        connection = self.connection()
        connection.request("GET", "/webhook-health-check")
        assert connection.getresponse().status == 200
        connection.close()

    def review(
        self,
        verb: str,
        raw: dict[str, Any] | None,
        operation: str = "CREATE",
        old: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The response of one AdmissionReview."""
        subject = raw or old or {}
        body = review(raw, operation, old)
        connection = self.connection()
        path = f"/{verb}-spiderpool-spidernet-io-v2beta1-{subject['kind'].lower()}"
        if subject["apiVersion"] == "v1":
            path = f"/{verb}--v1-{subject['kind'].lower()}"
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status == 200, (answer.status, text)
        found = json.loads(text)
        assert found["apiVersion"] == "admission.k8s.io/v1" and found["kind"] == "AdmissionReview"
        assert found["response"]["uid"] == body["request"]["uid"]
        return found["response"]


def review(raw: dict[str, Any] | None, operation: str, old: dict[str, Any] | None = None) -> dict[str, Any]:
    """An AdmissionReview as the API server sends it."""
    if operation == "DELETE":
        raw, old = None, raw if old is None else old
    subject = raw or old or {}
    group, _, version = subject["apiVersion"].rpartition("/")
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": group, "version": version, "kind": subject["kind"]},
            "resource": {"group": group, "version": version, "resource": f"{subject['kind'].lower()}s"},
            "name": subject["metadata"]["name"],
            "namespace": subject["metadata"].get("namespace", ""),
            "operation": operation,
            "userInfo": {"username": "admin"},
            "object": raw,
            "oldObject": old,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    }


def pool(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderIPPool",
        "metadata": {"name": name},
        "spec": {"ipVersion": 4, "subnet": "10.6.0.0/16", "ips": ["10.6.0.10-10.6.0.20"], **spec},
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture
def webhook(tmp_path: Path, fresh_nats_server: NatsServer) -> Iterator[Webhook]:
    """Configured, not started."""
    settings = WebhookSettings(
        replica="webhook-0",
        bus=fresh_nats_server.settings("webhook"),
        telemetry=TelemetrySettings(http_address=f"127.0.0.1:{free_port()}"),
        https_address=f"127.0.0.1:{free_port()}",
        certificates=str(tmp_path / "certificates"),
    )
    found = Webhook(settings, tmp_path)
    yield found
    found.kill()


class Controller:
    """What the controller and the allocator would say on the bus."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.version = 0
        self.leases: tuple[LeaseView, ...] = ()
        self.asked: list[str] = []

    async def tell(self, raw: dict[str, Any]) -> int:
        self.version += 1
        meta = raw["metadata"]
        fact = ObjectFact(
            kind=raw["kind"],
            api_version=raw["apiVersion"],
            namespace=meta.get("namespace", ""),
            name=meta["name"],
            uid=meta.get("uid", ""),
            version=self.version,
            object=msgspec.json.encode(raw),
        )
        return await self.bus.append(subjects.facts(fact.kind, fact.namespace, fact.name), encode(fact))

    async def synced(self) -> int:
        self.version += 1
        fact = FactsSynced(incarnation="one", version=self.version, objects=self.version)
        return await self.bus.append(subjects.FACTS_SYNCED, encode(fact))

    async def answer(self, message: Message) -> bytes:
        question = IPAM_QUERY.decode(message.data)
        assert isinstance(question, QueryLeases)
        self.asked.append(question.pool)
        return encode(LeasesPage(leases=tuple(one for one in self.leases if one.pool == question.pool)))


@contextlib.asynccontextmanager
async def controller(server: NatsServer) -> AsyncIterator[Controller]:
    bus = await Bus.connect(server.settings("admin"), "test")
    try:
        await bus.ensure_stream(subjects.FACTS)
        yield Controller(bus)
    finally:
        await bus.close()


async def in_thread(function: Any, *arguments: Any, **named: Any) -> Any:
    """Runs the blocking client beside the loop that answers on the bus."""
    return await asyncio.get_running_loop().run_in_executor(None, lambda: function(*arguments, **named))
