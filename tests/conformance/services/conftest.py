"""One system for all cases; after each case nothing of it is left, neither object nor lease."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.standalone.demo_place import Place
from tests.conformance.world import World, namespace

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
SHOP = "shop"


@pytest.fixture(scope="session")
def whole() -> Iterator[World]:
    place = Place(Path(f"/var/lib/orbweaver-conformance-{_WORKER}"), f"orbcf-{_WORKER}-")
    with World.up(place) as world:
        yield world


@pytest.fixture
def world(whole: World) -> Iterator[World]:
    """With namespace `shop`."""
    whole.apply(namespace(SHOP))
    yield whole
    whole.clear()
