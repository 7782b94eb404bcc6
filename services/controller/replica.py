"""One replica of the controller: it stands by until it leads, and tells its status either way.

Owns leadership's begin and end. Must not know how a leader is elected, nor what it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog

from services.controller.app import App
from shared.bus import Bus
from shared.service import end, serve_status

log = structlog.get_logger()

Task = Callable[[], Awaitable[Any]]


class Election(Protocol):
    @property
    def leader(self) -> str:
        """The replica that leads, as far as is known."""
        ...

    @property
    def leads(self) -> bool:
        """Whether this replica may act now."""
        ...

    async def wait(self) -> None:
        """Returns when this replica leads."""
        ...

    async def keep(self) -> None:
        """Keeps leadership; returns when it is lost. Cancelled, it makes room for another one."""
        ...


class Alone:
    """There is no other replica."""

    def __init__(self, replica: str) -> None:
        self.leader = replica
        self.leads = True

    async def wait(self) -> None:
        return

    async def keep(self) -> None:
        await asyncio.Event().wait()


class Replica:
    """`others` are what a leader does beside the facts. A replica that lost leadership ends: a new process remembers nothing stale."""

    def __init__(
        self, bus: Bus, name: str, app: App, election: Election, others: tuple[Task, ...] = ()
    ) -> None:
        self._bus = bus
        self._name = name
        self._app = app
        self._election = election
        self._others = others

    def not_ready(self) -> str:
        if self._election.leads:
            return self._app.not_ready()
        return "" if self._bus.connection.connected else "the bus is away"

    async def run(self) -> None:
        """Returns when leadership is lost or the bus gave up. Raises what the work of a leader raises."""
        serving = await serve_status(
            self._bus,
            "controller",
            self._name,
            not_ready=self.not_ready,
            facts=self._facts,
            refused=self._app.refused,
        )
        try:
            await self._election.wait()
            log.info("leads", replica=self._name)
            await self._lead()
        finally:
            await serving.stop()

    async def _lead(self) -> None:
        keeping = asyncio.ensure_future(self._election.keep())
        working = [asyncio.ensure_future(one()) for one in (self._app.run, *self._others)]
        try:
            done, _ = await asyncio.wait([keeping, *working], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            log.warning("leads no longer", replica=self._name)
        finally:
            # what is being written ends before another one may lead
            await end(working)
            await end([keeping])

    def _facts(self) -> dict[str, str]:
        leads = self._election.leads
        about = {"leader": "true" if leads else "false", "leading": self._election.leader}
        return {**about, **self._app.facts()} if leads else about
