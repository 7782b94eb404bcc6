"""`orbweaver get traces`: which there are, and the picture of one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from services.cli import columns, event, output, question
from services.cli.failure import CommandError
from services.cli.found import Filter, Found, Group, show
from services.cli.option import Output
from services.cli.system import System, ask
from shared.contracts.span import SpanRecord
from shared.telemetry.waterfall import links, summaries, traces, waterfall

PATIENCE_S = 2.0
"""Spans are published every 200 ms: who asks right after an attach waits a moment for them."""
SETTLE_S = 0.3
PICTURE_MAX_COLUMNS = 140


def show_traces(state: Path, wanted: Filter, form: Output) -> int:
    """All of the last hour, or the one whose id begins with `wanted.name`. Answers the exit code."""
    all_spans = ask(state, lambda system: _spans(system, wanted.name))
    spans = chosen(all_spans, wanted)
    if wanted.name:
        ids = [trace_id for trace_id in traces(spans) if trace_id.startswith(wanted.name.lower())]
        if len(ids) != 1:
            raise CommandError(
                f"no trace {wanted.name} of the last hour is kept"
                if not ids
                else f"{wanted.name} begins {len(ids)} trace ids"
            )
        one = traces(spans)[ids[0]]
        if form in ("json", "yaml"):
            output.document({"traceID": ids[0], "spans": one}, "yaml" if form == "yaml" else "json")
        else:
            for line in waterfall(one, min(output.columns(), PICTURE_MAX_COLUMNS)) + links(one, all_spans):
                output.say(line)
        return 0
    listed = summaries(spans)
    now = datetime.now(UTC)
    found = Found(
        items=[
            {
                "traceID": one.trace_id,
                "root": one.root,
                "services": one.services,
                "spans": one.spans,
                "start": event.timestamp(one.start_ns),
                "durationMs": one.duration_ms,
                "error": one.error,
            }
            for one in listed
        ],
        header=["TRACE", "ROOT", "SERVICES", "SPANS", "AGE", "MS", "ERROR"],
        rows=[
            [
                one.trace_id,
                one.root,
                one.services,
                one.spans,
                columns.age(event.timestamp(one.start_ns), now),
                f"{one.duration_ms:.2f}",
                one.error,
            ]
            for one in listed
        ],
        names=[one.trace_id for one in listed],
    )
    nothing = "no traces in the last hour" + (" of what was asked for" if wanted != Filter() else "")
    return show([Group(found=found, nothing=nothing)], form, single=False)


def chosen(spans: list[SpanRecord], wanted: Filter) -> list[SpanRecord]:
    """The whole traces of which some span is of the pod, of its namespace, and some of the node."""
    tests: list[Callable[[SpanRecord], bool]] = []
    if wanted.pod_namespace:
        tests.append(lambda span: span.attributes.get("k8s.namespace.name") == wanted.pod_namespace)
    if wanted.pod_name:
        tests.append(lambda span: span.attributes.get("k8s.pod.name") == wanted.pod_name)
    if wanted.node:
        tests.append(lambda span: span.node == wanted.node)
    fitting = [{span.trace_id for span in spans if test(span)} for test in tests]
    return [span for span in spans if all(span.trace_id in ids for ids in fitting)]


async def _spans(system: System, trace_id: str) -> list[SpanRecord]:
    deadline = time.monotonic() + PATIENCE_S
    spans, at = await question.spans(system)
    while trace_id:
        # A trace is whole when nothing came to it over more than one interval of publishing.
        await asyncio.sleep(SETTLE_S)
        more, at = await question.spans(system, at)
        spans += more
        known = any(_is(span, trace_id) for span in spans)
        if (known and not any(_is(span, trace_id) for span in more)) or time.monotonic() > deadline:
            break
    return spans


def _is(span: SpanRecord, trace_id: str) -> bool:
    return span.trace_id.startswith(trace_id.lower())
