"""Ended spans on their way to `orb.span.…`: a bounded buffer that the attach path only appends to.

Owns the conversion to SpanRecord and the task that publishes. Must not know the bus: it is given `publish`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import cast

from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import StatusCode

from shared.contracts.codec import encode
from shared.contracts.span import SpanBatch, SpanRecord

Publish = Callable[[bytes], Awaitable[None]]

CAPACITY_SPANS = 8192
BATCH_SPANS = 256
"""A span is some 200–500 bytes, so a batch stays far below a message's limit."""
INTERVAL_S = 0.2
SERVICE_ATTRIBUTE = "orb.service"
"""Set on a span that stands for another process than the one that reports it (the shim's)."""


def span_record(span: ReadableSpan, service: str, node: str) -> SpanRecord:
    """One ended span as our tools keep it. Sequences in attributes become text."""
    context = span.context
    attributes: dict[str, str | int | float | bool] = {}
    for key, value in (span.attributes or {}).items():
        if key == SERVICE_ATTRIBUTE:
            service = str(value)
        else:
            attributes[key] = _plain(value)
    error = (span.status.description or "error") if span.status.status_code is StatusCode.ERROR else ""
    return SpanRecord(
        trace_id=f"{context.trace_id:032x}" if context else "",
        span_id=f"{context.span_id:016x}" if context else "",
        parent_id=f"{span.parent.span_id:016x}" if span.parent else "",
        name=span.name,
        service=service,
        node=node,
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        error=error,
        attributes=attributes,
        links=tuple(f"{link.context.trace_id:032x}" for link in span.links),
    )


def _plain(value: object) -> str | int | float | bool:
    if isinstance(value, str | int | float | bool):
        return value
    return ",".join(map(str, cast("tuple[object, ...]", value))) if isinstance(value, tuple) else str(value)


class SpanBuffer(SpanProcessor):
    """Takes ended spans from any thread; `run` publishes them. When full, new spans are dropped and counted."""

    def __init__(self, service: str, node: str) -> None:
        self._service = service
        self._node = node
        self._ended: deque[ReadableSpan] = deque()
        self.dropped = 0

    def on_start(self, span: Span, parent_context: object = None) -> None:
        pass

    def on_end(self, span: ReadableSpan) -> None:
        if len(self._ended) >= CAPACITY_SPANS:
            self.dropped += 1
        else:
            self._ended.append(span)

    async def run(self, publish: Publish) -> None:
        """Publishes for ever. While the bus is away the spans wait here, up to the capacity."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            # Whatever the bus raises, tracing must neither end nor disturb its service.
            with contextlib.suppress(Exception):
                await self.flush(publish)

    async def flush(self, publish: Publish) -> None:
        """Publishes what is there now; a batch leaves the buffer only once it is published."""
        remaining = len(self._ended)
        while remaining > 0:
            spans = tuple(islice(self._ended, min(BATCH_SPANS, remaining)))
            batch = SpanBatch(spans=tuple(span_record(s, self._service, self._node) for s in spans))
            await publish(encode(batch))
            for _ in spans:
                self._ended.popleft()
            remaining -= len(spans)

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True
