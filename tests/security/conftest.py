"""One running system of two nodes, and whoever took the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.settings import BusSettings
from tests.integration.cli.stage import Attached, Stage, all_attached, running
from tests.security.attacker import Attacker


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running(tmp_path_factory.mktemp("security")) as stage:
        yield stage


@pytest.fixture
def attacker(stage: Stage) -> Attacker:
    return Attacker(stage)


@pytest.fixture
def rogue(attacker: Attacker, tmp_path: Path) -> Iterator[BusSettings]:
    with attacker.rogue(tmp_path) as settings:
        yield settings


@pytest.fixture
def attached(stage: Stage) -> Iterator[list[Attached]]:
    """A pod on each node; detached after the test."""
    with all_attached(stage) as found:
        yield found
