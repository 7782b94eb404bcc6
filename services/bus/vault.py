"""What the servers of the hub share: secrets that the first of them makes, and where each is.

Owns the objects of Kubernetes in which both lie; the manifests make them empty. Must not know what a secret is used for.
Blocks: call it in a thread.
"""

from __future__ import annotations

import base64
import secrets
import time
from typing import Any

import msgspec

from services.bus.api import Api, ApiRefused
from services.bus.certificate import KeyPair, new_authority, now
from services.bus.settings import AUTHORITY_FILE, BUS_CONFIG_MAP, CLIENT_PORT, PEER_PREFIX, HubSettings
from shared.subjects import HUB_IDENTITIES

HUB_SECRET = "orbweaver-hub"
_STATE = "state"
_WAIT_S = 1.0


class HubState(msgspec.Struct, frozen=True, kw_only=True):
    """`identity` is what the keys of nodes are derived from (hex); the others are passwords and the authority of the bus."""

    identity: str
    system: str
    routes: str
    users: dict[str, str]
    authority: KeyPair


def identity_secret(identity: str) -> str:
    """The Secret with the password of one identity of the hub."""
    return f"orbweaver-bus-{identity}"


def complete(known: HubState | None) -> HubState:
    """The known secrets, and new ones for what has none yet."""
    users = {} if known is None else known.users
    return HubState(
        identity=known.identity if known else secrets.token_hex(32),
        system=known.system if known else secrets.token_urlsafe(32),
        routes=known.routes if known else secrets.token_urlsafe(32),
        users={identity: users.get(identity) or secrets.token_urlsafe(32) for identity in HUB_IDENTITIES},
        authority=known.authority if known else new_authority(now()),
    )


class Vault:
    """The objects of one installation. What it calls raises ApiRefused or OSError."""

    def __init__(self, api: Api, settings: HubSettings) -> None:
        self._api = api
        self._settings = settings
        self._namespace = settings.namespace

    def open(self) -> HubState:
        """The secrets of the hub; made by whichever server comes first, and told to the services."""
        state = self._state()
        for identity, password in state.users.items():
            told = {"password": password}
            if identity == "allocator":
                told["system-password"] = state.system
            self._tell(identity, told)
        return state

    def _state(self) -> HubState:
        while True:
            found = self._api.read(self._namespace, "secrets", HUB_SECRET)
            raw = _decoded(found).get(_STATE)
            known = None if raw is None else msgspec.json.decode(raw, type=HubState)
            state = complete(known)
            if state == known:
                return state
            try:
                self._api.patch(
                    self._namespace,
                    "secrets",
                    HUB_SECRET,
                    {
                        "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
                        "data": {_STATE: base64.b64encode(msgspec.json.encode(state)).decode()},
                    },
                )
            except ApiRefused as error:
                if error.status != 409:
                    raise

    def _tell(self, identity: str, told: dict[str, str]) -> None:
        name = identity_secret(identity)
        found = _decoded(self._api.read(self._namespace, "secrets", name))
        if {key: value.decode() for key, value in found.items()} != told:
            encoded = {key: base64.b64encode(value.encode()).decode() for key, value in told.items()}
            self._api.patch(self._namespace, "secrets", name, {"data": encoded})

    def register(self) -> None:
        """Tells where this server is."""
        self._say(
            {f"{PEER_PREFIX}{self._settings.name}": f"tls://{_host(self._settings.address)}:{CLIENT_PORT}"}
        )

    def tell_authority(self, state: HubState) -> None:
        """Tells everybody by which authority to know the hub. Pods of ours start when it is told (deploy/base), so it is told last: they
        would otherwise begin with some of the servers, and anew with all."""
        self._say({AUTHORITY_FILE: state.authority.certificate})

    def _say(self, own: dict[str, str]) -> None:
        found = self._told()
        if any(found.get(key) != value for key, value in own.items()):
            self._api.patch(self._namespace, "configmaps", BUS_CONFIG_MAP, {"data": own})

    def await_peers(self) -> dict[str, str]:
        """The URLs of all servers of the hub by name, when all have told theirs: a cluster of JetStream begins with all of them."""
        while True:
            peers = peers_of(self._told(), self._settings)
            if len(peers) == self._settings.servers:
                return peers
            time.sleep(_WAIT_S)

    def _told(self) -> dict[str, str]:
        return self._api.read(self._namespace, "configmaps", BUS_CONFIG_MAP).get("data") or {}


def peers_of(told: dict[str, str], settings: HubSettings) -> dict[str, str]:
    """Which of the addresses are those of servers that there are: a hub that was larger has left some."""
    base = settings.name.rpartition("-")[0]
    names = [f"{base}-{number}" for number in range(settings.servers)]
    return {name: url for name in names if (url := told.get(f"{PEER_PREFIX}{name}"))}


def _decoded(secret: dict[str, Any]) -> dict[str, bytes]:
    encoded: dict[str, str] = secret.get("data") or {}
    return {key: base64.b64decode(value) for key, value in encoded.items()}


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
