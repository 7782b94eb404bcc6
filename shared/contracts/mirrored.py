"""What the objects of Kubernetes say that pods of some nodes have: asked by an allocator that rebuilds the index, of the controller, on
`orb.ask.mirrored`.

Owns the question and its pages. Must not know what is made of them.
"""

from __future__ import annotations

import msgspec

from shared.contracts.adopt import AdoptedAddress
from shared.contracts.codec import Codec
from shared.contracts.mark import Mirrored

ASK_MIRRORED_TIMEOUT_S = 10.0
"""A page is one request to the API server."""


class AskMirrored(msgspec.Struct, frozen=True, kw_only=True, tag="ask.mirrored.1"):
    """One page of the SpiderEndpoints; `after` is the `next_after` of the page before."""

    nodes: tuple[str, ...]
    after: str = ""


class MirroredPage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="mirrored.page.1"):
    """Of these nodes only. `through` says how far of the log all endpoints together tell, None where nobody knows; another page follows
    unless `next_after` is empty."""

    through: Mirrored | None = None
    addresses: tuple[AdoptedAddress, ...] = ()
    next_after: str = ""


ASK_MIRRORED: Codec[AskMirrored] = Codec(AskMirrored)
MIRRORED_PAGE: Codec[MirroredPage] = Codec(MirroredPage)
