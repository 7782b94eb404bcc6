"""One cluster of two nodes with all our services for all cases; each has a namespace and pools of its own, of which nothing may be left."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.conformance.cluster.stage import Admission, Stage, install_network_definitions, until
from tests.support.kube_cluster import Cluster
from tests.support.kube_system import System
from tests.support.kube_workload import pool


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        install_network_definitions(cluster)
        yield cluster


@pytest.fixture(scope="session")
def system(cluster: Cluster) -> Iterator[System]:
    with System(cluster) as system:
        yield system


@pytest.fixture(scope="session")
def admission(cluster: Cluster, system: System) -> Iterator[Admission]:
    admission = Admission(cluster, system)
    probe = json.dumps(pool("probe", "10.255.0.0/24", "10.255.0.3"))

    def judges() -> bool:
        said = cluster.server.kubectl(
            *("create", "--dry-run=server", "-o", "json", "-f", "-"), stdin=probe, check=False
        )
        return "ippool-cidr" in said

    try:
        until(judges, "a pool is judged")
        yield admission
    finally:
        admission.service.kill()


@pytest.fixture
def stage(cluster: Cluster, system: System, admission: Admission) -> Iterator[Stage]:
    assert admission.service.pid
    stage = Stage(cluster, system)
    yield stage
    stage.close()
    assert system.ask.allocator().violations == ()


@pytest.fixture(scope="session")
def lasting(cluster: Cluster, system: System, admission: Admission) -> Iterator[Stage]:
    """For cases that store nothing."""
    assert admission.service.pid
    stage = Stage(cluster, system)
    yield stage
    stage.close()
