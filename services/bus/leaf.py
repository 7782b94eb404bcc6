"""A node's leaf in a cluster: the NATS server beside the agent, its local passwords, and the key of its link to the hub.

The composition root of the leaf. The key is asked of the hub with the pod's token, and anew in each of its epochs; until there is one,
and while the hub is away, the leaf serves its node alone. A new key or a new address of the hub is put into force by a reload:
connections of the node stay, the link is another one within some 10 ms (nats-server 2.15.1).
"""

from __future__ import annotations

import asyncio
import http.client
import random
import secrets
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog

from services.bus.config import leaf_accounts, leaf_name, leaf_remote, limits, render
from services.bus.key import PATH, IssuedKey
from services.bus.server import Server, replace
from services.bus.settings import AUTHORITY_FILE, IDENTITY_PORT, LEAFNODES_PORT, LeafSettings
from shared.settings import hub_servers
from shared.subjects import node_identities
from shared.task import end

log = structlog.get_logger()

_LOOK_S = 1.0
_AGAIN_S, _AGAIN_MAX_S = 1.0, 30.0
_ASK_TIMEOUT_S = 5.0
_UNLINKED_S = 30.0
"""A link that is away for so long may be refused: another key is asked for."""


def make_passwords(settings: LeafSettings) -> dict[str, str]:
    """The passwords of the leaf's users, each in a file of its name; kept where there are some. Raises OSError."""
    folder = Path(settings.passwords)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    out: dict[str, str] = {}
    for identity in node_identities(settings.node):
        path = folder / f"{identity}.password"
        if not path.is_file():
            replace(path, secrets.token_urlsafe(32))
        out[identity] = path.read_text().strip()
    return out


class Leaf:
    """What the leaf's configuration follows from. `key` is None until the hub gave one."""

    def __init__(self, settings: LeafSettings, passwords: dict[str, str]) -> None:
        self._settings = settings
        self._passwords = passwords
        self._folder = Path(settings.folder)
        self._key_file = self._folder / "key.json"
        self.key: IssuedKey | None = None
        if self._key_file.is_file():
            self.key = msgspec.json.decode(self._key_file.read_bytes(), type=IssuedKey)

    @property
    def config_file(self) -> Path:
        return self._folder / "leaf.conf"

    @property
    def authority_file(self) -> Path:
        return Path(self._settings.peers) / AUTHORITY_FILE

    def hosts(self) -> list[str]:
        """Where the servers of the hub are, as the cluster tells."""
        found = [urlsplit(url).hostname or "" for url in hub_servers(Path(self._settings.peers))]
        return [f"[{host}]" if ":" in host else host for host in found]

    def take(self, key: IssuedKey) -> None:
        """Raises ValueError if the key is another node's: the hub would let us speak for that one."""
        if key.node != self._settings.node:
            raise ValueError(f"the hub gives the key of {key.node}: NODE_NAME is not the node of this pod")
        replace(self._key_file, msgspec.json.encode(key))
        self.key = key

    def write(self) -> bool:
        """True if the configuration is other than before."""
        remotes: list[dict[str, Any]] = []
        if self.key is not None and (hosts := self.hosts()):
            urls = [f"tls://{host}:{LEAFNODES_PORT}" for host in hosts]
            tls = {"ca_file": str(self.authority_file)}
            remotes = [leaf_remote(urls, nkey=self.key.seed, tls=tls)]
        config = {
            "server_name": leaf_name(self._settings.node),
            "listen": f"127.0.0.1:{self._settings.port}",
            "http": f"127.0.0.1:{self._settings.monitor_port}",
            **limits(),
            "leafnodes": {"reconnect": "500ms", "remotes": remotes},
            **leaf_accounts(self._settings.node, self._passwords),
        }
        return replace(self.config_file, render(config))

    def ask(self) -> IssuedKey:
        """Asks the servers of the hub in turn, from any one on. Raises OSError with what the last one said."""
        hosts = self.hosts()
        random.shuffle(hosts)
        context = ssl.create_default_context(cafile=str(self.authority_file))
        token = Path(self._settings.token_file).read_text().strip()
        said = "no server of the hub is known yet"
        for host in hosts:
            connection = http.client.HTTPSConnection(
                host.strip("[]"), IDENTITY_PORT, timeout=_ASK_TIMEOUT_S, context=context
            )
            try:
                connection.request("POST", PATH, headers={"Authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                body = answer.read(64 * 1024)
                if answer.status == 200:
                    return msgspec.json.decode(body, type=IssuedKey)
                said = f"{host} says {answer.status}: {body.decode(errors='replace').strip()}"
            except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
                said = f"{host}: {error}"
            finally:
                connection.close()
        raise OSError(said)

    def linked(self) -> bool:
        """Does our server have its link? Asked of its monitoring port."""
        connection = http.client.HTTPConnection("127.0.0.1", self._settings.monitor_port, timeout=2)
        try:
            connection.request("GET", "/leafz")
            return bool(msgspec.json.decode(connection.getresponse().read()).get("leafnodes"))
        except (OSError, http.client.HTTPException, msgspec.MsgspecError):
            return False
        finally:
            connection.close()


async def run(settings: LeafSettings) -> None:
    """Until it is cancelled or the server ends. Raises OSError then."""
    leaf = Leaf(settings, make_passwords(settings))
    leaf.write()
    server = await Server.start(leaf.config_file)
    ended = asyncio.create_task(server.ended())
    tasks: list[asyncio.Future[Any]] = [
        ended,
        asyncio.create_task(_renew(leaf)),
        asyncio.create_task(_keep(leaf, server)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await asyncio.gather(*(task for task in tasks if task.done()))
        raise OSError("nats-server ended by itself")
    finally:
        await end(tasks[1:])
        await server.stop(gently=False)
        await end(tasks)


async def _renew(leaf: Leaf) -> None:
    """Asks for a key now, in each epoch once, and when the link is away for long; for ever."""
    wait_s = _AGAIN_S
    while True:
        try:
            key = await asyncio.to_thread(leaf.ask)
            leaf.take(key)
        except (OSError, ValueError) as error:
            log.warning("no key for the link to the hub", error=str(error))
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, _AGAIN_MAX_S)
            continue
        log.info("key for the link to the hub", next_s=round(key.next_s))
        wait_s = _AGAIN_S
        # Not all nodes in the same second; the key is good for an epoch more.
        await _until_due(leaf, key.next_s + random.uniform(0.0, min(key.next_s / 4, 600.0)) + 0.1)


async def _until_due(leaf: Leaf, wait_s: float) -> None:
    due, unlinked_since = time.monotonic() + wait_s, 0.0
    while (now := time.monotonic()) < due:
        await asyncio.sleep(min(5.0, due - now))
        if await asyncio.to_thread(leaf.linked):
            unlinked_since = 0.0
        elif not unlinked_since:
            unlinked_since = now
        elif now - unlinked_since > _UNLINKED_S:
            return


async def _keep(leaf: Leaf, server: Server) -> None:
    """Puts what changed into force, for ever."""
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            if leaf.write():
                server.reload()
        except OSError as error:
            log.warning("the configuration could not be renewed", error=str(error))
