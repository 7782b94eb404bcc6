"""The image that the tests of an installation share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kube_installation import TAGS, build_image
from tests.support.kube_ours import ADDRESSES_V4, ADDRESSES_V6
from tests.support.kube_workload import pool

POOLS = (
    pool("underlay-v4", "10.232.0.0/16", ADDRESSES_V4, gateway="10.232.0.1"),
    pool("underlay-v6", "fd00:232::/64", ADDRESSES_V6, gateway="fd00:232::1"),
)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_image(tmp_path_factory.mktemp("image") / "image.tar", TAGS[0])
