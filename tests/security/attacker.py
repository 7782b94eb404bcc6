"""Whoever took a node of a running system: its credentials, and a leaf whose configuration the taker wrote.

Owns the connections. Must not know what is tried with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from services.bus.config import link_user
from services.standalone.app import nats_server_binary
from services.standalone.assembly import hub_bus, system_bus, tools_bus
from services.standalone.ports import choose_ports
from services.standalone.state import read_credentials, read_system
from services.standalone.system import LOOPBACK, ProcessMark
from shared.bus import Bus
from shared.settings import BusSettings
from shared.subjects import inbox, node_inbox
from tests.integration.cli.stage import Stage

TAKEN, VICTIM = "n1", "n2"
LIMIT_S = 10.0


class Attacker:
    """`node`, `hub` and `tool` tell how an identity connects; `rogue` is a client of the taker's own leaf."""

    def __init__(self, stage: Stage) -> None:
        system, credentials = read_system(stage.system.state), read_credentials(stage.system.state)
        assert system is not None and credentials is not None
        self.system, self.credentials = system, credentials

    def node(self, identity: str, node: str = TAKEN) -> BusSettings:
        return BusSettings(
            servers=(f"nats://{LOOPBACK}:{self.system.ports.nodes[node].leaf}",),
            user=identity,
            password=getattr(self.credentials.nodes[node], identity),
            inbox_prefix=inbox("shim") if identity == "shim" else node_inbox(node, identity),
        )

    def hub(self, identity: str) -> BusSettings:
        if identity == "sys":
            return system_bus(self.system.ports, self.credentials)
        return hub_bus(self.system.ports, self.credentials, identity)

    def tool(self, node: str = "") -> BusSettings:
        return tools_bus(self.system.ports, self.credentials, node)

    @contextlib.contextmanager
    def rogue(self, directory: Path) -> Iterator[BusSettings]:
        """A leaf linked with the taken node's credential, without any denial; its only user may do all."""
        port = choose_ports(None, ("rogue",)).nodes["rogue"].leaf
        login = f"{link_user(TAKEN)}:{self.credentials.nodes[TAKEN].link}"
        remote = {
            "urls": [f"nats://{login}@{LOOPBACK}:{self.system.ports.hub_leafnodes}"],
            "account": "ORB",
        }
        config: dict[str, Any] = {
            "server_name": "rogue",
            "listen": f"{LOOPBACK}:{port}",
            "leafnodes": {"reconnect": "200ms", "remotes": [remote]},
            "accounts": {"ORB": {"users": [{"user": "root", "password": "root"}]}},
        }
        path, log = directory / "rogue.conf", directory / "rogue.log"
        path.write_text(json.dumps(config))
        server = subprocess.Popen([nats_server_binary(), "-c", str(path), "-l", str(log)])
        try:
            deadline = time.monotonic() + LIMIT_S
            while not log.exists() or "Leafnode connection created" not in log.read_text():
                assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
                time.sleep(0.02)
            time.sleep(0.3)
            yield BusSettings(
                servers=(f"nats://{LOOPBACK}:{port}",),
                user="root",
                password="root",
                inbox_prefix=node_inbox(TAKEN),
            )
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(10)

    def processes(self) -> dict[str, ProcessMark | None]:
        """Which processes make up the system now: one that died would have been replaced by another."""
        system = read_system(Path(self.system.state))
        assert system is not None
        return {entry.instance: entry.mark for entry in system.services}

    def metrics(self, instance: str) -> str:
        (entry,) = (entry for entry in self.system.services if entry.instance == instance)
        with urllib.request.urlopen(f"http://{entry.http}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def refused(self) -> dict[str, int]:
        """Refused messages by family, over all processes."""
        found: dict[str, int] = {}
        for entry in self.system.services:
            if entry.http:
                text = self.metrics(entry.instance)
                for family, count in re.findall(
                    r'^orbweaver_messages_refused_total\{[^}]*family="([^"]+)"[^}]*\} ([0-9.e+]+)', text, re.M
                ):
                    found[family] = found.get(family, 0) + int(float(count))
        return found

    async def streams(self) -> dict[str, tuple[int, int]]:
        """Messages and consumers of every stream."""
        async with connected(self.hub("sys")) as (system,):
            answer = await system.request(
                "$SYS.REQ.SERVER.PING.JSZ", b'{"accounts":true,"streams":true,"consumers":true}'
            )
        return {
            detail["name"]: (detail["state"]["messages"], detail["state"]["consumer_count"])
            for account in json.loads(answer.data)["data"]["account_details"]
            for detail in account["stream_detail"]
        }

    async def settled(self) -> dict[str, tuple[int, int]]:
        """The same, once releases of earlier detaches are in the log."""
        before = await self.streams()
        while True:
            await asyncio.sleep(0.4)
            now = await self.streams()
            if now["LEASES"] == before["LEASES"]:
                return now
            before = now


@contextlib.asynccontextmanager
async def connected(*settings: BusSettings) -> AsyncIterator[list[Bus]]:
    buses: list[Bus] = []
    try:
        for one in settings:
            buses.append(await Bus.connect(one, f"attacker-{one.user}", attempts=20))
        yield buses
    finally:
        for bus in buses:
            await bus.close()
