"""The clock of one node is an hour off."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shared.contracts.attach import AttachCompleted
from tests.support.kube_cluster import Cluster
from tests.support.kube_space import Space, assert_distinct
from tests.support.kube_system import System
from tests.support.kube_workload import deployment, stateful_set

WRONG_S = 3600
_TOLERATED_S = 600


@pytest.mark.parametrize("ahead", [True, False])
def test_pods_attach_and_detach_on_a_node_with_a_wrong_clock(tmp_path: Path, ahead: bool) -> None:
    """libfaketime gives node2's agent the wrong time of day; kernel, kubelet and containerd keep the right one, as does all of node1."""
    wrong_s = WRONG_S if ahead else -WRONG_S
    with (
        Cluster(tmp_path / "cluster") as cluster,
        System(cluster, fake_time={"node2": f"{wrong_s:+d}"}) as system,
    ):
        space = Space(cluster, system)
        space.apply(deployment("web", 8), stateful_set("db", 2))
        space.await_pods(10)
        kept = {name: held for name, held in space.addresses().items() if name.startswith("db")}
        space.kubectl("rollout", "restart", "deployment/web", "statefulset/db")
        space.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
        space.kubectl("rollout", "status", "statefulset/db", "--timeout=90s")
        space.await_pods(10)
        addresses = space.addresses()
        assert_distinct(addresses)
        assert kept.items() <= addresses.items()
        assert space.unreachable() == []
        for pod in ("db-0", "db-1"):
            system.kill_sandbox(space.name, pod)
        space.kubectl("scale", "deployment/web", "--replicas=2")
        space.await_pods(4)
        space.await_leases_of(lambda: set(space.addresses()))
        assert system.failures() == []
        assert system.ask.allocator().violations == ()
        # The clock was wrong indeed: what that agent tells carries it.
        told = {
            event.node: event.at_ns / 1e9
            for event in system.ask.events()
            if isinstance(event, AttachCompleted)
        }
        assert abs(told["node1"] - time.time()) < _TOLERATED_S < abs(told["node2"] - time.time())
