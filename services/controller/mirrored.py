"""What SpiderEndpoints say that pods of some nodes have, for an allocator that rebuilds a lost index, and how far they tell it.

Owns the pages, and which word counts on how far they go: that of this process while it follows the log, else the one that was kept with
the mark. Must not know what is made of them.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from services.controller import inherited
from services.controller.kube import KubeClient, KubeError
from services.controller.reflector import LIST_LIMIT
from services.controller.watched import raw_items
from shared.bus import Message
from shared.contracts.codec import MessageError, encode
from shared.contracts.mark import LogMark, Mirrored
from shared.contracts.mirrored import ASK_MIRRORED, AskMirrored, MirroredPage
from shared.manifests.kinds import API_VERSION

log = structlog.get_logger()
PATH = f"/apis/{API_VERSION}/spiderendpoints"


def through(mark: LogMark | None, words: tuple[Mirrored | None, ...]) -> Mirrored | None:
    """The furthest word on the log that the mark names; None where there is none. Pure."""
    ours = [
        one for one in words if one is not None and mark is not None and one.incarnation == mark.incarnation
    ]
    return max(ours, key=lambda one: one.sequence, default=None)


class MirroredAnswers:
    """`known` tells how far the endpoints go, None where nobody knows."""

    def __init__(
        self, client: KubeClient, known: Callable[[], Mirrored | None], refused: Callable[[str], None]
    ) -> None:
        self._client = client
        self._known = known
        self._refused = refused

    async def on_ask(self, message: Message) -> bytes | None:
        """No answer where the API server gives none."""
        try:
            ask = ASK_MIRRORED.decode(message.data)
        except MessageError:
            self._refused("orb.ask.mirrored")
            return None
        try:
            return encode(await self._page(ask))
        except (KubeError, msgspec.MsgspecError) as error:
            log.warning("endpoints not read for the allocator", error=str(error))
            return None

    async def _page(self, ask: AskMirrored) -> MirroredPage:
        # before they are read: what is written meanwhile is more
        known = self._known()
        query = {"limit": str(LIST_LIMIT)} | ({"continue": ask.after} if ask.after else {})
        items, after = raw_items(await self._client.get(PATH, query))
        nodes = frozenset(ask.nodes)
        found = (one for raw in items for one in inherited.of_endpoint(raw) if one.node in nodes)
        return MirroredPage(through=known, addresses=tuple(found), next_after=after)
