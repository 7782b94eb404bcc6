"""The identity of a node at the hub: one key pair a node and epoch, derived, so that no server keeps or exchanges any.

Owns the derivation, the form of the keys (NKeys), the epochs that count, and what a TokenReview must say before a node gets its key.
Must not know a clock, the API server, or where the secret lies.

Who has the hub's secret can make every node's key: the servers of the hub, which admit nodes anyway. A key counts in the epoch it was
given in and in the next, and one epoch early, for the clocks of servers that are apart.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.bus.key import AUDIENCE, Refused

_SEED, _USER = 18 << 3, 20 << 3
"""Type bytes of NKeys (nats-io/nkeys, `nkeys.go`)."""
_NODE_NAME = "authentication.kubernetes.io/node-name"
"""Kubernetes ≥ 1.32 puts it into each token that is bound to a pod (KEP-4193)."""


class NodeKey(msgspec.Struct, frozen=True, kw_only=True):
    """`seed` is the private part. Both are NKeys of a user."""

    seed: str
    public: str


def epoch_at(unix_s: float, epoch_s: float) -> int:
    return int(unix_s // epoch_s)


def epochs_that_count(epoch: int) -> tuple[int, ...]:
    """Of which epochs keys are taken while `epoch` is now."""
    return (epoch - 1, epoch, epoch + 1)


def node_key(secret: bytes, node: str, epoch: int) -> NodeKey:
    """The key of a node in one epoch; HMAC-SHA-256 as the derivation (RFC 5869 §2.3 with one block)."""
    raw = hmac.digest(
        secret, b"orbweaver node link\0" + node.encode() + b"\0" + str(epoch).encode(), "sha256"
    )
    public = (
        Ed25519PrivateKey.from_private_bytes(raw).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    )
    seed = bytes([_SEED | _USER >> 5, (_USER & 31) << 3]) + raw
    return NodeKey(seed=_text(seed), public=_text(bytes([_USER]) + public))


def reviewed_node(review: Any, *, agent: str) -> str | Refused:
    """The node that a token is bound to, by what the API server says of it (the body of a TokenReview).

    `agent` is the user name of the agents' service account. Only a token for our audience that a pod of theirs holds counts.
    """
    status = _object(_object(review).get("status"))
    if status.get("authenticated") is not True:
        return Refused(f"the token is not valid: {status.get('error') or 'the API server does not know it'}")
    if AUDIENCE not in _texts(status.get("audiences")):
        return Refused(f"the token is not for audience {AUDIENCE}")
    user = _object(status.get("user"))
    if user.get("username") != agent:
        return Refused(f"the token is that of {user.get('username')!r}, not of {agent}")
    nodes = _texts(_object(user.get("extra")).get(_NODE_NAME))
    if len(nodes) != 1 or not nodes[0]:
        return Refused(
            "the token is bound to no node: it needs a pod's projected token and Kubernetes 1.32 or later"
        )
    return nodes[0]


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _texts(value: Any) -> Sequence[str]:
    return (
        [one for one in cast("list[Any]", value) if isinstance(one, str)] if isinstance(value, list) else []
    )


def _text(raw: bytes) -> str:
    checksum = _crc16(raw).to_bytes(2, "little")
    return base64.b32encode(raw + checksum).decode().rstrip("=")


def _crc16(raw: bytes) -> int:
    """CRC-16/XMODEM, as NKeys have it."""
    crc = 0
    for byte in raw:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021) & 0xFFFF if crc & 0x8000 else crc << 1 & 0xFFFF
    return crc
