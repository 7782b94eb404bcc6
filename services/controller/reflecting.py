"""One list of the API server, kept: the shell that asks what a Reflector wants to know, for ever.

Owns the requests, the pauses and their lot. Must not know the protocol's rules or what becomes of a change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec
import structlog

from services.controller.kube import KubeClient, KubeError, KubeRefused
from services.controller.reflector import Change, List, Reflector, Step, Watch
from services.controller.watched import Notice, Watched, notice_of, page_of

log = structlog.get_logger()

WATCH_S = 300.0
"""A watch lasts between this and twice as long, so that not all are renewed at once."""
RELIST_S = 3600.0
"""Between this and twice as long everything is listed anew, in case an event was lost."""
SERVED_S = 1.0
"""A watch that the server ends sooner than this is a failure."""
FORBIDDEN, NOT_FOUND, GONE = 403, 404, 410


class Reflecting:
    """`failing` says why there is no answer now, empty while there is one."""

    def __init__(
        self,
        client: KubeClient,
        watched: Watched,
        reflector: Reflector,
        take: Callable[[Watched, Iterable[Change]], None],
        dice: Callable[[], float],
    ) -> None:
        """`take` gets the changes of each answer, in order; `dice` answers a number in [0, 1)."""
        self.watched = watched
        self.reflector = reflector
        self.failing = ""
        self._client = client
        self._take = take
        self._dice = dice
        self._listed_at_s = 0.0
        self._relist_after_s = RELIST_S
        self._asking: asyncio.Future[List | Watch] | None = None
        self._anew = False

    async def run(self) -> None:
        """For ever."""
        request: List | Watch = self.reflector.start()
        while True:
            self._asking = asyncio.ensure_future(self._ask(request))
            try:
                request = await self._asking
            except asyncio.CancelledError:
                if not self._anew:
                    raise
                self._anew = False
                request = self.reflector.relist()

    def relist(self) -> None:
        """Everything is asked for again, now: what was heard may be of a store that is no more."""
        if self._asking is not None and not self._asking.done():
            self._anew = True
            self._asking.cancel()

    async def _ask(self, request: List | Watch) -> List | Watch:
        """One request and what follows from its answer."""
        if request.after_s:
            await asyncio.sleep(request.after_s)
        try:
            if isinstance(request, Watch):
                return await self._watch(request)
            then = await self._list(request)
            self._answered()
            return then
        except KubeRefused as error:
            return self._refused(error)
        except (KubeError, msgspec.MsgspecError) as error:
            self._failed(str(error))
            return self.reflector.failed(self._dice())

    def _refused(self, error: KubeRefused) -> List | Watch:
        if error.status == GONE:
            return self._expired(str(error))
        nowhere = error.status == NOT_FOUND or (error.status == FORBIDDEN and not self.watched.facts)
        if nowhere and self.watched.optional:
            self._answered()
            return self._step(self.reflector.absent())
        self._failed(str(error))
        return self.reflector.failed(self._dice())

    def _expired(self, reason: str) -> List:
        log.info("listed anew", kind=self.watched.kind, reason=reason)
        return self.reflector.expired(self._dice())

    async def _list(self, request: List) -> List | Watch:
        query = dict(self.watched.query)
        if request.limit:
            query["limit"] = str(request.limit)
        if request.continued:
            query["continue"] = request.continued
        body = await self._client.get(self.watched.collection, query)
        step = self.reflector.page(page_of(self.watched, body))
        if isinstance(step.then, Watch):
            self._listed_at_s = time.monotonic()
            self._relist_after_s = RELIST_S * (1 + self._dice())
        elif step.then.after_s:
            log.warning(
                "a list lacks so much that it is asked for again before anything is taken away",
                kind=self.watched.kind,
                held=len(self.reflector.items),
            )
        return self._step(step)

    async def _watch(self, request: Watch) -> List | Watch:
        began_s = time.monotonic()
        if began_s - self._listed_at_s > self._relist_after_s:
            return self.reflector.relist()
        query = {**self.watched.query, "resourceVersion": request.resource_version}
        lines = self._client.watch(self.watched.collection, query, WATCH_S * (1 + self._dice()))
        try:
            async for line in lines:
                if not line:
                    # Nothing may happen for hours: that the server took the watch up is an answer.
                    self._answered()
                    continue
                notice = notice_of(self.watched, line)
                if notice.type == "ERROR":
                    if notice.code == GONE:
                        return self._expired("the version to go on from is forgotten")
                    self._failed(f"the watch ended with code {notice.code}")
                    return self.reflector.failed(self._dice())
                self._answered()
                changes = self._changes(notice)
                if changes:
                    self._take(self.watched, changes)
        finally:
            await lines.aclose()
        served = time.monotonic() - began_s >= SERVED_S
        return self.reflector.ended(served, self._dice())

    def _changes(self, notice: Notice) -> list[Change]:
        if notice.type == "BOOKMARK":
            self.reflector.bookmark(notice.resource_version)
            return []
        if notice.item is not None:
            return self.reflector.put(notice.name, notice.item)
        return self.reflector.deleted(notice.name, notice.uid, int(notice.resource_version))

    def _step(self, step: Step) -> List | Watch:
        if step.changes:
            self._take(self.watched, step.changes)
        return step.then

    def _answered(self) -> None:
        if self.failing:
            log.info("the API server answers again", kind=self.watched.kind)
        self.failing = ""

    def _failed(self, reason: str) -> None:
        if not self.failing:
            log.warning("the API server does not answer", kind=self.watched.kind, reason=reason)
        self.failing = reason
