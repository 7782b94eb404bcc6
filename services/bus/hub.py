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
from shared.bus import Bus, BusError, StreamMessage
from shared.contracts.codec import MessageError
from shared.contracts.facts import FACT, ObjectFact, ObjectGone
from shared.settings import BusSettings
from shared.subjects import inbox
from shared.task import end

log = structlog.get_logger()

T = TypeVar("T")
ROSTER = "roster"
_NODE_FACTS = "orb.facts.Node._.*"
_LOOK_S = 0.2
_AGAIN_S = 2.0
_LINKS_LOOK_S = 10.0


class Hub:
    """`nodes` are those that may link. `changed` is set when the configuration is no longer what it should be."""

    def __init__(self, settings: HubSettings, state: HubState, peers: dict[str, str]) -> None:
        self._settings = settings
        self._state = state
        self.peers = peers
        self._folder = Path(settings.folder)
        self._known_nodes = Path(settings.store) / "nodes.json"
        self.nodes: set[str] = set()
        if self._known_nodes.is_file():
            self.nodes = msgspec.json.decode(self._known_nodes.read_bytes(), type=set[str])
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
            **hub_accounts(users=self._state.users, system=self._state.system, links=self._links(epoch)),
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
    await _patiently(lambda: vault.register(state))
    found = _Shared(state=state, peers=await _patiently(vault.await_peers))
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
                follow = await bus.follow("FACTS", take, subject_filter=_NODE_FACTS, last_per_subject=True)
                await bus.closed.wait()
                await follow.stop()
            finally:
                await bus.close()
        except BusError as error:
            log.debug("facts are awaited", error=str(error))
        await asyncio.sleep(_AGAIN_S)


async def _keep(hub: Hub, server: Server, context: ssl.SSLContext, settings: HubSettings) -> None:
    """Brings the server to what it should be, for ever. What goes wrong once is tried again: the server runs on."""
    done: Any = None
    links = Links(settings.monitor_port, hub.bus(SYSTEM_USER))
    look_at = 0.0
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            hub.look_for_peers()
            epoch = epoch_at(time.time(), settings.epoch_s)
            wanted = (frozenset(hub.nodes), epoch, tuple(sorted(hub.peers.items())), certificate.now().date())
            if wanted != done:
                if await asyncio.to_thread(hub.write, epoch):
                    hub.load(context)
                    server.reload()
                    log.info("configuration", nodes=len(hub.nodes), epoch=epoch, servers=len(hub.peers))
                done = wanted
                look_at = time.monotonic() + _AGAIN_S
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + min(_LINKS_LOOK_S, settings.epoch_s / 4)
                if found := await asyncio.to_thread(links.look, hub.accounts, epoch):
                    await links.cut(found)
        except OSError as error:
            log.warning("the server could not be brought to what it should be", error=str(error))
            await asyncio.sleep(_AGAIN_S)
