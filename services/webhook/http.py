"""The HTTPS face: AdmissionReviews on their paths, health, and a server whose certificates can change while it serves.

Owns status codes and limits of HTTP. Must not know any rule: review.py answers.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Generator
from typing import Any, Protocol

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from services.webhook import review
from services.webhook.lease import Leases, LeasesUnknownError
from services.webhook.memory import FactMemory
from shared.admission.rules import asks_leases
from shared.telemetry import ActiveSpan, Telemetry, extract, inject
from shared.telemetry.context import TRACEPARENT
from shared.telemetry.metrics import WebhookMetrics

log = structlog.get_logger()

BODY_MAX_BYTES = 8 * 1024 * 1024
"""An object and its old form, of at most 3 MiB each (API server, MaxRequestBodyBytes), and what is around them."""
KEEP_ALIVE_S = 120
"""Longer than the API server keeps an idle connection (90 s, Go's default transport): it closes first, so no request is lost."""
SHUTDOWN_S = 5


class ObjectView(Protocol):
    """What the server needs of the memory."""

    @property
    def memory(self) -> FactMemory: ...

    def not_ready(self) -> str:
        """Why nothing can be judged now; empty when it can."""
        ...


class AdmissionApp:
    """The Starlette application. `view` and `leases` are given, so that a test can serve any state."""

    def __init__(
        self,
        view: ObjectView,
        leases: Leases,
        telemetry: Telemetry,
        metrics: WebhookMetrics,
        spared: frozenset[str] = frozenset(),
    ) -> None:
        self._view = view
        self._leases = leases
        self._telemetry = telemetry
        self._metrics = metrics
        self._spared = spared
        routes = [Route(path, self._serve, methods=["POST"]) for path in review.PATHS]
        self.asgi = Starlette(routes=[*routes, Route("/webhook-health-check", self._health, methods=["GET"])])

    async def _health(self, _request: HttpRequest) -> Response:
        return PlainTextResponse("ok\n")

    async def _serve(self, http: HttpRequest) -> Response:
        start_s = time.monotonic()
        verb, kind = review.PATHS[http.url.path]
        body = await _read(http)
        if body is None:
            return PlainTextResponse(f"more than {BODY_MAX_BYTES} bytes\n", 413)
        try:
            request = review.decode(body)
        except ValueError as error:
            self._metrics.refused(http.url.path)
            return PlainTextResponse(f"{error}\n", 400)
        with self._telemetry.span("admission.review", extract(dict(http.headers)), root=True) as span:
            span.set("admission.verb", verb)
            span.set("admission.operation", request.operation)
            span.set("admission.object", f"{kind}/{request.namespace}/{request.name}")
            span.set("admission.uid", request.uid)
            if kind == "Pod":
                for key, value in review.pod_attributes(request).items():
                    span.set(key, value)
            site = review.Site(spared=self._spared, traceparent=_traceparent(span))
            try:
                answer = await self._answer(verb, kind, request, site)
            except Exception:
                log.exception("a review failed", kind=kind, name=request.name)
                return PlainTextResponse("this is a defect of ours; the log has the trace\n", 500)
            allowed = bool(answer["response"]["allowed"])
            if not allowed:
                span.fail(str(answer["response"]["status"]["message"])[:512])
        self._metrics.reviewed(kind, allowed, time.monotonic() - start_s)
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def _answer(
        self, verb: review.Verb, kind: str, request: review.Request, site: review.Site
    ) -> dict[str, Any]:
        reason = self._view.not_ready()
        if reason:
            return review.unread(verb, kind, request, reason, site)
        memory = self._view.memory
        memory.forget_expected(request.object, time.monotonic())
        objects = memory.objects
        if verb == "validate" and asks_leases(request.operation, request.object, request.old_object, objects):
            try:
                objects = objects.copy({request.name: await self._leases.of_pool(request.name)})
            except LeasesUnknownError as error:
                sentence = (
                    "the allocator does not tell which addresses are in use, so nothing can be taken away now"
                )
                return review.refused(request, 503, f"{sentence}: {error}")
        answer = review.answer(verb, kind, request, objects, site)
        if (
            verb == "validate"
            and answer["response"]["allowed"]
            and not request.dry_run
            and request.object is not None
        ):
            memory.expect(request.object, time.monotonic())
        return answer


def _traceparent(span: ActiveSpan) -> str:
    headers: dict[str, str] = {}
    inject(headers, span.context)
    return headers.get(TRACEPARENT, "")


async def _read(http: HttpRequest) -> bytes | None:
    """The body, None if it is too long."""
    body = bytearray()
    async for chunk in http.stream():
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            return None
    return bytes(body)


class HttpsServer(uvicorn.Server):
    """uvicorn with our TLS context and our sockets, without its signal handlers: the process has its own."""

    def __init__(self, app: Starlette, context: ssl.SSLContext) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        config.load()
        config.ssl = context
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def listen(address: str) -> socket.socket:
    """A listening socket on `host:port` (an IPv6 host in brackets, port 0 is any). Raises OSError, or ValueError for another form."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"https_address {address!r} is not host:port")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=1024)


def address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
