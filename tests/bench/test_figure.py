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
    "adds_1000_s": 17.0,
    "leases_1m_gib": 1.5,
    "replay_s": 20.0,
    "big_pool_ratio": 1.5,
    "failover_s": 2.0,
    "allocs_per_s_r3": 2000.0,
    "agents_5000_p99_ms": 100.0,
    "rebuild_s": 30.0,
}
_LARGE = {"adds_1000_s", "leases_1m_gib", "replay_s", "rebuild_s"}


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
        ("adds_1000_s", 17.1),
        ("leases_1m_gib", 1.51),
        ("replay_s", 20.1),
        ("big_pool_ratio", 1.51),
        ("failover_s", 2.01),
        ("allocs_per_s_r3", 1999.0),
        ("agents_5000_p99_ms", 100.1),
        ("rebuild_s", 30.1),
    ],
)
def test_each_must_can_be_missed(key: str, value: float) -> None:
    assert key in figure.missed(_GOOD | {key: value})


def test_the_short_form_is_judged_without_what_it_leaves_out() -> None:
    assert {item.key for item in figure.FIGURES if item.large} == _LARGE
    short = {key: value for key, value in _GOOD.items() if key not in _LARGE}
    assert figure.missed(short) == []
    assert figure.missed(short | {"failover_s": 2.01}) == ["failover_s"]
