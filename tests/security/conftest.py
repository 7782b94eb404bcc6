"""One running system of two nodes, and whoever took the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.settings import BusSettings
from tests.integration.cli.stage import PODS, Attached, Stage
from tests.security.attacker import Attacker
from tests.support.lab import Lab


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Lab(nodes=2, gateways=("172.28.0.1/24",)) as lab:
        running = Stage(lab, tmp_path_factory.mktemp("security"))
        try:
            running.start()
            yield running
        finally:
            running.system.stop()


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
    found = [stage.attach(pod) for pod in PODS]
    yield found
    for one in found:
        stage.detach(one)
        stage.lab.remove(one.netns)
