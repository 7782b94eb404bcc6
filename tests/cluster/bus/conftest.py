"""Hub servers and leaves as processes, with the roles of deploy/ at a real API server; each server has a loopback address of its own."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.bus.server import binary
from services.bus.settings import CLIENT_PORT, IDENTITY_PORT, LEAFNODES_PORT
from shared.settings import BusSettings
from shared.subjects import inbox, node_inbox
from tests.support.kube import ApiServer, namespace

BASE = Path(__file__).parents[3] / "deploy" / "base" / "bus"
REPOSITORY = Path(__file__).parents[3]
NODES = ("n1", "n2.rack-4")
LIMIT_S = 40.0
AGENT = "orbweaver-agent"


def await_true(what: str, found: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:.0f} s"
        time.sleep(0.05)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Site:
    """One installation in a namespace of its own: hub servers, leaves, the agents' pods and tokens."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.namespace = namespace(server, "bus")
        third = random.randint(1, 250)
        self.addresses = [f"127.77.{third}.{random.randint(1, 80) + 80 * number}" for number in range(3)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        self._monitors: dict[str, int] = {}
        self.ports: dict[str, tuple[int, int]] = {}
        self._apply()
        for node in NODES:
            self.make_pod(node)

    def _apply(self) -> None:
        """deploy/base/bus as it stands, in our namespace."""
        text = (BASE / "rbac.yaml").read_text() + "---\n" + (BASE / "objects.yaml").read_text()
        objects = list(yaml.safe_load_all(text.replace("orbweaver-system", self.namespace)))
        for one in objects:
            if one["kind"].startswith("ClusterRole"):
                one["metadata"]["name"] = self.namespace
            if one["kind"] == "ClusterRoleBinding":
                one["roleRef"]["name"] = self.namespace
        self.server.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
        accounts = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
        self.server.client.create(accounts, {"metadata": {"name": AGENT}})

    def make_pod(self, node: str, name: str = "", account: str = AGENT) -> dict[str, Any]:
        """An agent's pod on a node, as its DaemonSet would make it."""
        pod = {
            "metadata": {"name": name or f"agent-{node}"},
            "spec": {
                "nodeName": node,
                "serviceAccountName": account,
                "automountServiceAccountToken": False,
                "containers": [{"name": "agent", "image": "orbweaver"}],
            },
        }
        return self.server.client.create(f"/api/v1/namespaces/{self.namespace}/pods", pod)

    def delete_pod(self, name: str) -> None:
        self.server.client.delete(f"/api/v1/namespaces/{self.namespace}/pods/{name}", grace_s=0)

    def token(self, pod: str, account: str = AGENT, audience: str = "orbweaver-hub") -> str:
        """What the kubelet projects into that pod."""
        found = self.server.client.get(f"/api/v1/namespaces/{self.namespace}/pods/{pod}")
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": found["metadata"]["uid"]}
        return self.server.service_account_token(
            self.namespace, account, audiences=[audience], boundObjectRef=bound, expirationSeconds=600
        )

    # --- the hub

    def start_hub(self, number: int = 0, *, servers: int = 1, epoch_s: float = 3600.0) -> None:
        name = f"orbweaver-nats-{number}"
        account = self.folder / "account"
        account.mkdir(exist_ok=True)
        (account / "token").write_text(self.server.service_account_token(self.namespace, "orbweaver-nats"))
        (account / "ca.crt").write_bytes(Path(self.server.ca_file).read_bytes())
        port = self._monitors.setdefault(name, free_port())
        settings = {
            "name": name,
            "address": self.addresses[number],
            "namespace": self.namespace,
            "servers": servers,
            "folder": str(self.folder / name / "run"),
            "store": str(self.folder / name / "store"),
            "peers": str(self.peers()),
            "epoch_s": epoch_s,
            "monitor_port": port,
            "kubernetes_url": self.server.url,
            "kubernetes_account": str(account),
        }
        self._run("hub", name, settings)
        if servers == 1:
            await_true(name, lambda: self.listens(number))

    def listens(self, number: int = 0) -> bool:
        for port in (CLIENT_PORT, LEAFNODES_PORT, IDENTITY_PORT):
            try:
                socket.create_connection((self.addresses[number], port), 1).close()
            except OSError:
                return False
        return True

    def peers(self) -> Path:
        """ConfigMap orbweaver-bus as a kubelet mounts it, as of now."""
        folder = self.folder / "peers"
        folder.mkdir(exist_ok=True)
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/orbweaver-bus"
        for key, value in (self.server.client.get(path).get("data") or {}).items():
            (folder / key).write_text(value)
        return folder

    def _peer(self, folder: Path, number: int) -> Path:
        folder.mkdir()
        for name in ("ca.crt", f"hub.orbweaver-nats-{number}"):
            (folder / name).write_text((self.peers() / name).read_text())
        return folder

    def secret(self, name: str) -> dict[str, str]:
        found = self.server.client.get(f"/api/v1/namespaces/{self.namespace}/secrets/{name}")
        return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}

    def of_hub(self, identity: str, number: int = 0) -> BusSettings:
        system = identity == "sys"
        told = self.secret("orbweaver-bus-allocator" if system else f"orbweaver-bus-{identity}")
        return BusSettings(
            servers=(f"tls://{self.addresses[number]}:{CLIENT_PORT}",),
            user=identity,
            password=told["system-password" if system else "password"],
            inbox_prefix=inbox(identity),
            tls_ca_file=str(self.peers() / "ca.crt"),
        )

    def ask(self, token: str, number: int = 0) -> tuple[int, str]:
        """What the hub answers to who shows this token."""
        context = ssl.create_default_context(cafile=str(self.peers() / "ca.crt"))
        connection = http.client.HTTPSConnection(
            self.addresses[number], IDENTITY_PORT, timeout=20, context=context
        )
        try:
            connection.request("POST", "/identity", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    # --- a node

    def start_leaf(self, node: str, only: int | None = None) -> None:
        """`only`: it knows that server of the hub and no other."""
        folder = self.folder / f"leaf-{node}"
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(self.token(f"agent-{node}"))
        ports = self.ports.setdefault(node, (free_port(), free_port()))
        settings = {
            "node": node,
            "peers": str(self.peers() if only is None else self._peer(folder / "peers", only)),
            "folder": str(folder / "run"),
            "passwords": str(folder / "passwords"),
            "token_file": str(folder / "token"),
            "port": ports[0],
            "monitor_port": ports[1],
        }
        self._run("leaf", f"leaf-{node}", settings)
        await_true("the leaf's client port", lambda: _listens(ports[0]))

    def of_node(self, identity: str, node: str) -> BusSettings:
        password = (self.folder / f"leaf-{node}" / "passwords" / f"{identity}.password").read_text()
        return BusSettings(
            servers=(f"nats://127.0.0.1:{self.ports[node][0]}",),
            user=identity,
            password=password,
            inbox_prefix=inbox("shim") if identity == "shim" else node_inbox(node, identity),
        )

    def start_rogue(self, seed: str, account: str = "ORB") -> BusSettings:
        """A leaf whose owner wrote its configuration: it denies nothing, and links with this key."""
        port = free_port()
        remote = {
            "urls": [f"tls://{self.addresses[0]}:{LEAFNODES_PORT}"],
            "account": account,
            "nkey": seed,
            "tls": {"ca_file": str(self.peers() / "ca.crt")},
        }
        config = {
            "server_name": f"rogue-{port}",
            "listen": f"127.0.0.1:{port}",
            "leafnodes": {"reconnect": "200ms", "remotes": [remote]},
            "accounts": {"ORB": {"users": [{"user": "root", "password": "root"}]}},
        }
        path = self.folder / f"rogue-{port}.conf"
        path.write_text(json.dumps(config))
        self._spawn(f"rogue-{port}", [binary(), "--config", str(path)])
        await_true("the rogue's client port", lambda: _listens(port))
        return BusSettings(
            servers=(f"nats://127.0.0.1:{port}",), user="root", password="root", inbox_prefix=node_inbox("n1")
        )

    # --- processes

    def _run(self, part: str, name: str, settings: dict[str, Any]) -> None:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(settings))
        self._spawn(name, [sys.executable, "-P", "-m", "services.bus", part, "--config", str(path)])

    def start_again(self, name: str) -> None:
        """As a kubelet starts a container again: the pod's folders are as they were."""
        self._spawn(name, self._commands[name])

    def _spawn(self, name: str, command: list[str]) -> None:
        self._commands[name] = command
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def stop(self, name: str) -> int:
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise

    def stop_all(self) -> None:
        names = sorted(self._processes, key=lambda name: name.startswith("orbweaver-nats"))
        for name in names:
            self._processes[name].send_signal(signal.SIGTERM)
        for name in names:
            try:
                self._processes[name].wait(60)
            except subprocess.TimeoutExpired:
                self._processes[name].kill()
                self._processes[name].wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def site(api_server: ApiServer, tmp_path: Path) -> Iterator[Site]:
    for node in NODES:
        if not api_server.client.exists(f"/api/v1/nodes/{node}"):
            api_server.client.create("/api/v1/nodes", {"metadata": {"name": node}})
    made = Site(api_server, tmp_path)
    try:
        yield made
    finally:
        made.stop_all()
