"""Nodes without a machine: kwok says of their pods that they run. For load on everybody who watches; nothing attaches there.

Owns kwok's process and its Node objects. Must not know what is tested.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from tests.cluster import build
from tests.support.kube_cluster import Cluster, await_true, is_leaving, is_ready
from tests.support.kube_process import Program

_MARK = "kwok.x-k8s.io/node"
_READY_S = 120.0
_MISSED = timedelta(seconds=20)


class FakeNodes:
    """`with FakeNodes(cluster, 50):` — so many Ready nodes more, called `fake-0` and so on."""

    def __init__(self, cluster: Cluster, count: int) -> None:
        self._cluster = cluster
        self.names = [f"fake-{number}" for number in range(count)]
        folder = build.kwok()
        argv = [
            str(folder / "kwok"),
            f"--kubeconfig={cluster.server.kubeconfig}",
            f"--config={folder / 'stages.yaml'}",
            f"--manage-nodes-with-annotation-selector={_MARK}=fake",
            # Without leases: of those that it holds for its nodes it loses track (etcd 3.4), and the nodes count as dead.
            "--node-lease-duration-seconds=0",
        ]
        self.kwok = Program(argv, cluster.directory / "kwok.log", {"HOME": str(cluster.directory)})

    def __enter__(self) -> Self:
        client = self._cluster.server.client
        for name in self.names:
            metadata = {"name": name, "annotations": {_MARK: "fake"}, "labels": {"type": "kwok"}}
            capacity = {"cpu": "32", "memory": "256Gi", "pods": "110"}
            status = {"capacity": capacity, "allocatable": capacity}
            client.create("/api/v1/nodes", {"metadata": metadata, "status": status})
        self.kwok.start()
        await_true("the fake nodes are Ready", self._are_ready, _READY_S, self.kwok.tail)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kwok.stop(kill=True)
        for name in self.names:
            self._cluster.server.client.delete(f"/api/v1/nodes/{name}")

    def await_left(self, namespace: str, timeout_s: float) -> None:
        """Until no pod of that namespace is being deleted on these nodes. Of many at once kwok misses a few (etcd 3.4 tells its watches
        no progress): they end as by the kubelet that they do not have."""
        await_true(
            f"pods of {namespace} have left the fake nodes", lambda: not self._bury(namespace), timeout_s
        )

    def _bury(self, namespace: str) -> bool:
        """Whether there was any."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        overdue = datetime.now(UTC) - _MISSED
        leaving = [
            pod
            for pod in self._cluster.server.client.items(path)
            if is_leaving(pod) and pod["spec"].get("nodeName") in self.names
        ]
        for pod in leaving:
            if datetime.fromisoformat(pod["metadata"]["deletionTimestamp"]) < overdue:
                self._cluster.server.client.delete(f"{path}/{pod['metadata']['name']}", grace_s=0)
        return bool(leaving)

    def _are_ready(self) -> bool:
        self.kwok.assert_running()
        nodes = self._cluster.server.client.items("/api/v1/nodes", labelSelector="type=kwok")
        return len(nodes) == len(self.names) and all(map(is_ready, nodes))
