"""The RDMA service of one node: what the node has, published when it changes, and the answer to "how are you?".

Owns when the inventory is published. Must not know how devices are found; claims and counters come later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog

from services.rdma.devices import Devices
from shared import subjects
from shared.bus import Bus, BusDenied, BusError
from shared.contracts.codec import encode
from shared.contracts.inventory import RdmaInventory
from shared.service import serve_status
from shared.settings import RdmaSettings
from shared.telemetry import Telemetry
from shared.telemetry.metrics import RdmaMetrics

log = structlog.get_logger()

RETRY_S = 0.5


class App:
    def __init__(
        self,
        settings: RdmaSettings,
        bus: Bus,
        devices: Devices,
        read_netns_mode: Callable[[], str],
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._devices = devices
        self._read_netns_mode = read_netns_mode
        self._inventory = RdmaInventory(node=settings.node, at_ns=0, netns_mode="", devices=())
        self._published = False
        self._reconnected = asyncio.Event()
        self._metrics = RdmaMetrics(telemetry.meter, devices=lambda: len(self._inventory.devices))

    def not_ready(self) -> str:
        return "" if self._published else "the inventory is not published yet"

    async def run(self) -> None:
        """Serves for ever, or until the bus gives up. Raises BusDenied for what no retry mends."""
        serving = await serve_status(
            self._bus,
            "rdma",
            self._settings.node,
            not_ready=self.not_ready,
            facts=self._facts,
            refused=self._metrics.refused,
        )
        self._bus.connection.on_reconnect(self._reconnected.set)
        closed = asyncio.ensure_future(self._bus.closed.wait())
        try:
            while not closed.done():
                wait_s = await self._look()
                reconnected = asyncio.ensure_future(self._reconnected.wait())
                await asyncio.wait({closed, reconnected}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                if reconnected.done():
                    # the stream is not fsynced: it may have come back without us
                    self._reconnected.clear()
                    self._published = False
                reconnected.cancel()
        finally:
            closed.cancel()
            await serving.stop()

    async def _look(self) -> float:
        """Reads, publishes what is new, and tells after how many seconds to look again."""
        found = RdmaInventory(
            node=self._settings.node,
            at_ns=time.time_ns(),
            netns_mode=await asyncio.to_thread(self._read_netns_mode),
            devices=await asyncio.to_thread(self._devices.read),
        )
        if self._published and msgspec.structs.replace(found, at_ns=self._inventory.at_ns) == self._inventory:
            return self._settings.interval_s
        self._inventory = found
        try:
            await self._bus.append(subjects.inventory(self._settings.node), encode(found))
        except BusDenied:
            raise
        except BusError as error:
            self._published = False
            log.info("the inventory waits for the bus", error=str(error))
            return RETRY_S
        self._published = True
        log.info("inventory published", devices=len(found.devices), netns_mode=found.netns_mode)
        return self._settings.interval_s

    def _facts(self) -> dict[str, str]:
        return {
            "devices": str(len(self._inventory.devices)),
            "netns_mode": self._inventory.netns_mode or "none",
        }
