"""How a cluster's system is, as far as its bus tells: who answers, who leads, where the streams are. Kubernetes is not asked.

Owns the questions, and what makes such a system ready. Must not know how it is shown. Which replicas and servers there should be,
nobody tells on the bus: one that is away is not missed, unless all are; nodes are known by their Node objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from services.cli import question
from services.cli.survey import answers
from services.cli.system import System, every
from shared.bus import BusError
from shared.contracts.codec import MessageError, encode
from shared.contracts.query import SERVICE_VIEW, AllocatorView, QueryService, ServiceView
from shared.subjects import (
    ATTACH,
    DISAGREEMENTS,
    FACTS,
    INVENTORY,
    LEASES,
    SPANS,
    ask_replicas,
    ask_service,
    token,
)

LISTEN_S = 1.0
"""Replicas that have not answered by then are not heard."""
LEADER_WAIT_S = 3.0
REPLICATED: tuple[Literal["allocator", "controller", "webhook"], ...] = ("allocator", "controller", "webhook")
ON_NODES: tuple[Literal["agent", "rdma"], ...] = ("agent", "rdma")
STREAMS = tuple(spec.name for spec in (LEASES, FACTS, ATTACH, SPANS, INVENTORY, DISAGREEMENTS))
"""Those of which a tool may ask."""


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A process of ours that answered, or a node's that should have. `reason` is empty when it is ready."""

    service: str
    instance: str
    node: str = ""
    reason: str = ""
    facts: dict[str, str] = {}


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """A stream on a server that follows the stream's leader."""

    name: str
    current: bool = False
    offline: bool = False
    lag: int = 0


class _Placement(msgspec.Struct, frozen=True, kw_only=True):
    leader: str = ""
    replicas: tuple[Copy, ...] = ()


class _State(msgspec.Struct, frozen=True, kw_only=True):
    messages: int
    bytes: int


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """`cluster` is absent where the hub is one server. `trouble` is why it could not be asked."""

    name: str
    state: _State = _State(messages=0, bytes=0)
    cluster: _Placement | None = None
    trouble: str = ""

    @property
    def servers(self) -> list[str]:
        if self.cluster is None:
            return []
        return [
            name for name in (self.cluster.leader, *(copy.name for copy in self.cluster.replicas)) if name
        ]


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One look. `leader` is a sentence where no allocator leads."""

    nodes: tuple[str, ...]
    instances: tuple[Instance, ...]
    leader: AllocatorView | str
    streams: tuple[Stream, ...]


def reasons(heard: Heard) -> list[str]:
    """What keeps the system from being ready, one phrase each; empty if nothing does."""
    return [*lacks(heard), *(f"{one.instance} {one.reason}" for one in heard.instances if one.reason)]


def lacks(heard: Heard) -> list[str]:
    """Those of the reasons that are no single instance's."""
    found: list[str] = []
    if isinstance(heard.leader, str):
        found.append(f"no allocator leads ({heard.leader})")
    elif not heard.leader.facts_synced:
        found.append(f"{heard.leader.replica} has not read the objects yet")
    for service in REPLICATED:
        if not any(one.service == service for one in heard.instances):
            found.append(f"no {service} is heard")
    controllers = [one for one in heard.instances if one.service == "controller"]
    if controllers and not any(one.facts.get("leader") == "true" for one in controllers):
        found.append("no controller leads")
    if not heard.nodes:
        found.append("no node is known: the controller has told of none")
    return found + [sentence for stream in heard.streams for sentence in _flaws(stream)]


def _flaws(stream: Stream) -> Iterable[str]:
    if stream.trouble:
        yield f"stream {stream.name}: {stream.trouble}"
    elif stream.cluster is not None:
        if not stream.cluster.leader:
            yield f"stream {stream.name} has no leader"
        for copy in stream.cluster.replicas:
            if copy.offline or not copy.current:
                state = "is offline" if copy.offline else f"is {copy.lag} messages behind"
                yield f"stream {stream.name} on {copy.name} {state}"


def servers(heard: Heard) -> list[str]:
    """Of the hub, by what the streams tell."""
    return sorted({name for stream in heard.streams for name in stream.servers})


async def look(system: System) -> Heard:
    """All at once; takes some seconds at most."""
    await system.meet_nodes()
    nodes = tuple(sorted(node.name for node in system.file.nodes))
    replicas, on_nodes, leader, streams = await asyncio.gather(
        asyncio.gather(*(_replicas(system, service) for service in REPLICATED)),
        _on_nodes(system, nodes),
        _leader(system),
        asyncio.gather(*(_stream(system, name) for name in STREAMS)),
    )
    of_hub = [one for found in replicas for one in found]
    return Heard(nodes=nodes, instances=(*of_hub, *on_nodes), leader=leader, streams=tuple(streams))


async def webhooks_behind(system: System, sequence: int) -> list[str]:
    """Replicas that have not read the facts up to there, as far as they are heard."""
    return [
        one.instance
        for one in await _replicas(system, "webhook")
        if not (has := one.facts.get("facts_sequence", "")).isdigit() or int(has) < sequence
    ]


async def _replicas(system: System, service: str) -> list[Instance]:
    try:
        told = await answers(system.bus, ask_replicas(service), encode(QueryService()), LISTEN_S)
    except BusError:
        return []
    found: dict[str, Instance] = {}
    for message in told:
        try:
            view = SERVICE_VIEW.decode(message.data)
        except MessageError:
            continue
        if view.service == service:
            found[view.instance] = _instance(view)
    return [found[name] for name in sorted(found)]


async def _on_nodes(system: System, nodes: tuple[str, ...]) -> list[Instance]:
    async def asked(service: str, node: str) -> ServiceView:
        bus = await system.node_bus(node)
        subject = f"{ask_service(service)}.{token(node)}"
        answer = await bus.request(subject, encode(QueryService()), question.AGENT_TIMEOUT_S)
        try:
            return SERVICE_VIEW.decode(answer.data)
        except MessageError as error:
            raise BusError(str(error)) from None

    who = [(service, node) for service in ON_NODES for node in nodes]
    views = await every({f"{service}-{node}": asked(service, node) for service, node in who})
    found: list[Instance] = []
    for service, node in who:
        view, name = views[f"{service}-{node}"], f"{service}-{node}"
        if isinstance(view, BusError):
            found.append(
                Instance(service=service, instance=name, node=node, reason=f"does not answer: {view}")
            )
        else:
            found.append(
                Instance(
                    service=service, instance=name, node=node, reason=_reason(view), facts=dict(view.facts)
                )
            )
    return found


def _instance(view: ServiceView) -> Instance:
    return Instance(
        service=view.service, instance=view.instance, reason=_reason(view), facts=dict(view.facts)
    )


def _reason(view: ServiceView) -> str:
    return "" if view.ready else view.reason or "is not ready"


async def _leader(system: System) -> AllocatorView | str:
    try:
        return await question.allocator(system, timeout_s=LEADER_WAIT_S)
    except (BusError, MessageError) as error:
        return str(error)


async def _stream(system: System, name: str) -> Stream:
    try:
        told: Any = await system.bus.api(f"STREAM.INFO.{name}")
        return msgspec.convert({"name": name, "state": told["state"], "cluster": told.get("cluster")}, Stream)
    except (BusError, KeyError, msgspec.ValidationError) as error:
        return Stream(name=name, trouble=str(error))
