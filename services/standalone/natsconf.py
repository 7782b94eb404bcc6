"""The configurations of the NATS servers of a standalone system, generated from the table of subjects.

Owns what the hub and the leaves allow. Must not know processes, files or how a password came to be.

A nats-server configuration may be written as JSON, so a configuration here is one dictionary and its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from services.standalone.system import LOOPBACK, Credentials, NodeCredentials
from shared.subjects import HUB_IDENTITIES, LEAF_DENY, Permissions, leaf_link, node_identities, token

ACCOUNT = "ORB"
SYSTEM_ACCOUNT = "SYS"
SYSTEM_USER = "sys"

MAX_PAYLOAD_BYTES = 1024 * 1024
MAX_CONTROL_LINE_BYTES = 8 * 1024
"""Longest subject plus reply: a node name of 253 bytes can take 759 as a token; the server's default is 4 KiB."""
PING_INTERVAL = "20s"
WRITE_DEADLINE = "5s"
"""A client that reads nothing for so long is cut off instead of holding everybody's messages in memory."""

Config = dict[str, Any]


def link_user(node: str) -> str:
    """The hub's user for the leaf link of one node."""
    return f"leaf-{token(node)}"


def hub_name() -> str:
    return "hub"


def leaf_name(node: str) -> str:
    """The leaf's server name, by which the hub lists its link."""
    return f"leaf-{token(node)}"


def hub_config(
    *, client_port: int, leafnodes_port: int, store: str, credentials: Credentials, nodes: tuple[str, ...]
) -> str:
    """The hub: JetStream with fsync before every acknowledgement, one user an identity and one a node's leaf link.

    No user may both be a client and open a leaf link: a link's permissions are judged for links only.
    """
    users = [
        _user(identity, credentials.hub[identity], permissions, "STANDARD")
        for identity, permissions in HUB_IDENTITIES.items()
    ] + [_user(link_user(node), credentials.nodes[node].link, leaf_link(node), "LEAFNODE") for node in nodes]
    return _render(
        {
            "server_name": hub_name(),
            "listen": f"{LOOPBACK}:{client_port}",
            **_limits(),
            "jetstream": {"store_dir": store, "sync_interval": "always"},
            "leafnodes": {"listen": f"{LOOPBACK}:{leafnodes_port}"},
            "accounts": {
                ACCOUNT: {"jetstream": "enabled", "users": users},
                SYSTEM_ACCOUNT: {
                    "users": [
                        {
                            "user": SYSTEM_USER,
                            "password": credentials.system,
                            "allowed_connection_types": ["STANDARD"],
                        }
                    ]
                },
            },
            "system_account": SYSTEM_ACCOUNT,
        }
    )


def leaf_config(*, node: str, client_port: int, hub_leafnodes_port: int, credentials: NodeCredentials) -> str:
    """One node's leaf: its local users, and the link to the hub that never carries the shim's subjects."""
    passwords: Mapping[str, str] = {
        "agent": credentials.agent,
        "rdma": credentials.rdma,
        "shim": credentials.shim,
    }
    users = [
        _user(identity, passwords[identity], permissions, "STANDARD")
        for identity, permissions in node_identities(node).items()
    ]
    login = f"{quote(link_user(node), safe='')}:{quote(credentials.link, safe='')}"
    return _render(
        {
            "server_name": leaf_name(node),
            "listen": f"{LOOPBACK}:{client_port}",
            **_limits(),
            "leafnodes": {
                "reconnect": "200ms",
                "remotes": [
                    {
                        "urls": [f"nats://{login}@{LOOPBACK}:{hub_leafnodes_port}"],
                        "account": ACCOUNT,
                        "deny_imports": list(LEAF_DENY),
                        "deny_exports": list(LEAF_DENY),
                    }
                ],
            },
            "accounts": {ACCOUNT: {"users": users}},
        }
    )


def _limits() -> Config:
    return {
        "max_payload": MAX_PAYLOAD_BYTES,
        "max_control_line": MAX_CONTROL_LINE_BYTES,
        "write_deadline": WRITE_DEADLINE,
        "ping_interval": PING_INTERVAL,
        "logtime_utc": True,
    }


def _user(name: str, password: str, permissions: Permissions, connection_type: str) -> Config:
    allowed: Config = {
        "publish": {"allow": list(permissions.publish)},
        "subscribe": {"allow": list(permissions.subscribe)},
    }
    if permissions.responds_s > 0:
        allowed["allow_responses"] = {"max": 1, "expires": f"{permissions.responds_s:g}s"}
    return {
        "user": name,
        "password": password,
        "permissions": allowed,
        "allowed_connection_types": [connection_type],
    }


def _render(config: Config) -> str:
    # Not ASCII-escaped: nats-server's parser does not know JSON's \u.
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"
