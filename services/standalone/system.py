"""What a standalone system is: its nodes, ports, addresses, credentials and processes, as written to the state directory.

Owns the Structs of `system.json` and `credentials.json`. Must not start or ask anything.
"""

from __future__ import annotations

import secrets

import msgspec

from shared.subjects import HUB_IDENTITIES

LOOPBACK = "127.0.0.1"


class ProcessMark(msgspec.Struct, frozen=True, kw_only=True):
    """One process: pids are re-used, the pair with the start time (clock ticks since boot, field 22 of /proc/PID/stat) is not."""

    pid: int
    start_ticks: int


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the system. `netns` is a path, empty for the namespace that `up` runs in."""

    name: str
    netns: str = ""


class NodePorts(msgspec.Struct, frozen=True, kw_only=True):
    """TCP ports on loopback: the leaf's client port, and /metrics of agent and RDMA service."""

    leaf: int
    agent_http: int
    rdma_http: int


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """TCP ports on loopback, kept over restarts as long as nobody else took them."""

    hub: int
    hub_leafnodes: int
    webhook_https: int
    controller_http: int
    allocator_http: tuple[int, ...]
    webhook_http: int
    nodes: dict[str, NodePorts]


class ServiceEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One supervised process. `mark` is None while it does not run and `reason` says why; `instance` names its log and settings.

    `asks` is the last token of the subject on which a service answers questions, empty for a NATS server.
    """

    service: str
    instance: str
    asks: str = ""
    node: str = ""
    http: str = ""
    log: str
    mark: ProcessMark | None = None
    started_unix_s: float = 0.0
    restarts: int = 0
    reason: str = ""


class SystemFile(msgspec.Struct, frozen=True, kw_only=True):
    """`supervisor` is None after an orderly stop; ports and nodes stay, so that the next start looks the same from outside."""

    version: int = 1
    state: str
    manifests: str
    nodes: tuple[NodeSpec, ...]
    ports: Ports
    hub_url: str
    leaf_urls: dict[str, str]
    webhook_url: str
    ca_file: str
    shim_netns: str
    supervisor: ProcessMark | None = None
    services: tuple[ServiceEntry, ...] = ()


class NodeCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """`link` opens the leaf's connection to the hub; the others are users of the leaf itself."""

    link: str
    agent: str
    rdma: str
    shim: str


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Every password of the system. `hub` is keyed by the identities of shared.subjects.HUB_IDENTITIES."""

    system: str
    hub: dict[str, str]
    nodes: dict[str, NodeCredentials]


def _password() -> str:
    return secrets.token_urlsafe(32)


def complete_credentials(known: Credentials | None, nodes: tuple[str, ...]) -> Credentials:
    """The known passwords, and new ones for what has none yet. Nodes that left the system lose theirs."""
    hub = {} if known is None else known.hub
    by_node = {} if known is None else known.nodes
    return Credentials(
        system=_password() if known is None else known.system,
        hub={identity: hub.get(identity) or _password() for identity in HUB_IDENTITIES},
        nodes={
            node: by_node.get(node)
            or NodeCredentials(link=_password(), agent=_password(), rdma=_password(), shim=_password())
            for node in nodes
        },
    )
