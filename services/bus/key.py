"""What the hub answers to a node that asks for the key of its link.

Owns the two answers and where they are asked for. Must not know how a key comes to be.
"""

from __future__ import annotations

import msgspec

PATH = "/identity"
AUDIENCE = "orbweaver-hub"
"""What a token must be for, so that one for the API server is never sent to us, and ours opens nothing else."""


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """`seed` is the private key of `node` (an NKey). After `next_s` seconds there is another; this one is good for as long again."""

    node: str
    seed: str
    next_s: float


class Refused(msgspec.Struct, frozen=True):
    """Why no key is given, as a sentence."""

    reason: str
