from __future__ import annotations

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.span import SpanRecord
from shared.telemetry.waterfall import linked, summaries, summary, traces, waterfall


def span(
    span_id: str, parent: str, name: str, start_us: int, end_us: int, service: str = "agent", **more: object
) -> SpanRecord:
    return SpanRecord(
        trace_id="ab" * 16,
        span_id=span_id,
        parent_id=parent,
        name=name,
        service=service,
        start_ns=10**18 + start_us * 1000,
        end_ns=10**18 + end_us * 1000,
        **more,  # type: ignore[arg-type]
    )


ATTACH = [
    span("1", "", "cni ADD", 0, 10_000, "shim", attributes={"k8s.pod.name": "web-1"}),
    span("2", "1", "attach", 6_000, 9_800),
    span("3", "2", "allocate", 6_200, 7_200),
    span("4", "3", "decide", 6_500, 6_600, "allocator"),
    span("5", "2", "link", 7_300, 8_000, error="EEXIST\x1b[31m"),
]


def test_lines_are_nested_timed_and_in_order() -> None:
    lines = waterfall(ATTACH)
    assert lines[0] == f"trace {'ab' * 16}: cni ADD, 10.00 ms, 5 spans in 3 services"
    assert lines[1] == "k8s.pod.name=web-1"
    names = [line[:36].rstrip() for line in lines[3:]]
    assert names == [
        "cni ADD",
        "  attach",
        "    allocate",
        "      decide",
        "    link",
        "      failed: EEXIST?[31m",
    ]
    decide = lines[6]
    assert decide[37:47].rstrip() == "allocator"
    assert decide[47:65].split() == ["6.50", "0.10"]
    assert decide[67:] == " " * 21 + "▍"


def test_bars_share_one_axis() -> None:
    bars = [line[67:] for line in waterfall(ATTACH)[3:]]
    assert bars[0] == "█" * 33
    assert len(bars[1]) in (32, 33)
    assert bars[1].startswith(" " * 19 + "█")


def test_a_span_whose_parent_is_elsewhere_stands_at_the_left() -> None:
    lines = waterfall([span("9", "unknown", "attach", 0, 5)])
    assert lines[2].startswith("attach ")


def test_summaries_are_per_trace_and_a_span_told_twice_counts_once() -> None:
    other = SpanRecord(
        trace_id="cd" * 16, span_id="1", name="later", service="agent", start_ns=10**18 + 1, end_ns=10**18 + 2
    )
    found = summaries([other, *ATTACH, ATTACH[0]])
    assert [(s.root, s.spans, s.services) for s in found] == [("cni ADD", 5, 3), ("later", 1, 1)]
    assert found[0].duration_ms == 10.0
    assert found[0].error == "EEXIST\x1b[31m"
    assert waterfall([]) == []


@st.composite
def forests(draw: st.DrawFn) -> list[SpanRecord]:
    count = draw(st.integers(1, 30))
    ids = [str(n) for n in range(count)]
    found: list[SpanRecord] = []
    for span_id in ids:
        start = draw(st.integers(0, 10**6))
        found.append(
            span(
                span_id,
                draw(st.sampled_from(["", "elsewhere", *ids])),
                draw(st.text(max_size=60)),
                start,
                start + draw(st.integers(0, 10**6)),
                draw(st.text(max_size=20)),
                error=draw(st.text(max_size=200)),
                attributes=draw(
                    st.dictionaries(st.text(max_size=60), st.text(max_size=60) | st.integers(), max_size=4)
                ),
            )
        )
    return found


@given(forests(), st.integers(80, 140), st.randoms())
def test_any_spans_make_a_picture_within_its_width(
    spans: list[SpanRecord], width: int, rng: random.Random
) -> None:
    lines = waterfall(spans, width)
    assert all(len(line) <= width and line.isprintable() for line in lines)
    assert summary(spans).spans == len(spans)
    shuffled = spans.copy()
    rng.shuffle(shuffled)
    assert {s.span_id for s in traces(shuffled)["ab" * 16]} == {s.span_id for s in spans}


def other(trace_id: str, name: str, **more: object) -> SpanRecord:
    attach = span("9", "", name, -5_000, -4_000, "webhook", **more)
    return msgspec.structs.replace(attach, trace_id=trace_id * 16)


def test_an_attach_is_linked_to_the_admission_of_its_pod() -> None:
    attach = [
        span("1", "", "cni ADD", 0, 10_000, "shim", attributes={"k8s.pod.uid": "u1"}),
        span("2", "1", "allocator.allocate", 1, 2, "allocator", links=("cd" * 16,)),
    ]
    uid = {"k8s.pod.uid": "u1"}
    others = [
        other("cd", "admission.review"),
        other("ef", "admission.review", attributes=uid),
        other("01", "admission.review", attributes={"k8s.pod.uid": "u2"}),
        other("02", "cni DEL", attributes=uid),
    ]
    assert {one.trace_id[:2] for one in linked(attach, [*attach, *others])} == {"cd", "ef"}
    assert linked(ATTACH, [*ATTACH, *others]) == []
