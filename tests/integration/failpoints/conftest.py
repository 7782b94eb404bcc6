from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.failpoints.stage import Stage
from tests.support.lab import Lab


@pytest.fixture(scope="package")
def running_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Lab(nodes=2, gateways=("172.28.0.1/16", "fd00:28::1/64")) as lab:
        running = Stage(lab, tmp_path_factory.mktemp("failpoints"))
        try:
            running.start()
            yield running
        finally:
            running.close()


@pytest.fixture
def stage(running_stage: Stage) -> Iterator[Stage]:
    yield running_stage
    if not running_stage.clean:
        running_stage.clear()
