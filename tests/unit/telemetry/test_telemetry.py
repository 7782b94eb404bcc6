from __future__ import annotations

import asyncio
import threading

import pytest

from shared.contracts.span import SPAN_BATCH, SpanRecord
from shared.settings import TelemetrySettings
from shared.telemetry import Telemetry, extract, inject
from shared.telemetry import buffer as buffer_module
from shared.telemetry.metrics import AgentMetrics, AllocatorMetrics, ControllerMetrics, failure_class

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Sink:
    def __init__(self) -> None:
        self.spans: list[SpanRecord] = []
        self.away = False

    async def publish(self, payload: bytes) -> None:
        if self.away:
            raise ConnectionError
        self.spans += SPAN_BATCH.decode(payload).spans


async def get(address: str, request: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    writer.write(request.encode())
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), answer.split("\r\n\r\n", 1)[1]


def start(sink: Sink, **settings: float) -> Telemetry:
    return Telemetry.start("agent", "n1", "n1", TelemetrySettings(**settings), sink.publish)  # type: ignore[arg-type]


def test_a_trace_goes_on_from_the_caller_and_its_spans_are_published() -> None:
    async def run() -> None:
        sink = Sink()
        telemetry = start(sink)
        assert telemetry.span_subject == "orb.span.agent.n1"
        parent = extract({"traceparent": CALLER, "tracestate": "a=b"})
        onward: dict[str, str] = {}
        with telemetry.span(
            "cni ADD", parent, start_ns=5, service="shim", attributes={"cni.verb": "ADD"}
        ) as shim:
            with telemetry.span("attach"):
                inject(onward)
            step = telemetry.record("link", shim.context, 10, 20, {"ops": 3})
            admission = extract({"traceparent": "00-aaaa2f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
            telemetry.record("ack", step, 12, 18, error="EEXIST", link=admission)
        await telemetry.close()
        by_name = {s.name: s for s in sink.spans}
        assert {s.trace_id for s in sink.spans} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
        assert by_name["cni ADD"].parent_id == "00f067aa0ba902b7"
        assert (by_name["cni ADD"].service, by_name["cni ADD"].start_ns) == ("shim", 5)
        assert by_name["cni ADD"].attributes == {"cni.verb": "ADD"}
        assert by_name["attach"].parent_id == by_name["cni ADD"].span_id
        assert (by_name["attach"].service, by_name["attach"].node) == ("agent", "n1")
        assert onward["traceparent"].split("-")[2] == by_name["attach"].span_id
        assert onward["tracestate"] == "a=b"
        assert (by_name["link"].start_ns, by_name["link"].end_ns, by_name["link"].attributes) == (
            10,
            20,
            {"ops": 3},
        )
        assert by_name["ack"].links == ("aaaa2f3577b34da6a3ce929d0e0e4736",)
        assert (by_name["ack"].parent_id, by_name["ack"].error) == (by_name["link"].span_id, "EEXIST")

    asyncio.run(run())


def test_without_a_sampled_caller_there_is_no_span() -> None:
    async def run() -> None:
        sink = Sink()
        telemetry = start(sink)
        for headers in (None, {}, {"traceparent": "garbage"}, {"traceparent": CALLER[:-1] + "0"}):
            with telemetry.span("allocate", extract(headers)) as span:
                telemetry.record("decide", span.context if span.context.is_valid else None, 1, 2)
                onward: dict[str, str] = {}
                inject(onward)
                # An unsampled caller's context still travels on, so that nobody below begins a trace of its own.
                assert bool(onward) == bool(headers and headers["traceparent"] != "garbage")
        await telemetry.close()
        assert sink.spans == []

    asyncio.run(run())


def test_the_ratio_decides_only_about_roots() -> None:
    async def run() -> None:
        sink = Sink()
        telemetry = start(sink, sample_ratio=0.0)
        with telemetry.span("root", root=True) as root, telemetry.span("below"):
            assert root.context.is_valid
        with telemetry.span("asked for", extract({"traceparent": CALLER})):
            pass
        await telemetry.close()
        assert [s.name for s in sink.spans] == ["asked for"]

    asyncio.run(run())


def test_an_exception_marks_the_span_failed_and_passes() -> None:
    async def run() -> None:
        sink = Sink()
        telemetry = start(sink)
        with pytest.raises(ValueError, match="no"), telemetry.span("x", root=True):
            raise ValueError("no")
        with telemetry.span("y", root=True) as span:
            span.fail("pool_exhausted")
        await telemetry.close()
        assert [s.error for s in sink.spans] == ["ValueError: no", "pool_exhausted"]

    asyncio.run(run())


def test_spans_wait_while_the_bus_is_away_and_the_buffer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(buffer_module, "CAPACITY_SPANS", 10)
        monkeypatch.setattr(buffer_module, "BATCH_SPANS", 4)
        monkeypatch.setattr(buffer_module, "INTERVAL_S", 0.01)
        sink = Sink()
        sink.away = True
        telemetry = start(sink)
        address = await telemetry.serve_http(lambda: "")
        for n in range(13):
            telemetry.span(str(n), root=True).end()
        await asyncio.sleep(0.05)
        assert sink.spans == []
        assert "orbweaver_spans_dropped_total 3.0" in (await get(address, "GET /metrics HTTP/1.1\r\n\r\n"))[1]
        sink.away = False
        await asyncio.sleep(0.1)
        assert [s.name for s in sink.spans] == [str(n) for n in range(10)]
        await telemetry.close()

    asyncio.run(run())


def test_health_readiness_and_bad_requests() -> None:
    async def run() -> None:
        threads = threading.active_count()
        telemetry = start(Sink())
        reason = "no leader"
        address = await telemetry.serve_http(lambda: reason)
        assert await get(address, "GET /healthz HTTP/1.1\r\n\r\n") == (200, "ok\n")
        assert await get(address, "GET /readyz?verbose HTTP/1.1\r\nHost: x\r\n\r\n") == (503, "no leader\n")
        reason = ""
        assert await get(address, "GET /readyz HTTP/1.1\r\n\r\n") == (200, "ok\n")
        assert (await get(address, "POST /metrics HTTP/1.1\r\n\r\n"))[0] == 405
        assert (await get(address, "GET /secrets HTTP/1.1\r\n\r\n"))[0] == 404
        assert (await get(address, "hello\r\n\r\n"))[0] == 400
        assert (await get(address, "x" * 100_000))[0] == 400
        await telemetry.close()
        await telemetry.close()
        assert threading.active_count() == threads
        with pytest.raises(OSError, match=r"refused|Connect"):
            await get(address, "GET /healthz HTTP/1.1\r\n\r\n")

    asyncio.run(run())


async def scrape(telemetry: Telemetry) -> dict[str, float]:
    address = await telemetry.serve_http(lambda: "")
    _, body = await get(address, "GET /metrics HTTP/1.1\r\n\r\n")
    await telemetry.close()
    samples = [line.rsplit(" ", 1) for line in body.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


def test_the_agents_metrics_have_the_documented_names() -> None:
    async def run() -> None:
        telemetry = start(Sink())
        metrics = AgentMetrics(telemetry.meter, attachments=lambda: 3, unpublished=lambda: 1)
        for duration_s, error in (
            (0.2, None),
            (0.6, "pool_exhausted"),
            (0.1, "no_pool"),
            (0.1, "kernel_refused"),
            (1, "try_later"),
        ):
            metrics.allocation(duration_s, error, 0.25)
        metrics.release(0.5, None, 0.25)
        metrics.call("ADD", 0.009, None)
        metrics.refused("orb.cni")
        found = await scrape(telemetry)
        prefix = "spiderpool_ipam_allocation"
        assert found[f"{prefix}_counts_total"] == 5
        assert found[f"{prefix}_failure_counts_total"] == 4
        assert found[f"{prefix}_update_ippool_conflict_counts_total"] == 0
        for name in ("internal", "no_available_pool", "retries_exhausted", "ip_used_out"):
            assert found[f"{prefix}_err_{name}_counts_total"] == 1
        assert found[f"{prefix}_average_duration_seconds"] == pytest.approx(0.4)
        assert found[f"{prefix}_max_duration_seconds"] == 1
        assert found[f"{prefix}_min_duration_seconds"] == 0.1
        assert found[f"{prefix}_latest_duration_seconds"] == 1
        assert found[f"{prefix}_average_limit_duration_seconds"] == 0.25
        buckets = [n for n in found if n.startswith(f"{prefix}_duration_seconds_bucket")]
        bounds = [n.split('le="')[1].rstrip('"}') for n in buckets]
        assert bounds == ["0.1", "0.3", "0.5", "1", "3", "5", "7", "10", "15", "+Inf"]
        assert found["spiderpool_ipam_release_counts_total"] == 1
        assert found["spiderpool_ipam_release_latest_duration_seconds"] == 0.5
        assert found['orbweaver_attach_duration_seconds_count{error="",verb="ADD"}'] == 1
        assert found['orbweaver_messages_refused_total{family="orb.cni"}'] == 1
        assert found["orbweaver_attachments"] == 3
        assert not [n for n in found if "total_total" in n or "seconds_seconds" in n or "otel_scope" in n]

    asyncio.run(run())


def test_the_hubs_metrics() -> None:
    async def run() -> None:
        sink = Sink()
        allocator = start(sink)
        metrics = AllocatorMetrics(allocator.meter, lambda: {"v4": 7}, leading=lambda: 1, queued=lambda: 0)
        metrics.append(0.0004, events=64)
        metrics.answered(None, 63)
        metrics.answered("pool_exhausted")
        metrics.collected(2)
        found = await scrape(allocator)
        assert found['orbweaver_leases{pool="v4"}'] == 7
        assert found["orbweaver_append_duration_seconds_count"] == 1
        assert found["orbweaver_lease_events_total"] == 64
        assert found['orbweaver_allocations_total{error="pool_exhausted"}'] == 1
        controller = start(sink)
        assert found["spiderpool_ip_gc_counts_total"] == 2
        assert found["spiderpool_ip_gc_failure_counts_total"] == 0
        ControllerMetrics(controller.meter, lambda: 2, lambda: 0, lambda: 9, lambda: 1)
        found = await scrape(controller)
        assert found["spiderpool_total_ippool_counts"] == 2
        assert found["spiderpool_total_subnet_counts"] == 0

    asyncio.run(run())


def test_what_fits_no_class_is_internal() -> None:
    assert failure_class("address_conflict") == "internal"
    assert failure_class("annotation_invalid") == "retries_exhausted"


def test_otlp_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        __import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None
    )
    with pytest.raises(ValueError, match=r"orbweaver\[otlp\]"):
        Telemetry.start("agent", "n1", "n1", TelemetrySettings(otlp_endpoint="http://127.0.0.1:4318"))
