from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cli.stage import PODS, Attached, Stage
from tests.support.lab import Lab


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Lab(nodes=2, gateways=("172.28.0.1/24",)) as lab:
        running = Stage(lab, tmp_path_factory.mktemp("cli"))
        try:
            running.start()
            yield running
        finally:
            running.system.stop()


@pytest.fixture
def attached(stage: Stage) -> Iterator[list[Attached]]:
    """Both pods attached; detached after the test."""
    found = [stage.attach(pod) for pod in PODS]
    yield found
    for one in found:
        stage.detach(one)
        stage.lab.remove(one.netns)
