"""One process's telemetry: its tracer, its meter, its logs, its health endpoint. OpenTelemetry's SDK does the work.

Owns what is sampled and where ended spans go. Must not know what is measured, nor the bus: it is given `publish`.

Sampling: a child follows its parent; without a parent only a span that says `root=True` begins a trace, by `sample_ratio`.
So a request that carries no context costs one dictionary look-up and makes no span, whatever the rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from contextvars import Token
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, Status, StatusCode
from opentelemetry.util.types import AttributeValue
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from shared import subjects
from shared.settings import TelemetrySettings
from shared.telemetry import log
from shared.telemetry.buffer import SERVICE_ATTRIBUTE, Publish, SpanBuffer
from shared.telemetry.http import HttpServer, Ready

Attributes = Mapping[str, AttributeValue]
OTLP_TIMEOUT_S = 2.0
"""For one batch, retries included; it also bounds how long `close` takes when the collector is away."""
_CLOSE_FLUSH_S = 1.0
_IDS = RandomIdGenerator()
_NO_STATUS = Status(StatusCode.UNSET)


class ActiveSpan:
    """A span that is current inside its `with` block (logs and nested spans find it). An exception marks it failed."""

    __slots__ = ("_span", "_token", "context")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.context: SpanContext = span.get_span_context()
        self._token: Token[Context] | None = None

    def set(self, key: str, value: AttributeValue) -> None:
        self._span.set_attribute(key, value)

    def fail(self, message: str) -> None:
        """The operation ended with an error that raised nothing."""
        self._span.set_status(Status(StatusCode.ERROR, message))

    def end(self, end_ns: int | None = None) -> None:
        """Ends it without a `with` block, or inside one at another time than the block's end."""
        self._span.end(end_ns)

    def __enter__(self) -> ActiveSpan:
        if self.context.is_valid:
            self._token = otel_context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            otel_context.detach(self._token)
        if self._span.is_recording():
            if exc is not None:
                self.fail(f"{type(exc).__name__}: {exc}")
            self._span.end()


_NO_SPAN = ActiveSpan(trace.INVALID_SPAN)


class Telemetry:
    """Made by `start`, ended by `close`. Everything here may be called from any thread but the coroutines."""

    def __init__(self, service: str, instance: str, node: str, settings: TelemetrySettings) -> None:
        self.service = service
        self.span_subject = subjects.span(service, node)
        self._settings = settings
        self._resource = Resource(
            {
                "service.name": service,
                "service.namespace": "orbweaver",
                "service.instance.id": instance,
                **({"k8s.node.name": node} if node else {}),
            }
        )
        self._buffer = SpanBuffer(service, node)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource=self._resource,
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_span_attributes=64, max_span_attribute_length=1024),
        )
        self._provider.add_span_processor(self._buffer)
        self._processor = self._provider._active_span_processor  # pyright: ignore[reportPrivateUsage]
        self._tracer = self._provider.get_tracer("orbweaver")
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        reader = PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)
        self._meters = MeterProvider([reader], resource=self._resource, shutdown_on_exit=False)
        self.meter: Meter = self._meters.get_meter("orbweaver")
        self.meter.create_observable_counter(
            "orbweaver_spans_dropped",
            [self._observe_dropped],
            description="Spans lost because the bus was away",
        )
        self._task: asyncio.Task[None] | None = None
        self._publish: Publish | None = None
        self._closed = False
        self._http: HttpServer | None = None

    @classmethod
    def start(
        cls,
        service: str,
        instance: str,
        node: str,
        settings: TelemetrySettings,
        publish: Publish | None = None,
    ) -> Telemetry:
        """Sets up logs, traces and metrics of this process; `node` is empty for services of the hub.

        `publish` sends one payload on `span_subject`; it may come later by `publish_spans`, when the bus is connected.
        With it, the caller's event loop must be running. Raises ValueError for settings that cannot be served.
        """
        log.configure(service, instance, node, settings.log_level)
        telemetry = cls(service, instance, node, settings)
        if endpoint := settings.otlp_endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""):
            telemetry._export_otlp(endpoint)
        if publish is not None:
            telemetry.publish_spans(publish)
        return telemetry

    def publish_spans(self, publish: Publish) -> None:
        """From now on spans are published; those that ended before wait in the buffer."""
        self._publish = publish
        self._task = asyncio.get_running_loop().create_task(self._buffer.run(publish))

    async def serve_http(self, ready: Ready) -> str:
        """Serves /healthz, /readyz, /metrics at settings.http_address; answers the bound `host:port`."""
        self._http = HttpServer(self._registry, ready)
        await self._http.start(self._settings.http_address)
        return self._http.address

    async def close(self) -> None:
        """Publishes what is left within a second, then frees everything. May be called twice."""
        if self._http is not None:
            await self._http.close()
            self._http = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._publish is not None:
            # The bus may be away at the end; the last spans are then lost, which is no failure of the service.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_FLUSH_S):
                    await self._buffer.flush(self._publish)
            self._publish = None
        if not self._closed:
            self._closed = True
            # With OTLP this sends what is left, and blocks for up to OTLP_TIMEOUT_S when the collector is away: nobody is served now.
            self._provider.shutdown()
            self._meters.shutdown()

    def span(
        self,
        name: str,
        parent: SpanContext | None = None,
        *,
        root: bool = False,
        start_ns: int | None = None,
        attributes: Attributes | None = None,
        service: str = "",
    ) -> ActiveSpan:
        """A span below `parent`, else below the current one; without either only `root=True` begins a trace.

        `service` names another process that this span stands for. Use as `with telemetry.span(…) as span:`, or call `end`.
        """
        if parent is None:
            current = trace.get_current_span().get_span_context()
            parent = current if current.is_valid else None
        if parent is None and not root:
            return _NO_SPAN
        if parent is not None and not parent.trace_flags.sampled:
            return ActiveSpan(NonRecordingSpan(parent))
        context = (
            Context() if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), Context())
        )
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=start_ns)
        if service:
            span.set_attribute(SERVICE_ATTRIBUTE, service)
        return ActiveSpan(span)

    def record(
        self,
        name: str,
        parent: SpanContext | None,
        start_ns: int,
        end_ns: int,
        attributes: Attributes | None = None,
        *,
        error: str = "",
        service: str = "",
        link: SpanContext | None = None,
    ) -> SpanContext | None:
        """A span that was measured elsewhere (a kernel step, the shim's start-up), Unix ns. `link` is a span of another trace that it
        has to do with.

        Answers its context, for spans below it; nothing is made, and `parent` answered, if `parent` is not sampled."""
        if parent is None or not parent.trace_flags.sampled:
            return parent
        if service:
            attributes = {**(attributes or {}), SERVICE_ATTRIBUTE: service}
        context = SpanContext(
            parent.trace_id, _IDS.generate_span_id(), False, parent.trace_flags, parent.trace_state
        )
        self._processor.on_end(
            ReadableSpan(
                name,
                context,
                parent,
                self._resource,
                attributes,
                links=(Link(link),) if link is not None else (),
                status=Status(StatusCode.ERROR, error) if error else _NO_STATUS,
                start_time=start_ns,
                end_time=end_ns,
            )
        )
        return context

    def _observe_dropped(self, _options: CallbackOptions) -> list[Observation]:
        return [Observation(self._buffer.dropped)]

    def _export_otlp(self, endpoint: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise ValueError(
                f"otlp_endpoint is {endpoint}, but the exporter is not installed: pip install 'orbweaver[otlp]'"
            ) from None
        url = endpoint if endpoint.endswith("/v1/traces") else endpoint.rstrip("/") + "/v1/traces"
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=OTLP_TIMEOUT_S))
        )
