"""One server of the hub in a cluster: its configuration follows the nodes that there are, and nodes get their keys here.

The composition root of the hub. Nodes are known by their facts on the very bus; the last known ones are kept beside JetStream's
files, so that a hub that starts anew lets them in before anybody tells facts. What changes is put into force by a reload, which
disturbs no link (nats-server 2.15.1: 0.25 s for 1,000 nodes); those whose key ended or whose node is gone are cut after it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import structlog

from services.bus import certificate
from services.bus.api import Api, ApiRefused
from services.bus.config import SYSTEM_USER, hub_accounts, key_login, limits, node_account, render
from services.bus.identity import epoch_at, epochs_that_count, node_key, reviewed_node
from services.bus.issue import Issue, Issuer, Unavailable
from services.bus.key import AUDIENCE, IssuedKey, Refused
from services.bus.links import Links
from services.bus.server import Server, replace
from services.bus.settings import (
    AUTHORITY_FILE,
    CLIENT_PORT,
    CLUSTER_PORT,
    IDENTITY_PORT,
    LEAFNODES_PORT,
    PEER_PREFIX,
    HubSettings,
)
from services.bus.vault import HubState, Vault, peers_of
from shared.bus import Bus, BusError, StreamMessage, StreamMissing
from shared.contracts.codec import MessageError
from shared.contracts.facts import FACT, ObjectFact, ObjectGone
from shared.settings import BusSettings
from shared.subjects import FACTS_OF_NODES, inbox
from shared.task import end

log = structlog.get_logger()

T = TypeVar("T")
ROSTER = "roster"
_LOOK_S = 0.2
_AGAIN_S = 2.0
_LINKS_LOOK_S = 10.0
_APART_S = 2.0
"""Servers hear of a node and reload within this of each other."""


class Hub:
    """`nodes` are those that may link; `heard` are those whose questions reach the services too.

    A server of a cluster drops what another tells it of an account that it does not know yet, and never hears of it again (nats-server
    2.15.1, #8560). And a service that an account imports which came by a reload works from the next reload on only (2.15.1). So a new node
    has its account at once, and is heard some seconds later, when every server has the account: in a reload of its own.
    """

    def __init__(self, settings: HubSettings, state: HubState, peers: dict[str, str]) -> None:
        self._settings = settings
        self._state = state
        self.peers = peers
        self._folder = Path(settings.folder)
        self._known_nodes = Path(settings.store) / "nodes.json"
        self.nodes: set[str] = set()
        if self._known_nodes.is_file():
            self.nodes = msgspec.json.decode(self._known_nodes.read_bytes(), type=set[str])
        self.heard: frozenset[str] = frozenset(self.nodes)
        self.facts_read = asyncio.Event()
        """All that the stream had at our start was read."""
        self.first = False
        """There was no stream of facts at our start: nobody can have told anything of nodes before us."""
        self._publics: dict[tuple[str, int], str] = {}

    @property
    def config_file(self) -> Path:
        return self._folder / "hub.conf"

    def write(self, epoch: int) -> bool:
        """Writes what follows from nodes, epoch and peers. True if it is other than before."""
        replace(self._folder / AUTHORITY_FILE, self._state.authority.certificate)
        replace(self._known_nodes, msgspec.json.encode(sorted(self.nodes)))
        renewed = self._write_certificate()
        return replace(self.config_file, self._config(epoch)) or renewed

    def _write_certificate(self) -> bool:
        now, path = certificate.now(), self._folder / "tls.crt"
        if path.is_file() and not certificate.ends_soon(path.read_text(), now):
            return False
        pair = certificate.server_certificate(
            self._state.authority, self._settings.name, self._settings.address, now
        )
        replace(self._folder / "tls.key", pair.key)
        return replace(path, pair.certificate)

    def _config(self, epoch: int) -> str:
        host = f"[{self._settings.address}]" if ":" in self._settings.address else self._settings.address
        certificates = {"cert_file": str(self._folder / "tls.crt"), "key_file": str(self._folder / "tls.key")}
        config: dict[str, Any] = {
            "server_name": self._settings.name,
            "listen": f"{host}:{CLIENT_PORT}",
            "http": f"127.0.0.1:{self._settings.monitor_port}",
            "tls": certificates,
            "lame_duck_grace_period": "2s",
            "lame_duck_duration": "30s",
            **limits(),
            "jetstream": {
                "store_dir": str(Path(self._settings.store) / "jetstream"),
                "sync_interval": "always",
            },
            "leafnodes": {"listen": f"{host}:{LEAFNODES_PORT}", "tls": certificates},
            **hub_accounts(
                users=self._state.users,
                system=self._state.system,
                links=self._links(epoch),
                heard=self.heard,
            ),
        }
        if self._settings.servers > 1:
            login = f"routes:{quote(self._state.routes, safe='')}"
            others = [urlsplit(url) for name, url in self.peers.items() if name != self._settings.name]
            config["cluster"] = {
                "name": "orbweaver",
                "listen": f"{host}:{CLUSTER_PORT}",
                "authorization": {"user": "routes", "password": self._state.routes, "timeout": 5},
                "tls": {**certificates, "ca_file": str(self._folder / AUTHORITY_FILE), "verify": True},
                "routes": [
                    f"nats-route://{login}@{_bracketed(url.hostname)}:{CLUSTER_PORT}" for url in others
                ],
            }
        return render(config)

    def _links(self, epoch: int) -> dict[str, list[dict[str, Any]]]:
        count = epochs_that_count(epoch)
        secret = bytes.fromhex(self._state.identity)
        wanted = [(node, one) for node in sorted(self.nodes) for one in count]
        self._publics = {key: self._publics.get(key) or node_key(secret, *key).public for key in wanted}
        links: dict[str, list[dict[str, Any]]] = {}
        for (node, _), public in self._publics.items():
            links.setdefault(node, []).append(key_login(public))
        return links

    def issue(self, node: str) -> IssuedKey:
        now = time.time()
        epoch = epoch_at(now, self._settings.epoch_s)
        key = node_key(bytes.fromhex(self._state.identity), node, epoch)
        return IssuedKey(node=node, seed=key.seed, next_s=(epoch + 1) * self._settings.epoch_s - now)

    def learn(self, message: StreamMessage) -> None:
        """A fact of a node. One that cannot be read changes nothing."""
        try:
            fact = FACT.decode(message.data)
        except MessageError:
            return
        if isinstance(fact, ObjectFact):
            self.nodes.add(fact.name)
        elif isinstance(fact, ObjectGone):
            self.nodes.discard(fact.name)

    def bus(self, user: str) -> BusSettings:
        """How we speak to our own server: as `roster` we read facts, as the system account's user we cut links."""
        return BusSettings(
            servers=(f"tls://{_bracketed(self._settings.address)}:{CLIENT_PORT}",),
            user=user,
            password=self._state.system if user == SYSTEM_USER else self._state.users[user],
            inbox_prefix=inbox(user),
            tls_ca_file=str(self._folder / AUTHORITY_FILE),
        )

    @property
    def accounts(self) -> set[str]:
        """Of the nodes that there are."""
        return {node_account(node) for node in self.nodes}

    def look_for_peers(self) -> None:
        """The kubelet renews what it has mounted: a server that came back on another node is there under its new address."""
        found = {
            path.name: path.read_text().strip() for path in Path(self._settings.peers).glob(f"{PEER_PREFIX}*")
        }
        self.peers = {**self.peers, **peers_of(found, self._settings)}

    def tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.load(context)
        return context

    def load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._folder / "tls.crt", self._folder / "tls.key")


def _bracketed(host: str | None) -> str:
    assert host
    return f"[{host}]" if ":" in host else host


async def run(settings: HubSettings, api: Api) -> None:
    """Until it is cancelled or the server ends. Raises OSError then."""
    shared = await _shared(settings, api)
    hub = Hub(settings, shared.state, shared.peers)
    hub.write(epoch_at(time.time(), settings.epoch_s))
    issuer = Issuer(_issuing(hub, api, settings), _agent(settings))
    context = hub.tls()
    server = await Server.start(hub.config_file)
    ended = asyncio.create_task(server.ended())
    tasks: list[asyncio.Future[Any]] = [
        ended,
        asyncio.create_task(_learn(hub)),
        asyncio.create_task(_keep(hub, server, context, settings)),
    ]
    try:
        await issuer.start(settings.address, IDENTITY_PORT, context)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await asyncio.gather(*(task for task in tasks if task.done()))
        raise OSError("nats-server ended by itself")
    finally:
        await end(tasks[1:])
        await issuer.close()
        await server.stop(gently=settings.servers > 1)
        await end(tasks)


class _Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What the servers of the hub share: their secrets, and their URLs by name."""

    state: HubState
    peers: dict[str, str]


async def _shared(settings: HubSettings, api: Api) -> _Shared:
    """From the API server, once in a pod's life: a container that starts again needs none."""
    kept = Path(settings.folder) / "shared.json"
    if kept.is_file():
        return msgspec.json.decode(kept.read_bytes(), type=_Shared)
    vault = Vault(api, settings)
    state = await _patiently(vault.open)
    await _patiently(vault.register)
    found = _Shared(state=state, peers=await _patiently(vault.await_peers))
    await _patiently(lambda: vault.tell_authority(state))
    replace(kept, msgspec.json.encode(found))
    return found


async def _patiently(call: Callable[[], T]) -> T:
    """Calls until the API server answers: a hub that starts is worth waiting for."""
    while True:
        try:
            return await asyncio.to_thread(call)
        except (ApiRefused, OSError) as error:
            log.warning("the API server is awaited", error=str(error))
            await asyncio.sleep(_AGAIN_S)


def _agent(settings: HubSettings) -> str:
    return f"system:serviceaccount:{settings.namespace}:{settings.agent}"


def _issuing(hub: Hub, api: Api, settings: HubSettings) -> Issue:
    async def issue(token: str) -> IssuedKey | Refused:
        try:
            review = await asyncio.to_thread(api.review, token, AUDIENCE)
        except (ApiRefused, OSError) as error:
            raise Unavailable(f"the API server cannot be asked about the token: {error}") from None
        node = reviewed_node(review, agent=_agent(settings))
        return node if isinstance(node, Refused) else hub.issue(node)

    return issue


async def _learn(hub: Hub) -> None:
    """Follows the facts of nodes for ever."""

    async def take(message: StreamMessage) -> None:
        hub.learn(message)

    while True:
        try:
            bus = await Bus.connect(hub.bus(ROSTER), f"hub {ROSTER}")
            try:
                follow = await bus.follow("FACTS", take, subject_filter=FACTS_OF_NODES, last_per_subject=True)
                await follow.caught_up()
                hub.facts_read.set()
                await bus.closed.wait()
                await follow.stop()
            finally:
                await bus.close()
        except StreamMissing:
            hub.first = hub.first or not hub.facts_read.is_set()
        except BusError as error:
            log.debug("facts are awaited", error=str(error))
        await asyncio.sleep(_AGAIN_S)


async def _keep(hub: Hub, server: Server, context: ssl.SSLContext, settings: HubSettings) -> None:
    """Brings the server to what it should be, for ever. What goes wrong once is tried again: the server runs on."""
    keeping = _Keeping(hub, server, context, settings)
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            await keeping.look()
        except OSError as error:
            log.warning("the server could not be brought to what it should be", error=str(error))
            await asyncio.sleep(_AGAIN_S)


class _Keeping:
    """What was put into force when, and which links and other servers were seen."""

    def __init__(self, hub: Hub, server: Server, context: ssl.SSLContext, settings: HubSettings) -> None:
        self._hub, self._server, self._context, self._settings = hub, server, context, settings
        self._links = Links(settings.monitor_port, hub.bus(SYSTEM_USER))
        self._known = dict.fromkeys(hub.nodes, float("-inf"))
        self._done: Any = None
        self._joining = settings.servers > 1
        self._at_start = frozenset(hub.nodes)
        self._look_at = time.monotonic() + _AGAIN_S

    async def look(self) -> None:
        hub, now = self._hub, time.monotonic()
        epoch = epoch_at(time.time(), self._settings.epoch_s)
        hub.look_for_peers()
        nodes = frozenset(hub.nodes)
        self._known = {node: self._known.get(node, now) for node in nodes}
        hub.heard = frozenset(node for node, since in self._known.items() if now - since >= _APART_S)
        wanted = (nodes, hub.heard, epoch, tuple(sorted(hub.peers.items())), certificate.now().date())
        if self._joining and (hub.facts_read.is_set() or hub.first):
            self._joining = False
            if not hub.first and not nodes <= self._at_start:
                await self._start_with(nodes, epoch)
                return
        if wanted != self._done:
            if await asyncio.to_thread(hub.write, epoch):
                hub.load(self._context)
                self._server.reload()
                log.info("configuration", nodes=len(nodes), heard=len(hub.heard), epoch=epoch)
            self._done = wanted
        if now >= self._look_at:
            self._look_at = now + min(_LINKS_LOOK_S, self._settings.epoch_s / 4)
            await self._look_at_links(epoch)

    async def _start_with(self, nodes: frozenset[str], epoch: int) -> None:
        """Nodes came while this server was away, and the others told it of their accounts before it knew these."""
        hub = self._hub
        self._known = dict.fromkeys(nodes, float("-inf"))
        hub.heard = nodes
        await asyncio.to_thread(hub.write, epoch)
        hub.load(self._context)
        await self._server.start_anew()
        log.info("the server starts with the nodes that came while it was away", nodes=len(nodes))

    async def _look_at_links(self, epoch: int) -> None:
        if found := await asyncio.to_thread(self._links.look, self._hub.accounts, epoch):
            await self._links.cut(found)
