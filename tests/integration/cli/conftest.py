from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cli.stage import Attached, Stage, all_attached, running


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running(tmp_path_factory.mktemp("cli")) as stage:
        yield stage


@pytest.fixture
def attached(stage: Stage) -> Iterator[list[Attached]]:
    """Both pods attached; detached after the test."""
    with all_attached(stage) as found:
        yield found
