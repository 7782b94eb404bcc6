"""One trace as a text picture, and many traces as a list of summaries. Pure.

Owns the order of the lines and the bars. Must not know a terminal, or where the spans came from.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import msgspec

from shared.contracts.span import SpanRecord

WIDTH_COLUMNS = 100
ATTRIBUTE_COLUMNS = 36
"""A container ID is longer than what one needs to recognise it; `-o json` has the whole."""
ATTRIBUTE_LINES_MAX = 3
ADMISSION = "admission.review"
_NAME_COLUMNS = 36
_SERVICE_COLUMNS = 10
_NUMBER_COLUMNS = 9
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class TraceSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One row of `orbweaver get traces`. `root` is the name of its first span without a parent here."""

    trace_id: str = msgspec.field(name="traceID")
    root: str
    services: int
    spans: int
    start_ns: int
    duration_ms: float
    error: str = ""


def traces(spans: Iterable[SpanRecord]) -> dict[str, list[SpanRecord]]:
    """Spans by trace id, those of a trace in the order of their start; a span that was published twice counts once."""
    found: dict[str, dict[str, SpanRecord]] = {}
    for span in spans:
        found.setdefault(span.trace_id, {})[span.span_id] = span
    return {trace_id: sorted(by_id.values(), key=_start) for trace_id, by_id in found.items()}


def summary(spans: Sequence[SpanRecord]) -> TraceSummary:
    """Sums up one trace; `spans` is not empty."""
    root = _roots(spans)[0]
    start_ns = min(s.start_ns for s in spans)
    return TraceSummary(
        trace_id=root.trace_id,
        root=root.name,
        services=len({s.service for s in spans}),
        spans=len(spans),
        start_ns=start_ns,
        duration_ms=round((max(s.end_ns for s in spans) - start_ns) / 1e6, 3),
        error=next((s.error for s in [root, *spans] if s.error), ""),
    )


def summaries(spans: Iterable[SpanRecord]) -> list[TraceSummary]:
    """One summary a trace, the latest last."""
    return sorted((summary(group) for group in traces(spans).values()), key=lambda s: s.start_ns)


def linked(spans: Sequence[SpanRecord], others: Iterable[SpanRecord]) -> list[TraceSummary]:
    """The other traces that one has to do with: those that its spans link to, and the admissions of its pod (by the pod's UID)."""
    own = {span.trace_id for span in spans}
    named = {trace_id for span in spans for trace_id in span.links}
    uids = {uid for span in spans if (uid := span.attributes.get("k8s.pod.uid"))}
    found: dict[str, list[SpanRecord]] = {}
    for span in others:
        if span.trace_id in own:
            continue
        is_admission = span.name == ADMISSION and span.attributes.get("k8s.pod.uid") in uids
        if span.trace_id in named or is_admission:
            found.setdefault(span.trace_id, []).append(span)
    return sorted((summary(group) for group in found.values()), key=lambda one: one.start_ns)


def links(spans: Sequence[SpanRecord], others: Iterable[SpanRecord]) -> list[str]:
    """One line for each linked trace, with how long before this one it began."""
    began_ns = min(span.start_ns for span in spans)
    return [
        f"linked: trace {one.trace_id}: {one.root}, {one.duration_ms:.2f} ms, {(began_ns - one.start_ns) / 1e9:.1f} s before"
        for one in linked(spans, others)
    ]


def waterfall(spans: Sequence[SpanRecord], width: int = WIDTH_COLUMNS) -> list[str]:
    """The picture of one trace, no line longer than `width` (at least 80): name indented by nesting, service, start and
    duration in ms, and a bar on the time axis of the whole trace. A span whose parent is not here stands at the left."""
    if not spans:
        return []
    unique = traces(spans)[spans[0].trace_id]
    total = summary(unique)
    bar_columns = max(width, 80) - _NAME_COLUMNS - _SERVICE_COLUMNS - 2 * _NUMBER_COLUMNS - 3
    lines = [
        _cut(
            f"trace {total.trace_id}: {total.root}, {total.duration_ms:.2f} ms,"
            f" {total.spans} spans in {total.services} services",
            width,
        )
    ]
    described = "  ".join(
        _cut(f"{key}={value}", ATTRIBUTE_COLUMNS) for key, value in _roots(unique)[0].attributes.items()
    )
    lines += textwrap.wrap(described, width, break_on_hyphens=False)[:ATTRIBUTE_LINES_MAX]
    lines.append(
        f"{'span':<{_NAME_COLUMNS}} {'service':<{_SERVICE_COLUMNS}}"
        f"{'start ms':>{_NUMBER_COLUMNS}}{'ms':>{_NUMBER_COLUMNS}}"
    )
    for depth, span in _nested(unique):
        name = _cut("  " * min(depth, 12) + span.name, _NAME_COLUMNS)
        service = _cut(span.service, _SERVICE_COLUMNS)
        start_ms = (span.start_ns - total.start_ns) / 1e6
        duration_ms = (span.end_ns - span.start_ns) / 1e6
        bar = _bar(start_ms, duration_ms, total.duration_ms, bar_columns)
        lines.append(
            f"{name:<{_NAME_COLUMNS}} {service:<{_SERVICE_COLUMNS}}"
            f"{start_ms:>{_NUMBER_COLUMNS}.2f}{duration_ms:>{_NUMBER_COLUMNS}.2f}  {bar}".rstrip()
        )
        if span.error:
            lines.append(_cut("  " * min(depth, 12) + f"  failed: {span.error}", width))
    return lines


def _start(span: SpanRecord) -> tuple[int, int]:
    return (span.start_ns, -span.end_ns)


def _roots(spans: Sequence[SpanRecord]) -> list[SpanRecord]:
    """Spans without a parent here. Two that name each other as parents are none's, so one of them is taken."""
    known = {s.span_id for s in spans}
    return [s for s in spans if s.parent_id not in known] or [min(spans, key=_start)]


def _nested(spans: Sequence[SpanRecord]) -> list[tuple[int, SpanRecord]]:
    children: dict[str, list[SpanRecord]] = {}
    for span in spans:
        children.setdefault(span.parent_id, []).append(span)
    out: list[tuple[int, SpanRecord]] = []
    seen: set[str] = set()
    stack = [(0, span) for span in reversed(_roots(spans))]
    while stack:
        depth, span = stack.pop()
        if span.span_id in seen:
            continue
        seen.add(span.span_id)
        out.append((depth, span))
        stack.extend((depth + 1, child) for child in reversed(children.get(span.span_id, [])))
    return out


def _bar(start_ms: float, duration_ms: float, total_ms: float, columns: int) -> str:
    """Eighths of a column, so that short steps keep their proportion; what took no time is still seen."""
    scale = columns / total_ms if total_ms > 0 else 0.0
    offset = min(int(start_ms * scale), columns - 1)
    eighths = max(1, min(round(duration_ms * scale * 8), (columns - offset) * 8))
    return " " * offset + "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _cut(text: str, columns: int) -> str:
    # Names and errors come from outside: a control character would break the terminal.
    plain = "".join(c if c.isprintable() else "?" for c in text)
    return plain if len(plain) <= columns else plain[: columns - 1] + "…"
