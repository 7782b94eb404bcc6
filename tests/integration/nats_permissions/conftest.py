"""A hub and the leaves of two nodes with the generated configurations, run by real nats-servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.bus.config import leaf_name, link_user
from services.standalone.app import nats_server_binary
from services.standalone.assembly import hub_bus, system_bus, tools_bus
from services.standalone.natsconf import hub_config, leaf_config
from services.standalone.ports import choose_ports
from services.standalone.system import LOOPBACK, Ports, complete_credentials
from shared.bus import Bus, BusError
from shared.settings import BusSettings
from shared.subjects import STREAMS, inbox, node_inbox

OWN, OTHER = "n1", "n2.rack-4"
NODES = (OWN, OTHER)
LIMIT_S = 10.0


class Island:
    """The servers of one system. `ports` are free ones, `directory` holds configurations and logs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports: Ports = choose_ports(None, (*NODES, "spare"))
        self.credentials = complete_credentials(None, NODES)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self.run(
            "hub",
            hub_config(
                client_port=self.ports.hub,
                leafnodes_port=self.ports.hub_leafnodes,
                store=str(self.directory / "js"),
                credentials=self.credentials,
                nodes=NODES,
            ),
            self.ports.hub,
        )
        for node in NODES:
            self.run(leaf_name(node), self.leaf(node), self.ports.nodes[node].leaf)

    def leaf(self, node: str) -> str:
        return leaf_config(
            node=node,
            client_port=self.ports.nodes[node].leaf,
            hub_leafnodes_port=self.ports.hub_leafnodes,
            credentials=self.credentials.nodes[node],
        )

    def run(self, name: str, config: str, port: int) -> None:
        """Starts a server; returns when it listens on `port`."""
        path = self.directory / f"{name}.conf"
        path.write_text(config)
        log = self.directory / f"{name}.log"
        self._processes[name] = subprocess.Popen([nats_server_binary(), "-c", str(path), "-l", str(log)])
        deadline = time.monotonic() + LIMIT_S
        while not listens(port):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)

    def stop(self, name: str) -> None:
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        process.wait(10)

    def stop_all(self) -> None:
        for name in list(self._processes):
            self.stop(name)

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def of_hub(self, identity: str) -> BusSettings:
        return (
            system_bus(self.ports, self.credentials)
            if identity == "sys"
            else hub_bus(self.ports, self.credentials, identity)
        )

    def of_tool(self, node: str) -> BusSettings:
        return tools_bus(self.ports, self.credentials, node)

    def of_node(self, identity: str, node: str) -> BusSettings:
        password: str = getattr(self.credentials.nodes[node], identity)
        return BusSettings(
            servers=(f"nats://{LOOPBACK}:{self.ports.nodes[node].leaf}",),
            user=identity,
            password=password,
            inbox_prefix=inbox("shim") if identity == "shim" else node_inbox(node, identity),
        )

    def rogue_leaf(self, user: str, password: str) -> BusSettings:
        """A leaf whose configuration its owner wrote: no denials, one local user who may do all. Linked as `user`."""
        port = self.ports.nodes["spare"].leaf
        config: dict[str, Any] = {
            "server_name": "rogue",
            "listen": f"{LOOPBACK}:{port}",
            "leafnodes": {
                "reconnect": "200ms",
                "remotes": [
                    {
                        "urls": [f"nats://{user}:{password}@{LOOPBACK}:{self.ports.hub_leafnodes}"],
                        "account": "ORB",
                    }
                ],
            },
            "accounts": {"ORB": {"users": [{"user": "root", "password": "root"}]}},
        }
        self.run("rogue", json.dumps(config), port)
        return BusSettings(
            servers=(f"nats://{LOOPBACK}:{port}",), user="root", password="root", inbox_prefix=node_inbox(OWN)
        )

    def rogue_leaf_of(self, node: str) -> BusSettings:
        """The same, linked with the credential that the node's root can read."""
        return self.rogue_leaf(link_user(node), self.credentials.nodes[node].link)


def listens(port: int) -> bool:
    return (
        subprocess.run(["bash", "-c", f": </dev/tcp/{LOOPBACK}/{port}"], capture_output=True).returncode == 0
    )


@contextlib.asynccontextmanager
async def connected(*settings: BusSettings) -> AsyncIterator[list[Bus]]:
    """Connections of these identities, closed at the end."""
    buses = [await Bus.connect(one, f"test-{one.user}", attempts=20) for one in settings]
    try:
        yield buses
    finally:
        for bus in buses:
            await bus.close()


async def linked(island: Island, *names: str) -> None:
    """Returns when the hub lists the leaves with these server names."""
    deadline = time.monotonic() + LIMIT_S
    async with connected(island.of_hub("sys")) as (system,):
        while True:
            answer = json.loads((await system.request("$SYS.REQ.SERVER.PING.LEAFZ", b"")).data)
            present = {leaf["name"] for leaf in answer["data"].get("leafs") or ()}
            if present.issuperset(names):
                return
            assert time.monotonic() < deadline, f"{names} are not linked, only {present}"
            await asyncio.sleep(0.02)


async def make_streams(island: Island) -> None:
    """All streams, each made by an identity that may."""
    async with connected(island.of_hub("allocator"), island.of_hub("controller")) as makers:
        for spec in STREAMS:
            errors: list[str] = []
            for maker in makers:
                try:
                    await maker.ensure_stream(spec)
                    break
                except BusError as error:
                    errors.append(str(error))
            else:
                pytest.fail(f"nobody may make stream {spec.name}: {errors}")


@pytest.fixture
def island(tmp_path: Path) -> Iterator[Island]:
    made = Island(tmp_path)
    try:
        made.start()
        asyncio.run(linked(made, *(leaf_name(node) for node in NODES)))
        yield made
    finally:
        made.stop_all()
