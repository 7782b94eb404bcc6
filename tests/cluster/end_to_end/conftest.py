"""One cluster with our system for the tests of a process; each test has a namespace of its own, of which nothing may be left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kube_cluster import Cluster
from tests.support.kube_space import Space
from tests.support.kube_system import System


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def system(cluster: Cluster) -> Iterator[System]:
    with System(cluster) as system:
        yield system


@pytest.fixture
def space(cluster: Cluster, system: System) -> Iterator[Space]:
    space = Space(cluster, system)
    yield space
    space.delete()
    space.await_leases_of(set)
    assert system.ask.allocator().violations == ()
