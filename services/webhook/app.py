"""The webhook at work: follows the facts, answers reviews, keeps its certificates fresh, tells how it is.

Owns the composition and its life. Must not know the rules. Every replica serves; none depends on a leader.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import structlog

from services.webhook.certificate import LiveContext, ensure_certificates
from services.webhook.http import SHUTDOWN_S, AdmissionApp, HttpsServer, address_of, listen
from services.webhook.lease import AllocatorLeases
from services.webhook.memory import FactMemory
from shared import subjects
from shared.admission.view import Objects
from shared.bus import Bus, BusError, Follow, StreamMessage
from shared.contracts.codec import MessageError
from shared.contracts.facts import FACT
from shared.service import end, serve_status
from shared.settings import WebhookSettings
from shared.telemetry import Telemetry
from shared.telemetry.metrics import WebhookMetrics

log = structlog.get_logger()

CERTIFICATE_POLL_S = 1.0
FACTS_RETRY_S = 0.5
_CANNOT = (OSError, ValueError, ssl.SSLError)


class FactView:
    """The memory behind a stream; ready once a full list was seen and everything that was in the stream at the start."""

    def __init__(self, metrics: WebhookMetrics) -> None:
        self._metrics = metrics
        self.memory = FactMemory()
        self.follow: Follow | None = None
        self.caught_up = False

    @property
    def objects(self) -> Objects:
        return self.memory.objects

    def not_ready(self) -> str:
        if self.follow is not None and self.follow.failed is not None:
            return f"following the facts ended: {self.follow.failed}"
        if not self.caught_up or not self.memory.synced:
            return "the objects are not read yet"
        return ""

    async def take(self, message: StreamMessage) -> None:
        try:
            self.memory.apply(FACT.decode(message.data), message.sequence)
        except (MessageError, ValueError) as error:
            self._metrics.refused("orb.facts")
            log.warning("a fact that is none", subject=message.subject, error=str(error))


class App:
    """`run` serves until it is cancelled or the bus gives up."""

    def __init__(self, settings: WebhookSettings, bus: Bus, telemetry: Telemetry) -> None:
        self._settings = settings
        self._bus = bus
        self._telemetry = telemetry
        self._metrics = WebhookMetrics(telemetry.meter)
        self._view = FactView(self._metrics)
        self.address = ""

    def not_ready(self) -> str:
        if not self.address:
            return "HTTPS is not served yet"
        return self._view.not_ready()

    async def run(self) -> None:
        """Raises OSError or ValueError where address or certificates cannot be used."""
        live = LiveContext(
            ensure_certificates(Path(self._settings.certificates), self._settings.server_names)
        )
        sock = listen(self._settings.https_address)
        app = AdmissionApp(self._view, AllocatorLeases(self._bus), self._telemetry, self._metrics)
        server = HttpsServer(app.asgi, live.context)
        status = await serve_status(
            self._bus,
            "webhook",
            self._settings.replica,
            not_ready=self.not_ready,
            facts=self._facts,
            refused=self._metrics.refused,
        )
        ends: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._bus.closed.wait()),
            asyncio.ensure_future(server.serve(sockets=[sock])),
        ]
        works: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._follow_facts()),
            asyncio.ensure_future(self._refresh_certificates(live)),
        ]
        self.address = address_of(sock)
        log.info("serving", https=self.address)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.should_exit = True
            await asyncio.wait(ends[1:], timeout=SHUTDOWN_S + 1)
            await end([*ends, *works])
            if self._view.follow is not None:
                await self._view.follow.stop()
            await status.stop()
            sock.close()

    async def _follow_facts(self) -> None:
        """Follows the stream once it is there; the consumer renews itself from then on."""
        while True:
            try:
                self._view.follow = await self._bus.follow(
                    subjects.FACTS.name, self._view.take, last_per_subject=True
                )
                break
            except BusError as error:
                log.warning("the facts cannot be followed yet", error=str(error))
                await asyncio.sleep(FACTS_RETRY_S)
        await self._view.follow.caught_up()
        self._view.caught_up = True
        log.info("facts read", objects=len(self._view.objects), facts_sequence=self._view.memory.sequence)

    async def _refresh_certificates(self, live: LiveContext) -> None:
        """Renews what ends soon and takes up what changed, without a restart (a mismatch after an upgrade blocks every pod)."""
        while True:
            await asyncio.sleep(CERTIFICATE_POLL_S)
            try:
                ensure_certificates(Path(self._settings.certificates), self._settings.server_names)
                if live.refresh():
                    log.info("certificates reloaded")
            except _CANNOT as error:
                log.warning("certificates not reloaded, the former stay in use", error=str(error))

    def _facts(self) -> dict[str, str]:
        return {
            "https": self.address,
            "ca": str(Path(self._settings.certificates) / "ca.crt"),
            "objects": str(len(self._view.objects)),
            "facts_sequence": str(self._view.memory.sequence),
        }
