"""Three real nats-servers as one JetStream cluster, each with its own directory, as the StatefulSet in a cluster has them.

    with NatsCluster(directory) as cluster:        # about 3 s until it has elected

What holds of tests.support.nats holds of each member: users, passwords, `sync_interval: always`.
"""

from __future__ import annotations

import shutil
import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from shared.bus import Bus
from shared.settings import BusSettings
from tests.support.nats import NatsServer

NAMES = ("s1", "s2", "s3")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class NatsCluster:
    """Members by name; a stopped one is started again with what its directory holds."""

    stream_replicas = len(NAMES)

    def __init__(self, directory: Path) -> None:
        ports = free_ports(len(NAMES))
        routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in ports)
        self.members: dict[str, NatsServer] = {}
        for name, port in zip(NAMES, ports, strict=True):
            own = directory / name
            own.mkdir()
            block = f'cluster {{ name: orb, listen: "127.0.0.1:{port}", routes: [{routes}] }}'
            self.members[name] = NatsServer(own, name=name, cluster=block)

    def __enter__(self) -> Self:
        for member in self.members.values():
            member.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.members.values():
            member.stop(kill=True)

    def settings(self, identity: str = "admin", node: str = "") -> BusSettings:
        """A connection to any of the members."""
        servers = tuple(member.url for member in self.members.values())
        return msgspec.structs.replace(self.members["s1"].settings(identity, node), servers=servers)

    def wipe(self, name: str) -> None:
        """Removes all that a stopped member has stored."""
        shutil.rmtree(self.members[name].directory / "js")


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Who leads a stream, empty where nobody does, and which others have all of it."""

    leader: str
    current: frozenset[str]


async def placement(bus: Bus, stream: str) -> Placement:
    """Raises BusError, as while the cluster elects."""
    cluster: dict[str, Any] = (await bus.api(f"STREAM.INFO.{stream}")).get("cluster") or {}
    followers: list[dict[str, Any]] = cluster.get("replicas") or []
    return Placement(
        leader=cluster.get("leader") or "",
        current=frozenset(
            one["name"]
            for one in followers
            if one.get("current") and not one.get("offline") and not one.get("lag")
        ),
    )
