"""How a run of the benchmark is judged."""

from __future__ import annotations

import pytest

from tests.bench import figure

PROMISED = (
    "add_ratio",
    "add_dual_ratio",
    "add_p50_ms",
    "add_p99_over_p50",
    "adds_per_s_16",
    "kernel_p50_ms",
    "allocate_p50_ms",
    "allocs_per_s",
    "agent_rss_mib",
    "agent_rss_after_1000_mib",
)
_GOOD = {
    "add_ratio": 1.6,
    "add_dual_ratio": 0.02,
    "add_p50_ms": 1000.0,
    "add_p99_over_p50": 4.0,
    "adds_per_s_16": 60.0,
    "kernel_p50_ms": 3.0,
    "allocate_p50_ms": 3.0,
    "allocs_per_s": 3000.0,
    "agent_rss_mib": 50.0,
    "agent_rss_after_1000_mib": 60.0,
    "del_ratio": 99.0,
    "del_p50_ms": 1000.0,
    "eight_nic_ratio": 2.5,
}


def test_every_promised_figure_is_measured_first_and_in_order() -> None:
    assert tuple(f.key for f in figure.FIGURES)[: len(PROMISED)] == PROMISED


def test_a_must_that_is_just_reached_is_reached() -> None:
    assert figure.missed(_GOOD) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("add_ratio", 1.601),
        ("add_dual_ratio", 0.021),
        ("add_p99_over_p50", 4.01),
        ("adds_per_s_16", 59.9),
        ("kernel_p50_ms", 3.01),
        ("allocate_p50_ms", 3.01),
        ("allocs_per_s", 2999.0),
        ("agent_rss_mib", 90.1),
        ("agent_rss_after_1000_mib", 60.1),
        ("eight_nic_ratio", 2.51),
    ],
)
def test_each_must_can_be_missed(key: str, value: float) -> None:
    assert key in figure.missed(_GOOD | {key: value})
