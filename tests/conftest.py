"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.nats import fresh_nats_server, nats_server

__all__ = ["fresh_nats_server", "nats_server"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes a file stays in one, and so do all runtimes: they share a system and what libcni keeps."""
    for item in items:
        group = "runtime" if item.path.is_relative_to(Path(__file__).parent / "runtime") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
