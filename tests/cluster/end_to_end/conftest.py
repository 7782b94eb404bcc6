"""One cluster with our system installed as users do it, for the tests of a process; each test has a namespace of its own, of which nothing
may be left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kube_cluster import Cluster
from tests.support.kube_installation import TAGS, Installation, build_image
from tests.support.kube_space import Space


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One image a tag, from the sources as they are now."""
    folder = tmp_path_factory.mktemp("image")
    return [build_image(folder / f"{tag}.tar", tag) for tag in TAGS]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), audit=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def system(cluster: Cluster, archives: list[Path]) -> Iterator[Installation]:
    with Installation(cluster, archives) as system:
        yield system


@pytest.fixture
def space(cluster: Cluster, system: Installation) -> Iterator[Space]:
    space = Space(cluster, system)
    failed = len(system.failures())
    yield space
    space.delete()
    space.await_leases_of(set)
    assert system.failures()[failed:] == []
    assert system.ask.allocator().violations == ()
