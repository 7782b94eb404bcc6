"""Spans leave by OTLP/HTTP where an endpoint is set: a real exporter, against a receiver on loopback."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from shared.settings import TelemetrySettings
from shared.telemetry import Telemetry

trace_service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="the extra otlp is not installed"
)


class Collector(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, bytes]] = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Collector)
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_arrive_with_the_service_they_are_of(collector: Collector) -> None:
    async def run() -> None:
        settings = TelemetrySettings(otlp_endpoint=f"http://127.0.0.1:{collector.server_port}")
        telemetry = Telemetry.start("agent", "n1", "n1", settings)
        with telemetry.span("attach", root=True, attributes={"cni.verb": "ADD"}) as span:
            telemetry.record("link", span.context, 10, 20)
        await telemetry.close()

    asyncio.run(run())
    ((path, body),) = collector.received
    assert path == "/v1/traces"
    (resource_spans,) = trace_service.ExportTraceServiceRequest.FromString(body).resource_spans
    attributes = {a.key: a.value.string_value for a in resource_spans.resource.attributes}
    assert (attributes["service.name"], attributes["k8s.node.name"]) == ("agent", "n1")
    spans = {s.name: s for scope in resource_spans.scope_spans for s in scope.spans}
    assert spans["link"].parent_span_id == spans["attach"].span_id
    assert (spans["link"].start_time_unix_nano, spans["link"].end_time_unix_nano) == (10, 20)


def test_a_collector_that_is_away_delays_the_end_by_seconds_at_most() -> None:
    async def run() -> float:
        # Port 1 of loopback: nothing listens there.
        telemetry = Telemetry.start(
            "agent", "n1", "n1", TelemetrySettings(otlp_endpoint="http://127.0.0.1:1")
        )
        telemetry.span("attach", root=True).end()
        started = time.monotonic()
        await telemetry.close()
        return time.monotonic() - started

    assert asyncio.run(run()) < 6
