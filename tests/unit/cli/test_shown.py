"""Columns, events and standings: what people read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.cli import columns
from services.cli.event import event
from services.cli.found import Filter
from services.cli.standing import standings
from services.cli.trace import chosen
from shared.contracts.attach import AttachCompleted, AttachFailed, Detached, SweepStopped
from shared.contracts.span import SpanRecord

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (121, "2m1s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (10 * 3600, "10h"),
        (50 * 3600, "2d2h"),
        (30 * 86400, "30d"),
        (-5, "0s"),
    ],
)
def test_age_reads_as_kubectl_writes_it(seconds: int, text: str) -> None:
    assert columns.age((NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ"), NOW) == text


def test_age_of_no_time_is_empty() -> None:
    assert columns.age("", NOW) == columns.age("yesterday", NOW) == ""


def test_a_pools_columns_are_those_of_its_crd() -> None:
    raw = {
        "metadata": {"name": "v4", "creationTimestamp": "2026-11-24T11:59:00Z"},
        "spec": {
            "ipVersion": 4,
            "subnet": "10.6.0.0/24",
            "default": True,
            "nodeName": ["n1", "n2"],
            "podAffinity": {"matchLabels": {"ipam.spidernet.io/app-namespace": "prod"}},
        },
        "status": {"allocatedIPCount": 1, "totalIPCount": 10},
    }
    assert columns.header("SpiderIPPool", False, False) == [
        "NAME",
        "VERSION",
        "SUBNET",
        "ALLOCATED-IP-COUNT",
        "TOTAL-IP-COUNT",
        "DEFAULT",
        "AGE",
    ]
    assert columns.row("SpiderIPPool", raw, False, False, NOW) == ["v4", 4, "10.6.0.0/24", 1, 10, True, "60s"]
    wide = dict(
        zip(
            columns.header("SpiderIPPool", False, True),
            columns.row("SpiderIPPool", raw, False, True, NOW),
            strict=True,
        )
    )
    assert (wide["NODENAME"], wide["APP-NAMESPACE"], wide["DISABLE"]) == (["n1", "n2"], "prod", None)


def test_an_endpoints_columns_are_its_first_interface() -> None:
    detail = {"interface": "eth0", "ipv4": "10.6.0.12/16", "ipv4Pool": "v4"}
    raw = {
        "metadata": {"name": "web-1", "namespace": "prod"},
        "status": {"current": {"node": "n1", "ips": [detail, {"interface": "net1"}]}},
    }
    assert columns.row("SpiderEndpoint", raw, True, False, NOW) == [
        "prod",
        "web-1",
        "eth0",
        "v4",
        "10.6.0.12/16",
        None,
        None,
        "n1",
        "",
    ]


def test_a_kind_that_nobody_described_has_name_and_age() -> None:
    assert columns.header("Gadget", True, True) == ["NAMESPACE", "NAME", "AGE"]
    assert columns.row("Gadget", {"metadata": {"name": "x", "namespace": "y"}}, True, True, NOW) == [
        "y",
        "x",
        "",
    ]


ABOUT: dict[str, Any] = {
    "at_ns": 1_795_500_000_123_000_000,
    "node": "n1",
    "container_id": "c1",
    "ifname": "eth0",
    "pod_namespace": "prod",
    "pod_name": "web-1",
    "pod_uid": "u1",
    "duration_ms": 9.87654,
    "trace_id": "ab" * 16,
}


def test_an_attach_becomes_an_event_of_its_pod() -> None:
    item = event(255, AttachCompleted(addresses=("10.6.0.10/24", "fd00::10/64"), **ABOUT))
    assert (item["kind"], item["type"], item["reason"]) == ("Event", "Normal", "Attached")
    assert item["message"] == "eth0 has 10.6.0.10/24, fd00::10/64 after 9.9 ms"
    assert item["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "prod",
        "name": "web-1",
        "uid": "u1",
    }
    assert item["metadata"]["name"] == "web-1.00000000000000ff"
    assert item["metadata"]["namespace"] == "prod"
    assert item["time"].endswith(".123Z")
    assert (item["containerID"], item["interface"], item["traceID"]) == ("c1", "eth0", "ab" * 16)


def test_a_failure_tells_the_hint_of_its_error() -> None:
    item = event(1, AttachFailed(error="pool_exhausted", message="pool v4 has no free address", **ABOUT))
    assert (item["type"], item["error"]) == ("Warning", "pool_exhausted")
    assert "pool v4 has no free address" in item["message"]
    assert "add a range to a pool" in item["message"]


def test_other_events() -> None:
    item = event(1, Detached(addresses=(), reason="gone", **ABOUT))
    assert item["message"] == "eth0 gave back no address (gone)"
    item = event(1, SweepStopped(at_ns=1, node="n1", gone=9, attachments=10))
    assert item["involvedObject"]["kind"] == "Node"
    assert item["metadata"]["namespace"] == "default"


POOLS: list[dict[str, Any]] = [
    {
        "metadata": {"name": "v4"},
        "spec": {
            "subnet": "10.6.0.0/24",
            "ips": ["10.6.0.10-10.6.0.19"],
            "excludeIPs": ["10.6.0.15"],
            "gateway": "10.6.0.1",
        },
    },
    {"metadata": {"name": "off"}, "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.30"], "disable": True}},
    {"metadata": {"name": "v6"}, "spec": {"subnet": "fd00::/64", "ips": ["fd00::10"]}},
]
RESERVED: list[dict[str, Any]] = [
    {"metadata": {"name": "printers"}, "spec": {"ipVersion": 4, "ips": ["10.6.0.12-10.6.0.13"]}}
]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.6.0.10", ["free", "outside"]),
        ("10.6.0.1", ["gateway", "outside"]),
        ("10.6.0.15", ["excluded", "outside"]),
        ("10.6.0.12", ["reserved", "outside"]),
        ("10.6.0.30", ["outside", "disabled"]),
        ("10.7.0.1", []),
        ("fd00::10", ["free"]),
    ],
)
def test_an_address_that_nobody_has_stands_somewhere(address: str, words: list[str]) -> None:
    assert [one.word for one in standings(address, POOLS, RESERVED)] == words


def test_a_pod_that_goes_is_terminating_whatever_its_phase() -> None:
    raw: dict[str, Any] = {"metadata": {"name": "w", "namespace": "p"}, "status": {"phase": "Running"}}
    assert columns.row("Pod", raw, True, False, NOW)[2] == "Running"
    raw["metadata"]["deletionTimestamp"] = "2026-11-24T11:59:00Z"
    assert columns.row("Pod", raw, True, False, NOW)[2] == "Terminating"


def span(trace_id: str, node: str = "", **attributes: str) -> SpanRecord:
    named = {f"k8s.{key}.name": value for key, value in attributes.items()}
    return SpanRecord(
        trace_id=trace_id,
        span_id="1",
        parent_id="",
        name="x",
        service="agent",
        node=node,
        start_ns=1,
        end_ns=2,
        attributes=named,
    )


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        (Filter(), {"a", "b"}),
        (Filter(pod="prod/w"), {"a"}),
        (Filter(namespace="shop"), {"b"}),
        (Filter(node="n1"), {"a", "b"}),
        (Filter(node="n2"), {"b"}),
        (Filter(node="n2", pod="prod/w"), set[str]()),
    ],
)
def test_traces_are_chosen_whole_by_what_their_spans_tell(wanted: Filter, kept: set[str]) -> None:
    spans = [
        span("a", "n1", namespace="prod", pod="w"),
        span("a"),
        span("b", "n1"),
        span("b", "n2", namespace="shop", pod="w"),
    ]
    assert {one.trace_id for one in chosen(spans, wanted)} == kept
    assert sum(one.trace_id == "a" for one in chosen(spans, wanted)) in (0, 2)
