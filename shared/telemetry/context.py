"""The trace context that travels in message headers: W3C traceparent and tracestate.

Owns how a context is read and written. Must not know spans of ours or the bus.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACEPARENT = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()


def extract(headers: Mapping[str, str] | None) -> SpanContext | None:
    """The caller's span (W3C Trace Context §3.2), or None: no header, or one that is malformed, which starts no trace."""
    if not headers or TRACEPARENT not in headers:
        return None
    found = trace.get_current_span(_PROPAGATOR.extract(dict(headers), Context())).get_span_context()
    return found if found.is_valid else None


def inject(headers: MutableMapping[str, str], context: SpanContext | None = None) -> None:
    """Writes the context (default: of the current span) into `headers`; nothing if there is none."""
    if context is None:
        context = trace.get_current_span().get_span_context()
    if context.is_valid:
        _PROPAGATOR.inject(headers, trace.set_span_in_context(NonRecordingSpan(context), Context()))


def trace_id_text(context: SpanContext | None) -> str:
    """The trace id as events and logs carry it, empty for none and for one that nobody samples."""
    return f"{context.trace_id:032x}" if context is not None and context.trace_flags.sampled else ""
