"""The webhook at work: follows the facts, answers reviews, keeps its certificates fresh, tells how it is.

Owns the composition and its life. Must not know the rules. Every replica serves; none depends on a leader.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from services.webhook.certificate import LiveContext, ensure_certificates
from services.webhook.configuration import ALWAYS_SPARED, Wish
from services.webhook.http import SHUTDOWN_S, AdmissionApp, HttpsServer, address_of, listen
from services.webhook.keeper import Keeper
from services.webhook.kube import KubeClient
from services.webhook.lease import AllocatorLeases
from services.webhook.memory import FactMemory
from shared import subjects
from shared.admission.pod import INJECTION_KEYS
from shared.admission.view import Objects
from shared.bus import Bus, BusError, Follow, StreamMessage
from shared.contracts.codec import MessageError
from shared.contracts.facts import FACT, FactsSynced, FactsTerm
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
        self.on_wish: Callable[[], None] = lambda: None
        self._wish: Wish | None = None

    @property
    def objects(self) -> Objects:
        return self.memory.objects

    def _tell_wish(self) -> None:
        wish = self.wish()
        if wish != self._wish:
            self._wish = wish
            self.on_wish()

    def read(self) -> None:
        """Everything that was in the stream at the start is folded."""
        self.caught_up = True
        self._tell_wish()

    def wish(self) -> Wish | None:
        """What the webhook configurations depend on; None while the objects are not read."""
        if self.not_ready():
            return None
        injecting = [
            one.metadata.name
            for one in self.objects.namespaces()
            if any(key in one.metadata.annotations for key in INJECTION_KEYS)
        ]
        return Wish(settings=self.objects.settings, injecting=tuple(sorted(injecting)))

    def not_ready(self) -> str:
        if self.follow is not None and self.follow.failed is not None:
            return f"following the facts ended: {self.follow.failed}"
        if not self.caught_up or not self.memory.synced:
            return "the objects are not read yet"
        return ""

    async def take(self, message: StreamMessage) -> None:
        try:
            fact = FACT.decode(message.data)
            if isinstance(fact, FactsTerm):
                return
            self.memory.apply(fact, message.sequence)
            if isinstance(fact, FactsSynced) or fact.kind in ("ConfigMap", "Namespace"):
                self._tell_wish()
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
        self._keeper: Keeper | None = None
        self.address = ""

    def not_ready(self) -> str:
        if not self.address:
            return "HTTPS is not served yet"
        return self._view.not_ready()

    async def run(self) -> None:
        """Raises OSError or ValueError where address, certificates or the cluster's credentials cannot be used."""
        if self._settings.cluster is None:
            return await self._serve(None)
        kube = await KubeClient.open(self._settings.cluster.kubeconfig)
        try:
            return await self._serve(
                Keeper(
                    kube,
                    self._settings.cluster,
                    Path(self._settings.certificates),
                    self._settings.server_names,
                    self._view.wish,
                )
            )
        finally:
            await kube.close()

    async def _serve(self, keeper: Keeper | None) -> None:
        sock = listen(self._settings.https_address)
        live = LiveContext(
            await keeper.certificates()
            if keeper is not None
            else ensure_certificates(Path(self._settings.certificates), self._settings.server_names)
        )
        spared = frozenset(ALWAYS_SPARED)
        if self._settings.cluster is not None:
            spared |= {self._settings.cluster.namespace}
        app = AdmissionApp(self._view, AllocatorLeases(self._bus), self._telemetry, self._metrics, spared)
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
            asyncio.ensure_future(self._refresh_certificates(live, keeper)),
        ]
        if keeper is not None:
            self._keeper = keeper
            self._view.on_wish = keeper.look
            works.append(asyncio.ensure_future(keeper.run()))
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
        self._view.read()
        log.info("facts read", objects=len(self._view.objects), facts_sequence=self._view.memory.sequence)

    async def _refresh_certificates(self, live: LiveContext, keeper: Keeper | None) -> None:
        """Renews what ends soon and takes up what changed, without a restart (a mismatch after an upgrade blocks every pod)."""
        while True:
            await asyncio.sleep(CERTIFICATE_POLL_S)
            try:
                if keeper is None:
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
            **({"configurations": self._keeper.problem or "true"} if self._keeper is not None else {}),
        }
