"""Spans on `orb.span.<service>[.<node>]`, kept an hour for our own tools. Times are Unix nanoseconds, ids lower-case hex (W3C)."""

from __future__ import annotations

import msgspec

from shared.contracts.codec import Codec


class SpanRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    trace_id: str
    span_id: str
    parent_id: str = ""
    name: str
    service: str
    node: str = ""
    start_ns: int
    end_ns: int
    error: str = ""
    attributes: dict[str, str | int | float | bool] = {}
    links: tuple[str, ...] = ()


class SpanBatch(msgspec.Struct, frozen=True, kw_only=True, tag="span.batch.1"):
    spans: tuple[SpanRecord, ...]


SPAN_BATCH: Codec[SpanBatch] = Codec(SpanBatch)
