"""A cluster with our admission: API server, CRDs, the real controller as the source of facts, and webhook replicas called by URL."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.generate import HERE
from services.webhook.access import default_access
from services.webhook.configuration import NAMESPACE, SERVICE, Reach, Wish, mutating, validating
from shared.settings import (
    AllocatorSettings,
    ClusterAdmissionSettings,
    ControllerSettings,
    TelemetrySettings,
    WebhookSettings,
)
from tests.support.kube import ApiServer
from tests.support.nats import NatsServer
from tests.support.service import Service

Json = dict[str, Any]
WAIT_S = 40.0
OURS = "/apis/spiderpool.spidernet.io/v2beta1"
REGISTRATION = "/apis/admissionregistration.k8s.io/v1"


class Cluster:
    """`server` is the API; `replica(i)` one webhook. The configurations call the first by its URL."""

    def __init__(self, server: ApiServer, nats: NatsServer, directory: Path) -> None:
        self.server = server
        self.client = server.client
        self.nats = nats
        self.directory = directory
        self.replicas: list[Service] = []
        self.ports: list[int] = []
        self._others: list[Service] = []
        self._kubeconfig = directory / "webhook.kubeconfig"

    def install(self, foreign: Path | None = None) -> None:
        """`foreign` is where somebody else puts the webhook's certificate."""
        for place in (HERE / "crds", HERE / "crds" / "multus"):
            self.server.kubectl("apply", "--server-side", "-k", str(place))
        self.server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        if not self.client.exists(f"/api/v1/namespaces/{NAMESPACE}"):
            self.client.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        self.apply(*default_access())
        token = self.server.service_account_token(NAMESPACE, SERVICE)
        self.server.write_kubeconfig(self._kubeconfig, token=token)
        self._start_sources()
        self.add_replica(foreign)
        self.register(self.ports[0])

    def _start_sources(self) -> None:
        """Who tells the facts, and the allocator, which must have taken up what was allocated before any are told."""
        directory = self.directory / "sources"
        directory.mkdir()
        allocator = AllocatorSettings(
            replica="a1",
            bus=self.nats.settings("allocator"),
            system=self.nats.settings("sys"),
            mark_file=str(directory / "mark"),
        )
        controller = ControllerSettings(
            replica="c1",
            bus=self.nats.settings("controller"),
            source="kubernetes",
            kubeconfig=str(self.server.kubeconfig),
        )
        for module, settings in (("services.allocator", allocator), ("services.controller", controller)):
            service = Service(module, settings, directory)
            service.start()
            self._others.append(service)

    def add_replica(self, foreign: Path | None = None) -> Service:
        port, index = free_port(), len(self.replicas)
        directory = self.directory / f"webhook-{index}"
        directory.mkdir()
        settings = WebhookSettings(
            replica=f"webhook-{index}",
            bus=self.nats.settings("webhook"),
            telemetry=TelemetrySettings(http_address=f"127.0.0.1:{free_port()}"),
            https_address=f"127.0.0.1:{port}",
            certificates=str(foreign or directory / "certificates"),
            cluster=ClusterAdmissionSettings(
                kubeconfig=str(self._kubeconfig),
                namespace=NAMESPACE,
                **({"secret": ""} if foreign is not None else {}),
            ),
        )
        service = Service("services.webhook", settings, directory)
        service.start()
        self.replicas.append(service)
        self.ports.append(port)
        return service

    def register(self, port: int) -> None:
        """As `kubectl apply` of deploy/base does, but for the way to us."""
        reach = Reach(url=f"https://127.0.0.1:{port}")
        self.apply(validating(reach, Wish()), mutating(reach, Wish()))

    def apply(self, *objects: Json) -> str:
        return self.server.kubectl("apply", "-f", "-", stdin=json.dumps(_list(objects)))

    def told(self, *objects: Json, dry_run: bool = False) -> str:
        """What kubectl says when it applies, warnings and refusals included."""
        more = ["--dry-run=server"] if dry_run else []
        return self.server.kubectl("apply", *more, "-f", "-", stdin=json.dumps(_list(objects)), check=False)

    def configuration(self, kind: str) -> Json:
        return self.client.get(f"{REGISTRATION}/{kind}webhookconfigurations/orbweaver")

    def settings(self, text: str) -> None:
        """conf.yml of the ConfigMap `spiderpool-conf`."""
        path = "/api/v1/namespaces/kube-system/configmaps"
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "spiderpool-conf", "namespace": "kube-system"},
            "data": {"conf.yml": text},
        }
        self.client.apply(f"{path}/spiderpool-conf", body)

    def stop(self) -> None:
        for service in (*self.replicas, *self._others):
            service.kill()


def _list(objects: tuple[Json, ...]) -> Json:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def eventually(look: Callable[[], Any], what: str, within_s: float = WAIT_S) -> Any:
    """What `look` answers as soon as it is true."""
    deadline = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            last = look()
            if last:
                return last
        time.sleep(0.1)
    raise AssertionError(f"{what}: {last!r}")


@contextlib.contextmanager
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server and the bus; nothing of ours is there yet."""
    server = ApiServer(tmp_path_factory.mktemp("kube"))
    nats = NatsServer(tmp_path_factory.mktemp("nats"))
    found = Cluster(server, nats, tmp_path_factory.mktemp("webhook"))
    server.start()
    try:
        nats.start()
        yield found
    finally:
        found.stop()
        nats.stop()
        server.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for a module: no other test's API server has our configurations."""
    with standing(tmp_path_factory) as found:
        found.install()
        eventually(lambda: _is_served(found), "a pool is judged")
        yield found


def _is_served(found: Cluster) -> bool:
    said = found.told(pool("probe", "10.255.0.0/24"), dry_run=True)
    return "created (server dry run)" in said


def pool(name: str, subnet: str, **spec: Any) -> Json:
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderIPPool",
        "metadata": {"name": name},
        "spec": {"subnet": subnet, **spec},
    }


def pod(name: str, namespace: str = "default", **annotations: str) -> Json:
    marks = {key.replace("__", "/").replace("_", "-"): text for key, text in annotations.items()}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "annotations": marks},
        "spec": {"containers": [{"name": "c", "image": "pause"}]},
    }
