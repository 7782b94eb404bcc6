"""One cluster with our system for the tests of a process; each test has a namespace of its own, of which nothing may be left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.support.kube import namespace
from tests.support.kube_cluster import Cluster, await_true, is_ready
from tests.support.kube_system import System

SETTLE_S = 90.0


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def system(cluster: Cluster) -> Iterator[System]:
    with System(cluster) as system:
        yield system


class Space:
    """A namespace and what a test does in it."""

    def __init__(self, cluster: Cluster, system: System) -> None:
        self.cluster = cluster
        self.system = system
        self.name = namespace(cluster.server)
        account = f"/api/v1/namespaces/{self.name}/serviceaccounts/default"
        await_true("the namespace's service account", lambda: cluster.server.client.exists(account))

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return self.cluster.server.kubectl("-n", self.name, *arguments, stdin=stdin)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        documents = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(documents))

    def await_pods(self, count: int, selector: str = "") -> list[dict[str, Any]]:
        return self.cluster.await_pods(self.name, count, selector, SETTLE_S)

    def pods(self, selector: str = "") -> list[dict[str, Any]]:
        return self.cluster.pods(self.name, selector)

    def addresses(self) -> dict[str, set[str]]:
        """What Kubernetes shows of the Ready pods."""
        return {
            pod["metadata"]["name"]: {address["ip"] for address in pod["status"]["podIPs"]}
            for pod in self.pods()
            if is_ready(pod)
        }

    def unreachable(self) -> list[str]:
        return self.cluster.unreachable(self.name, self.pods())

    def await_leases_of(self, pods: Callable[[], set[str]]) -> None:
        """Nobody else in this namespace holds an address any more."""
        await_true(
            f"leases of the pods of {self.name} alone",
            lambda: set(self.system.ask.addresses(self.name)) == pods(),
            SETTLE_S,
            lambda: str(self.system.ask.leases(pod_namespace=self.name)),
        )

    def delete(self) -> None:
        """The namespace with everything in it."""
        self.cluster.server.kubectl("delete", "namespace", self.name, f"--timeout={SETTLE_S:.0f}s")


@pytest.fixture
def space(cluster: Cluster, system: System) -> Iterator[Space]:
    space = Space(cluster, system)
    yield space
    space.cluster.server.kubectl(
        "delete", "namespace", space.name, "--ignore-not-found", f"--timeout={SETTLE_S:.0f}s"
    )
    space.await_leases_of(set)
    assert system.ask.allocator().violations == ()
