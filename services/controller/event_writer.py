"""Events written to the API server: repetitions count up, each at most once a second, and a flood is cut.

Owns what is remembered of events already written. Must not know what an event is about.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import structlog

from services.controller.event import Notable, again, body_of
from services.controller.kube import KubeClient, KubeRefused

log = structlog.get_logger()

EVENT = "Event"
KEPT_MAX = 2000
"""Events that are remembered; beyond it the oldest are forgotten, and one that comes again begins anew."""
WRITE_INTERVAL_S = 1.0
NOT_FOUND, CONFLICT = 404, 409


class _Kept(msgspec.Struct):
    notable: Notable
    seen: int
    written: int = 0


class EventWriter:
    def __init__(
        self, client: KubeClient, reporter: str, look_again: Callable[[str, str, str], None]
    ) -> None:
        self._client = client
        self._reporter = reporter
        self._look_again = look_again
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    def note(self, notable: Notable) -> None:
        """It happened, once more if it is the same as before."""
        key = (notable.namespace, notable.name)
        kept = self._kept.get(key)
        if kept is None:
            self._kept[key] = _Kept(notable, 1)
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        else:
            kept.seen += 1
            self._kept.move_to_end(key)
        self._look_again(EVENT, *key)

    async def bring(self, namespace: str, name: str) -> float:
        kept = self._kept.get((namespace, name))
        if kept is None or kept.written == kept.seen:
            return 0.0
        collection, seen = f"/api/v1/namespaces/{namespace}/events", kept.seen
        try:
            if kept.written:
                await self._client.merge(f"{collection}/{name}", again(seen, time.time()))
            else:
                await self._client.create(collection, body_of(kept.notable, self._reporter, time.time()))
        except KubeRefused as error:
            if error.status == CONFLICT:  # a replica before us wrote it
                await self._client.merge(f"{collection}/{name}", again(seen, time.time()))
            elif error.status == NOT_FOUND and kept.written:  # events are kept for an hour
                kept.written, kept.seen = 0, 1
                self._look_again(EVENT, namespace, name)
                return 0.0
            else:
                # a namespace that is being deleted takes none: nobody will read it
                log.info("an event is not written", object=f"{namespace}/{name}", error=str(error))
                kept.written = seen
                return 0.0
        kept.written = seen
        return WRITE_INTERVAL_S
