"""Events written to the API server: repetitions count up, each at most once a second, and a flood is cut.

Owns what is remembered of events already written. Must not know what an event is about.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import structlog

from services.controller.event import Notable, body_of
from services.controller.kube import KubeClient, KubeRefused

log = structlog.get_logger()

EVENT = "Event"
KEPT_MAX = 2000
"""Events that are remembered; beyond it the oldest are forgotten, and one that comes again begins anew."""
WRITE_INTERVAL_S = 1.0
CONFLICT = 409


class _Kept(msgspec.Struct):
    notable: Notable
    first_s: float
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
            self._kept[key] = _Kept(notable, time.time(), 1)
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
        seen = kept.seen
        body = body_of(kept.notable, self._reporter, seen, kept.first_s, time.time())
        try:
            await self._client.apply(f"/api/v1/namespaces/{namespace}/events/{name}", body)
        except KubeRefused as error:
            if error.status == CONFLICT:
                raise
            # a namespace that is being deleted takes none: nobody will read it
            log.info("an event is not written", object=f"{namespace}/{name}", error=str(error))
            kept.written = seen
            return 0.0
        kept.written = seen
        return WRITE_INTERVAL_S
