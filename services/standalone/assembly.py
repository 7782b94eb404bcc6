"""Which processes make up a standalone system, with what settings, in which order: a pure function of its description.

Owns the composition. Must not start anything, read files or choose ports.
"""

from __future__ import annotations

import sys

import msgspec

from services.bus.config import SYSTEM_USER, leaf_name
from services.standalone.layout import Layout
from services.standalone.natsconf import hub_config, leaf_config
from services.standalone.system import LOOPBACK, Credentials, NodeSpec, Ports
from shared.settings import (
    AgentSettings,
    AllocatorSettings,
    BusSettings,
    ControllerSettings,
    RdmaSettings,
    TelemetrySettings,
    WebhookSettings,
)
from shared.subjects import cni, inbox, node_inbox, token, tools_inbox

HUB = "nats-hub"

AGENT_RANK, NODE_RANK, HUB_RANK, LEAF_LINK_RANK, NATS_RANK = range(5)
"""Order of stopping, lowest first: the agents finish their attaches while everything they ask still answers."""


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One process to keep running. `asks` is the last token of its question subject; `port` listens when it is up (0: not waited for)."""

    service: str
    instance: str
    command: tuple[str, ...]
    stop_rank: int
    asks: str = ""
    node: str = ""
    http: str = ""
    port: int = 0


class ShimSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`orbweaver.json` beside the installed shim: its leaf, its credential, and where the leaf's loopback is."""

    server: str
    user: str
    password: str
    node: str
    subject: str
    netns: str


class Assembly(msgspec.Struct, frozen=True, kw_only=True):
    """`files` maps paths to contents, all secret; `programs` are in the order in which they start."""

    files: dict[str, bytes]
    programs: tuple[Program, ...]


def leaf_instance(node: str) -> str:
    return f"nats-{leaf_name(node)}"


def hub_bus(ports: Ports, credentials: Credentials, identity: str) -> BusSettings:
    """How an identity of the hub connects."""
    return BusSettings(
        servers=(f"nats://{LOOPBACK}:{ports.hub}",),
        user=identity,
        password=credentials.hub[identity],
        inbox_prefix=inbox(identity),
    )


def system_bus(ports: Ports, credentials: Credentials) -> BusSettings:
    """How the system account's user connects."""
    return BusSettings(
        servers=(f"nats://{LOOPBACK}:{ports.hub}",),
        user=SYSTEM_USER,
        password=credentials.system,
        inbox_prefix=inbox(SYSTEM_USER),
    )


def tools_bus(ports: Ports, credentials: Credentials, node: str = "") -> BusSettings:
    """How a tool connects. To ask the services of a node, name it: a node answers below that prefix only."""
    settings = hub_bus(ports, credentials, "tools")
    return msgspec.structs.replace(settings, inbox_prefix=tools_inbox(node)) if node else settings


def _node_bus(servers: tuple[str, ...], node: str, identity: str, password: str) -> BusSettings:
    """How an identity of a node connects to its leaf."""
    return BusSettings(
        servers=servers, user=identity, password=password, inbox_prefix=node_inbox(node, identity)
    )


def shim_settings(node: str, ports: Ports, credentials: Credentials, shim_netns: str) -> ShimSettings:
    return ShimSettings(
        server=f"{LOOPBACK}:{ports.nodes[node].leaf}",
        user="shim",
        password=credentials.nodes[node].shim,
        node=node,
        subject=cni(node),
        netns=shim_netns,
    )


def assemble(
    *,
    layout: Layout,
    manifests: str,
    nodes: tuple[NodeSpec, ...],
    ports: Ports,
    credentials: Credentials,
    nats_server: str,
) -> Assembly:
    """Every configuration file and every process of the system."""
    files: dict[str, bytes] = {}
    programs: list[Program] = []

    def nats(instance: str, config: str, *, node: str, port: int, rank: int) -> None:
        path = str(layout.nats_file(instance))
        files[path] = config.encode()
        command = (nats_server, "--config", path)
        programs.append(
            Program(service="nats", instance=instance, command=command, stop_rank=rank, node=node, port=port)
        )

    def service(
        name: str, instance: str, settings: msgspec.Struct, *, asks: str, node: str, http: str, rank: int
    ) -> None:
        path = str(layout.settings_file(instance))
        files[path] = msgspec.json.format(msgspec.json.encode(settings))
        programs.append(
            Program(
                service=name,
                instance=instance,
                # -P: a folder named `services` where `up` was called must not be taken for ours.
                command=(sys.executable, "-P", "-m", f"services.{name}", "--config", path),
                stop_rank=rank,
                asks=asks,
                node=node,
                http=http,
            )
        )

    names = tuple(node.name for node in nodes)
    nats(
        HUB,
        hub_config(
            client_port=ports.hub,
            leafnodes_port=ports.hub_leafnodes,
            store=str(layout.jetstream),
            credentials=credentials,
            nodes=names,
        ),
        node="",
        port=ports.hub,
        rank=NATS_RANK,
    )
    for node in names:
        nats(
            leaf_instance(node),
            leaf_config(
                node=node,
                client_port=ports.nodes[node].leaf,
                hub_leafnodes_port=ports.hub_leafnodes,
                credentials=credentials.nodes[node],
            ),
            node=node,
            port=ports.nodes[node].leaf,
            rank=LEAF_LINK_RANK,
        )

    http = f"{LOOPBACK}:{ports.controller_http}"
    controller = ControllerSettings(
        replica="controller-0",
        bus=hub_bus(ports, credentials, "controller"),
        telemetry=TelemetrySettings(http_address=http),
        manifests=manifests,
    )
    service("controller", "controller-0", controller, asks="controller-0", node="", http=http, rank=HUB_RANK)
    for number, port in enumerate(ports.allocator_http):
        replica, http = f"allocator-{number}", f"{LOOPBACK}:{port}"
        allocator = AllocatorSettings(
            replica=replica,
            bus=hub_bus(ports, credentials, "allocator"),
            system=system_bus(ports, credentials),
            telemetry=TelemetrySettings(http_address=http),
            mark_file=str(layout.marks / "leases.json"),
        )
        service("allocator", replica, allocator, asks=replica, node="", http=http, rank=HUB_RANK)
    http = f"{LOOPBACK}:{ports.webhook_http}"
    webhook = WebhookSettings(
        replica="webhook-0",
        bus=hub_bus(ports, credentials, "webhook"),
        telemetry=TelemetrySettings(http_address=http),
        https_address=f"{LOOPBACK}:{ports.webhook_https}",
        certificates=str(layout.certificates),
    )
    service("webhook", "webhook-0", webhook, asks="webhook-0", node="", http=http, rank=HUB_RANK)

    for node in nodes:
        own, kept = ports.nodes[node.name], credentials.nodes[node.name]
        leaf = (f"nats://{LOOPBACK}:{own.leaf}",)
        instance, http = f"rdma-{token(node.name)}", f"{LOOPBACK}:{own.rdma_http}"
        rdma = RdmaSettings(
            node=node.name,
            bus=_node_bus(leaf, node.name, "rdma", kept.rdma),
            telemetry=TelemetrySettings(http_address=http),
        )
        service("rdma", instance, rdma, asks=node.name, node=node.name, http=http, rank=NODE_RANK)
        instance, http = f"agent-{token(node.name)}", f"{LOOPBACK}:{own.agent_http}"
        agent = AgentSettings(
            node=node.name,
            bus=_node_bus(leaf, node.name, "agent", kept.agent),
            telemetry=TelemetrySettings(http_address=http),
            state=str(layout.node_state(node.name)),
            netns=node.netns,
            # The namespace that `up` runs in, a node or not, is every agent's own.
            foreign_netns=tuple(other.netns for other in nodes if other.netns not in ("", node.netns)),
        )
        service("agent", instance, agent, asks=node.name, node=node.name, http=http, rank=AGENT_RANK)
    return Assembly(files=files, programs=tuple(programs))
