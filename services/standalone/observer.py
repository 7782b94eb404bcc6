"""Asks a standalone system how it is: the hub about its leaves and streams, each service about itself.

Owns the questions and what counts as ready. Must not start, stop or write anything.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from services.bus.config import leaf_name
from services.standalone.assembly import HUB, system_bus, tools_bus
from services.standalone.process import is_alive
from services.standalone.system import Credentials, ServiceEntry, SystemFile
from shared.bus import Bus, BusError
from shared.contracts.codec import MessageError, encode
from shared.contracts.query import (
    IPAM_ANSWER,
    SERVICE_VIEW,
    AllocatorView,
    QueryAllocator,
    QueryService,
)
from shared.settings import BusSettings
from shared.subjects import IPAM_QUERY, STREAMS, ask_service, token

ANSWER_LIMIT_S = 1.0
_OF_NODE = "node:"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One process as seen now; `reason` is empty when ready."""

    ready: bool
    reason: str = ""
    facts: dict[str, str] = {}


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """All at one time: `services` by instance, `missing` what the system as a whole still lacks, in sentences."""

    services: dict[str, Answer]
    missing: tuple[str, ...]

    @property
    def ready(self) -> bool:
        return not self.missing and all(answer.ready for answer in self.services.values())

    @property
    def unready(self) -> tuple[str, ...]:
        """The instances that are not ready."""
        return tuple(name for name, answer in self.services.items() if not answer.ready)

    def reasons(self) -> tuple[str, ...]:
        """What keeps the system from being ready, one phrase each."""
        return (*(f"{name} {self.services[name].reason}" for name in self.unready), *self.missing)

    def waits_for(self) -> str:
        """The same as one short line for somebody who watches it start."""
        if self.unready:
            return f"waiting for {', '.join(self.unready)}"
        return f"waiting: {'; '.join(self.missing)}"


class _Hub(msgspec.Struct, frozen=True, kw_only=True):
    leaves: frozenset[str]
    streams: frozenset[str]


class Observer:
    """Keeps its connections between looks. Use one in one event loop, and `close` it."""

    def __init__(self, system: SystemFile, credentials: Credentials) -> None:
        self._ports = system.ports
        self._credentials = credentials
        self._buses: dict[str, Bus] = {}
        self._connecting = asyncio.Lock()

    async def close(self) -> None:
        for bus in self._buses.values():
            await bus.close()
        self._buses.clear()

    async def look(self, entries: tuple[ServiceEntry, ...]) -> Look:
        """Asks all at once; takes at most a little more than ANSWER_LIMIT_S."""
        asking = [entry for entry in entries if entry.asks]
        (hub, leader), answers = await asyncio.gather(
            asyncio.gather(self._ask_hub(), self._ask_leader()),
            asyncio.gather(*(self._ask_service(entry) for entry in asking)),
        )
        asked = {entry.instance: answer for entry, answer in zip(asking, answers, strict=True)}
        services = {
            entry.instance: asked.get(entry.instance) or _nats_server(entry, hub) for entry in entries
        }
        missing: list[str] = []
        if not isinstance(hub, str):
            absent = sorted(spec.name for spec in STREAMS if spec.name not in hub.streams)
            if absent:
                missing.append(f"streams {', '.join(absent)} do not exist yet")
        if isinstance(leader, str):
            missing.append(f"no allocator leads ({leader})")
        elif not leader.facts_synced:
            missing.append(f"{leader.replica} has not read the manifests yet")
        return Look(services=services, missing=tuple(missing))

    async def _bus(self, key: str) -> Bus:
        """`key` is `system`, `tools`, or `node:` and a node. Raises BusError."""
        async with self._connecting:
            if key not in self._buses:
                self._buses[key] = await Bus.connect(self._settings(key), "status", attempts=1)
            return self._buses[key]

    def _settings(self, key: str) -> BusSettings:
        if key == "system":
            return system_bus(self._ports, self._credentials)
        return tools_bus(
            self._ports, self._credentials, node=key.removeprefix(_OF_NODE) if _OF_NODE in key else ""
        )

    async def _ask_hub(self) -> _Hub | str:
        """What the hub says of itself, or why it says nothing (monitoring over the system account: no HTTP port is open)."""
        try:
            bus = await self._bus("system")
            leafz, jsz = await asyncio.gather(
                bus.request("$SYS.REQ.SERVER.PING.LEAFZ", b"", ANSWER_LIMIT_S),
                bus.request("$SYS.REQ.SERVER.PING.JSZ", b'{"accounts":true,"streams":true}', ANSWER_LIMIT_S),
            )
        except BusError as error:
            return str(error)
        leaves: list[dict[str, Any]] = _data(leafz.data).get("leafs") or []
        accounts: list[dict[str, Any]] = _data(jsz.data).get("account_details") or []
        return _Hub(
            leaves=frozenset(leaf["name"] for leaf in leaves),
            streams=frozenset(
                stream["name"] for account in accounts for stream in account.get("stream_detail") or ()
            ),
        )

    async def _ask_leader(self) -> AllocatorView | str:
        try:
            bus = await self._bus("tools")
            answer = await bus.request(IPAM_QUERY, encode(QueryAllocator()), ANSWER_LIMIT_S)
            view = IPAM_ANSWER.decode(answer.data)
        except (BusError, MessageError) as error:
            return str(error)
        return view if isinstance(view, AllocatorView) else "its answer is not one about itself"

    async def _ask_service(self, entry: ServiceEntry) -> Answer:
        if not is_alive(entry.mark):
            return Answer(ready=False, reason=entry.reason or "does not run")
        try:
            bus = await self._bus(f"{_OF_NODE}{entry.node}" if entry.node else "tools")
            subject = f"{ask_service(entry.service)}.{token(entry.asks)}"
            answer = await bus.request(subject, encode(QueryService()), ANSWER_LIMIT_S)
            view = SERVICE_VIEW.decode(answer.data)
        except (BusError, MessageError) as error:
            return Answer(ready=False, reason=f"does not answer: {error}")
        if view.ready:
            return Answer(ready=True, facts=view.facts)
        return Answer(ready=False, reason=view.reason or "not ready", facts=view.facts)


def _data(answer: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(answer)
    return decoded.get("data") or {}


def _nats_server(entry: ServiceEntry, hub: _Hub | str) -> Answer:
    if not is_alive(entry.mark):
        return Answer(ready=False, reason=entry.reason or "does not run")
    if isinstance(hub, str):
        return Answer(ready=False, reason=hub if entry.instance == HUB else "the hub does not answer")
    if entry.instance == HUB:
        return Answer(ready=True, facts={"leaves": str(len(hub.leaves)), "streams": str(len(hub.streams))})
    if leaf_name(entry.node) in hub.leaves:
        return Answer(ready=True)
    return Answer(ready=False, reason="not linked with the hub yet")
