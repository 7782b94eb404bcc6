"""A real nats-server with JetStream for tests: `sync_interval: always`, ports of its own, everything in a temporary directory.

    from tests.support.nats import nats_server            # one for the session
    from tests.support.nats import fresh_nats_server      # one for each test, about 50 ms

The account ORB has the user `admin`, who may do all, and a user for every identity of shared.subjects.HUB_IDENTITIES with exactly
the permissions of that table; SYS has `sys`. Every password is `pw`. Stop and start again with `server.stop()`, `server.start()`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.settings import BusSettings
from shared.subjects import HUB_IDENTITIES, Permissions, inbox, node_identities, node_inbox

BINARY = Path(sys.executable).parent / "nats-server"
PASSWORD = "pw"
START_S = 10.0


def _user(name: str, permissions: Permissions) -> str:
    responds = (
        f', allow_responses: {{ max: 1, expires: "{permissions.responds_s:.0f}s" }}'
        if permissions.responds_s
        else ""
    )
    return (
        f'      {{ user: {json.dumps(name)}, password: "{PASSWORD}", permissions: {{\n'
        f"          publish: {{ allow: {json.dumps(permissions.publish)} }}\n"
        f"          subscribe: {{ allow: {json.dumps(permissions.subscribe)} }}{responds} }} }}\n"
    )


def configuration(
    directory: Path,
    nodes: tuple[str, ...],
    port: int,
    name: str = "test",
    cluster: str = "",
    sync_interval: str = "always",
) -> str:
    """The server's configuration; users of a node are called `<identity>-<node>` and connect here, not through a leaf. `cluster` is
    its block of that name."""
    users = "".join(_user(name, permissions) for name, permissions in HUB_IDENTITIES.items())
    for node in nodes:
        users += "".join(_user(f"{name}-{node}", allowed) for name, allowed in node_identities(node).items())
    return f"""
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:-1"
ports_file_dir: {json.dumps(str(directory))}
jetstream {{ store_dir: {json.dumps(str(directory / "js"))}, sync_interval: {sync_interval}, max_mem: 256MB, max_file: 1GB }}
accounts {{
  ORB {{
    jetstream: enabled
    users: [
      {{ user: admin, password: "{PASSWORD}" }}
{users}    ]
  }}
  SYS {{ users: [ {{ user: sys, password: "{PASSWORD}" }} ] }}
}}
system_account: SYS
{cluster}
"""


class NatsServer:
    """One server process below `directory`; it keeps its port and its data over stop and start. Another `sync_interval` than the one
    that allocators demand serves to fill a store."""

    stream_replicas = 1
    sync_interval = "always"

    def __init__(
        self, directory: Path, nodes: tuple[str, ...] = ("n1", "n2"), name: str = "test", cluster: str = ""
    ) -> None:
        self.directory = directory
        self.nodes = nodes
        self.name = name
        self._cluster = cluster
        self.port = -1
        self.monitor_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when the server listens. Raises RuntimeError with its log when it does not."""
        config = self.directory / "server.conf"
        config.write_text(
            configuration(self.directory, self.nodes, self.port, self.name, self._cluster, self.sync_interval)
        )
        log = self.directory / "server.log"
        self._process = subprocess.Popen([str(BINARY), "-c", str(config), "-l", str(log)])
        ports_file = self.directory / f"nats-server_{self._process.pid}.ports"
        deadline = time.monotonic() + START_S
        while not ports_file.exists() or not ports_file.stat().st_size:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"nats-server did not start: {log.read_text() if log.exists() else ''}")
            time.sleep(0.005)
        ports = json.loads(ports_file.read_text())
        self.port = int(ports["nats"][0].rpartition(":")[2])
        self.monitor_port = int(ports["monitoring"][0].rpartition(":")[2])

    def stop(self, kill: bool = False) -> None:
        """Ends the process; `kill` is SIGKILL, as a power cut would be."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL if kill else signal.SIGTERM)
        self._process.wait(timeout=10)
        self._process = None

    def settings(self, identity: str = "admin", node: str = "") -> BusSettings:
        """How `identity` (of the hub, or of `node`) connects."""
        return BusSettings(
            servers=(self.url,),
            user=f"{identity}-{node}" if node else identity,
            password=PASSWORD,
            inbox_prefix=node_inbox(node, identity) if node else inbox(identity),
        )


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fresh_nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()
