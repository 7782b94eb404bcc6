"""Five minutes without an API server."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.adversity.outage import hold_through

OUTAGE_S = 300.0


def test_pods_attach_and_detach_for_five_minutes_without_an_api_server(tmp_path: Path) -> None:
    assert hold_through(tmp_path / "cluster", OUTAGE_S) >= 40
