"""The life of an installation: what would become of its leases, and a newer image while pods come and go. Its beginning and its end are in
tests/cluster/deploy."""

from __future__ import annotations

import json
from typing import Any

from tests.support.kube_cluster import Cluster, await_true
from tests.support.kube_installation import NAMESPACE, TAGS, Installation
from tests.support.kube_space import Space, assert_distinct, repeating
from tests.support.kube_workload import deployment, stateful_set

PODS = 8


def test_the_command_tells_what_would_become_of_each_lease(system: Installation, space: Space) -> None:
    space.apply(deployment("web", 2), stateful_set("db", 2))
    space.await_pods(4)

    def verdicts() -> list[dict[str, Any]]:
        words = ("orbweaver", "gc", "--dry-run", "-o", "json")
        said = json.loads(system.kubectl("exec", "deploy/orbweaver-tools", "--", *words))
        assert said["dryRun"] and not said["heldBack"]
        return [one for one in said["verdicts"] if one["podNamespace"] == space.name]

    held = space.addresses()
    told = verdicts()
    assert {one["address"] for one in told} == set().union(*held.values())
    assert {(one["action"], one["rule"]) for one in told} == {("keep", "has addresses"), ("keep", "static")}
    assert all(one["podName"] in one["reason"] for one in told)
    space.kubectl("scale", "statefulset/db", "--replicas=0")
    space.kubectl("delete", "deployment", "web")
    await_true("no verdict without a lease", lambda: not verdicts())


def test_an_upgrade_while_pods_come_and_go(cluster: Cluster, system: Installation, space: Space) -> None:
    space.apply(deployment("web", PODS), stateful_set("db", 2))
    space.await_pods(PODS + 2)
    kept = {name: held for name, held in space.addresses().items() if name.startswith("db")}
    failed_before = system.failures()
    with repeating(lambda number: _churn(space, number)) as rounds:
        system.apply_overlay(TAGS[1])
        system.await_rollout()
        # Some more with everything new.
        reached = len(rounds) + 2
        await_true("pods come and go after the upgrade", lambda: len(rounds) >= reached, 120)
    images = {
        container["image"] for pod in cluster.pods(NAMESPACE) for container in pod["spec"]["containers"]
    }
    assert images == {f"localhost/orbweaver:{TAGS[1]}"}
    space.await_pods(PODS + 2)
    addresses = space.addresses()
    assert_distinct(addresses)
    assert kept.items() <= addresses.items()
    assert space.unreachable() == []
    assert system.failures() == failed_before
    assert space.sandbox_failures() == []
    space.await_leases_of(lambda: set(space.addresses()))


def _churn(space: Space, number: int) -> None:
    """The Deployment restarts, and a pod of the StatefulSet is deleted."""
    space.kubectl("rollout", "restart", "deployment/web")
    space.kubectl("delete", "pod", f"db-{number % 2}", "--wait=false")
    space.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
