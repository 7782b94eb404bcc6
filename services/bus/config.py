"""What the NATS servers allow, generated from the table of subjects: accounts, users, permissions, limits of hub and leaves.

Owns these parts of a server's configuration. Must not know where a server listens, processes, files or how a password came to be.

At the hub each node's link ends in an account of its own. A stream acknowledges a publish to whatever subject the publisher named
for the answer, and no permission is asked (nats-server 2.15.1): in one account with the streams, a node that may publish a
release could have its acknowledgement stored in the lease log. From a node's account nothing leads anywhere but through the
imports and exports that are listed here.

A nats-server configuration may be written as JSON, so a configuration here is one dictionary and its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from shared.subjects import (
    HUB_IDENTITIES,
    LEAF_DENY,
    STREAMS,
    Permissions,
    leaf_link,
    node_identities,
    token,
)

ACCOUNT = "ORB"
SYSTEM_ACCOUNT = "SYS"
SYSTEM_USER = "sys"

MAX_PAYLOAD_BYTES = 1024 * 1024
MAX_CONTROL_LINE_BYTES = 8 * 1024
"""Longest subject plus reply: a node name of 253 bytes can take 759 as a token; the server's default is 4 KiB."""
PING_INTERVAL = "20s"
WRITE_DEADLINE = "5s"
"""A client that reads nothing for so long is cut off instead of holding everybody's messages in memory."""

LINKS_MAX = 4
"""Of one node at a time: a leaf that comes back may meet what is left of itself, and more is nobody's need."""
LINK_SUBSCRIPTIONS_MAX = 10_000

Config = dict[str, Any]


def link_user(node: str) -> str:
    """The hub's user for the leaf link of one node."""
    return f"leaf-{token(node)}"


def node_account(node: str) -> str:
    """The hub's account in which the link of one node ends."""
    return f"NODE-{token(node)}"


def leaf_name(node: str) -> str:
    """The leaf's server name, by which the hub lists its link."""
    return f"leaf-{token(node)}"


def password_login(node: str, password: str) -> Config:
    """A way for a node's link to log in: the node's user and its password."""
    return {"user": link_user(node), "password": password}


def key_login(public: str) -> Config:
    """A way for a node's link to log in: the private part of this NKey."""
    return {"nkey": public}


def hub_accounts(
    *,
    users: Mapping[str, str],
    system: str,
    links: Mapping[str, Sequence[Config]],
    heard: Collection[str] | None = None,
) -> Config:
    """The hub's accounts: passwords of its identities and of the system account's user, and for each node how its link may log in.
    `heard` are the nodes whose questions already reach the services, all if not given.

    No user may both be a client and open a leaf link: a link's permissions are judged for links only.
    """
    nodes = tuple(links)
    services = [
        _user({"user": identity, "password": users[identity]}, permissions, "STANDARD")
        for identity, permissions in HUB_IDENTITIES.items()
    ]
    system_user = {"user": SYSTEM_USER, "password": system, "allowed_connection_types": ["STANDARD"]}
    return {
        "accounts": {
            ACCOUNT: {
                "jetstream": "enabled",
                "users": services,
                **_services_side(nodes, nodes if heard is None else heard),
            },
            **{node_account(node): _node_side(node, logins) for node, logins in links.items()},
            SYSTEM_ACCOUNT: {"users": [system_user]},
        },
        "system_account": SYSTEM_ACCOUNT,
    }


def leaf_accounts(node: str, passwords: Mapping[str, str]) -> Config:
    """The account of a leaf with its local users."""
    users = [
        _user({"user": identity, "password": passwords[identity]}, permissions, "STANDARD")
        for identity, permissions in node_identities(node).items()
    ]
    return {"accounts": {ACCOUNT: {"users": users}}}


def leaf_remote(urls: Sequence[str], **login: Any) -> Config:
    """A leaf's link to the hub, which never carries the shim's subjects."""
    return {
        "urls": list(urls),
        "account": ACCOUNT,
        "deny_imports": list(LEAF_DENY),
        "deny_exports": list(LEAF_DENY),
        **login,
    }


def _services_side(nodes: Collection[str], heard: Collection[str]) -> Config:
    """What the account of the services takes from the nodes' accounts and gives to them; the mirror of `_node_side`."""
    allowed: dict[tuple[str, str], list[str]] = {}
    imports: list[Config] = []
    for node in nodes:
        account, link = node_account(node), leaf_link(node)
        for subject in link.subscribe:
            allowed.setdefault(("stream", subject), []).append(account)
        for subject in link.publish:
            if _is_stored(subject):
                allowed.setdefault(("service", subject), []).append(account)
            elif node in heard:
                imports.append({"stream": {"account": account, "subject": subject}})
    exports = [{kind: subject, "accounts": accounts} for (kind, subject), accounts in allowed.items()]
    return {"exports": exports, "imports": imports}


def _node_side(node: str, logins: Sequence[Config]) -> Config:
    """The account of one node's link. What a stream stores crosses as a service, so that the acknowledgement comes back into this
    account; all else as a stream, so that the leaf knows whether anybody listens and says "no responders" at once."""
    link = leaf_link(node)
    exports: list[Config] = []
    imports: list[Config] = [
        {"stream": {"account": ACCOUNT, "subject": subject}} for subject in link.subscribe
    ]
    for subject in link.publish:
        if _is_stored(subject):
            imports.append({"service": {"account": ACCOUNT, "subject": subject}})
        else:
            exports.append({"stream": subject, "accounts": [ACCOUNT]})
    return {
        "limits": {"max_leafnodes": LINKS_MAX, "max_subscriptions": LINK_SUBSCRIPTIONS_MAX},
        "users": [_user(login, link, "LEAFNODE") for login in logins],
        "exports": exports,
        "imports": imports,
    }


def _is_stored(subject: str) -> bool:
    """Does a stream take what is published on it?"""
    return any(_covers(pattern, subject) for spec in STREAMS for pattern in spec.subjects)


def _covers(pattern: str, subject: str) -> bool:
    wanted, found = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, found = wanted[:-1], found[: len(wanted) - 1]
    return len(wanted) == len(found) and all(w in ("*", f) for w, f in zip(wanted, found, strict=True))


def limits() -> Config:
    return {
        "max_payload": MAX_PAYLOAD_BYTES,
        "max_control_line": MAX_CONTROL_LINE_BYTES,
        "write_deadline": WRITE_DEADLINE,
        "ping_interval": PING_INTERVAL,
        "logtime_utc": True,
    }


def _user(login: Config, permissions: Permissions, connection_type: str) -> Config:
    allowed: Config = {
        "publish": {"allow": list(permissions.publish)},
        "subscribe": {"allow": list(permissions.subscribe)},
    }
    if permissions.responds_s > 0:
        allowed["allow_responses"] = {"max": 1, "expires": f"{permissions.responds_s:g}s"}
    return {
        **login,
        "permissions": allowed,
        "allowed_connection_types": [connection_type],
    }


def render(config: Config) -> str:
    # Not ASCII-escaped: nats-server's parser does not know JSON's \u.
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"
