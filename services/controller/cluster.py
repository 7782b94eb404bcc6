"""The Kubernetes API as the source of objects: every kind that we need is reflected, and an object that is asked for is read through.

Owns the reflectors' life and the look-up of one object. Must not know the bus, nor what is written back. The API server and our
webhook have judged what is there, so nothing is judged again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from services.controller.kube import KubeClient, KubeError, KubeRefused
from services.controller.reflecting import NOT_FOUND, Reflecting
from services.controller.reflector import Change
from services.controller.told import InForce, Told
from services.controller.watched import Watched, item_of
from shared.contracts.facts import Fact, SourceProblem
from shared.manifests.document import ObjectKey

log = structlog.get_logger()

GATHER_S = 0.005
"""Changes that come together are published together."""


class ClusterSource:
    """An ObjectSource. `told` is what is held; those who write back listen to it."""

    def __init__(
        self, client: KubeClient, table: Iterable[Watched], dice: Callable[[], float], first_version: int
    ) -> None:
        self.told = Told(table, first_version)
        self._client = client
        self._reflecting = [
            Reflecting(client, watched, reflector, self._take, dice)
            for watched, reflector in self.told.lists.values()
        ]
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Keeps every list, for ever."""
        async with asyncio.TaskGroup() as group:
            for one in self._reflecting:
                group.create_task(one.run())

    def resume(self, facts: Iterable[Fact]) -> None:
        self.told.resume(facts)

    def missing_from(self, facts: Iterable[Fact]) -> list[Fact]:
        return self.told.missing_from(facts)

    async def refresh(self, *, again: bool = False) -> list[Fact]:
        self._news.clear()
        return self.told.fresh()

    def relist(self) -> None:
        """Asks for everything again: the API server's store may have been put back to an earlier state."""
        log.warning("the API server has forgotten a write of ours: everything is listed anew")
        for one in self._reflecting:
            one.relist()

    def wake(self) -> None:
        """Ends a wait for news."""
        self._news.set()

    async def news(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
                await asyncio.sleep(GATHER_S)

    async def look_up(self, key: ObjectKey) -> bool:
        name = (key.namespace, key.name)
        row = self.told.row(key.kind, name)
        if row is None or not row[0].facts:
            return True
        watched, reflector = row
        try:
            found = item_of(watched, await self._client.get(watched.path_of(name)))
        except KubeRefused as error:
            if error.status != NOT_FOUND:
                log.warning("an object cannot be read through", object=str(key), error=str(error))
                return False
            found = None
        except KubeError as error:
            log.info("an object cannot be read through now", object=str(key), error=str(error))
            return False
        self._take(watched, reflector.looked_up(name, found[1] if found is not None else None))
        return True

    @property
    def complete(self) -> bool:
        return self.told.synced

    @property
    def trouble(self) -> str:
        for one in self._reflecting:
            if one.failing:
                return f"{one.watched.kind}: {one.failing}"
        waiting = [one.watched.key for one in self._reflecting if not one.reflector.synced]
        return f"not listed yet: {', '.join(waiting)}" if waiting else ""

    @property
    def collecting(self) -> bool:
        return False

    async def collect(self, facts_sequence: int) -> list[Fact]:
        return []

    def next_version(self) -> int:
        return self.told.next_version()

    @property
    def in_force(self) -> Mapping[ObjectKey, InForce]:
        return self.told

    def keys(self, kind: str) -> Iterable[ObjectKey]:
        return [ObjectKey(kind, *name) for name, item in self.told.held(kind) if item.version]

    @property
    def problems(self) -> tuple[SourceProblem, ...]:
        return tuple(
            SourceProblem(
                file="",
                line=0,
                object=str(key),
                field="",
                message="the object is too large, or its name too long, to be told on the bus; it is not in force",
            )
            for key in sorted(self.told.too_large)
        )

    @property
    def warnings(self) -> tuple[SourceProblem, ...]:
        return ()

    @property
    def files(self) -> int:
        return 0

    def held(self) -> dict[str, int]:
        """Objects by kind."""
        out: dict[str, int] = {}
        for watched, reflector in self.told.lists.values():
            out[watched.kind] = out.get(watched.kind, 0) + len(reflector.items)
        return out

    def relists(self) -> dict[str, int]:
        return {watched.key: reflector.relists for watched, reflector in self.told.lists.values()}

    def failing(self) -> dict[str, int]:
        return {one.watched.key: int(bool(one.failing)) for one in self._reflecting}

    def _take(self, watched: Watched, changes: Iterable[Change]) -> None:
        self.told.take(watched, changes)
        self._news.set()


def first_version() -> int:
    """Above any version that was given before: milliseconds, of which no source has a change in each for long."""
    return time.time_ns() // 1_000_000
