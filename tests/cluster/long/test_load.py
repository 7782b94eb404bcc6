"""A thousand pods of a hundred Deployments (Spiderpool's case P00002), most on nodes without a machine, those of the real nodes attached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.kube_cluster import Cluster, await_true
from tests.support.kube_kwok import FakeNodes
from tests.support.kube_space import Space, assert_distinct
from tests.support.kube_system import System
from tests.support.kube_workload import deployment

DEPLOYMENTS, REPLICAS = 100, 10
ON_REAL_NODES = 10
"""So many of them: the scheduler finds the fake nodes, which are large and empty, better for all of them."""
FAKE_NODES = 50
_LIMIT_S = 600.0


def test_a_thousand_pods_are_made_restarted_and_deleted(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path / "cluster") as cluster,
        System(cluster) as system,
        FakeNodes(cluster, FAKE_NODES) as fakes,
    ):
        space = Space(cluster, system)
        names = [f"web-{number}" for number in range(DEPLOYMENTS)]
        real, fake = (_affinity(operator) for operator in ("NotIn", "In"))
        space.apply(
            *(
                deployment(name, REPLICAS, affinity=real if number < ON_REAL_NODES else fake)
                for number, name in enumerate(names)
            )
        )
        cluster.await_pods(space.name, DEPLOYMENTS * REPLICAS, timeout_s=_LIMIT_S)
        _assert_attached(space)
        space.kubectl("rollout", "restart", *(f"deployment/{name}" for name in names))
        for name in names:
            space.kubectl("rollout", "status", f"deployment/{name}", f"--timeout={_LIMIT_S:.0f}s")
        fakes.await_left(space.name, _LIMIT_S)
        cluster.await_pods(space.name, DEPLOYMENTS * REPLICAS, timeout_s=_LIMIT_S)
        _assert_attached(space)
        space.kubectl("delete", "deployments", "--all", f"--timeout={_LIMIT_S:.0f}s")
        fakes.await_left(space.name, _LIMIT_S)
        await_true("pods gone", lambda: not space.pods(), _LIMIT_S)
        space.await_leases_of(set)
        assert system.failures() == []
        assert space.sandbox_failures() == []
        assert system.ask.allocator().violations == ()


def _affinity(operator: str) -> dict[str, Any]:
    """Nodes whose label `type` is (not) that of the fake ones."""
    terms = [{"matchExpressions": [{"key": "type", "operator": operator, "values": ["kwok"]}]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def _assert_attached(space: Space) -> None:
    """The pods of the real nodes have addresses of their own, and nobody else has any."""
    real = {node.name for node in space.cluster.nodes}
    pods = [pod for pod in space.pods() if pod["spec"]["nodeName"] in real]
    assert len(pods) == ON_REAL_NODES * REPLICAS
    addresses = {
        pod["metadata"]["name"]: [address["ip"] for address in pod["status"]["podIPs"]] for pod in pods
    }
    assert_distinct(addresses)
    space.await_leases_of(lambda: set(addresses))
