"""What people do with workloads, on a real cluster: every pod has its addresses, none has another's, and none is kept by a pod that is gone."""

from __future__ import annotations

import pytest

from tests.support.kube_cluster import await_true, is_leaving
from tests.support.kube_space import Space, assert_distinct
from tests.support.kube_workload import NETWORKS, deployment, macvlan_network, pod, pool, stateful_set

PODS = 20


def test_pods_of_a_deployment_reach_each_other(space: Space) -> None:
    space.apply(deployment("web", PODS))
    pods = space.await_pods(PODS)
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node1", "node2"}
    assert_distinct(space.addresses())
    assert space.unreachable() == []
    assert space.system.ask.addresses(space.name) == space.addresses()


def test_scale_up_and_down(space: Space) -> None:
    space.apply(deployment("web", 2))
    space.await_pods(2)
    space.kubectl("scale", "deployment/web", "--replicas=12")
    space.await_pods(12)
    assert_distinct(space.addresses())
    space.kubectl("scale", "deployment/web", "--replicas=3")
    space.await_pods(3)
    space.await_leases_of(lambda: set(space.addresses()))
    assert space.unreachable() == []


def test_rolling_restart(space: Space) -> None:
    space.apply(deployment("web", 8))
    before = {pod["metadata"]["name"] for pod in space.await_pods(8)}
    space.kubectl("rollout", "restart", "deployment/web")
    space.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    after = {pod["metadata"]["name"] for pod in space.await_pods(8)}
    assert not before & after
    assert_distinct(space.addresses())
    assert space.unreachable() == []
    space.await_leases_of(lambda: after)


def test_a_drained_node(space: Space) -> None:
    space.apply(deployment("web", 10))
    space.await_pods(10)
    try:
        space.kubectl("drain", "node2", "--ignore-daemonsets", "--timeout=90s", "--pod-selector=app=web")
        pods = space.await_pods(10)
        assert {pod["spec"]["nodeName"] for pod in pods} == {"node1"}
        assert_distinct(space.addresses())
        assert space.unreachable() == []
        space.await_leases_of(lambda: set(space.addresses()))
    finally:
        space.kubectl("uncordon", "node2")


def test_pods_of_a_stateful_set_keep_their_addresses(space: Space) -> None:
    space.apply(stateful_set("db", 4))
    space.await_pods(4)
    before = space.addresses()
    assert_distinct(before)
    uids = {pod["metadata"]["uid"] for pod in space.pods()}
    space.kubectl("delete", "pod", "db-0", "db-1", "db-2", "db-3")
    await_true("new pods", lambda: not uids & {pod["metadata"]["uid"] for pod in space.pods()})
    space.await_pods(4)
    assert space.addresses() == before
    space.kubectl("rollout", "restart", "statefulset/db")
    space.kubectl("rollout", "status", "statefulset/db", "--timeout=90s")
    space.await_pods(4)
    assert space.addresses() == before
    assert space.unreachable() == []


@pytest.mark.parametrize("form", ["list", "json"])
def test_a_pod_with_three_networks(space: Space, form: str) -> None:
    names = ["second", "third"]
    for number, name in enumerate(names, 2):
        space.system.apply(
            pool(
                f"{space.name}-{name}",
                f"172.30.{number}.0/24",
                f"172.30.{number}.10-172.30.{number}.20",
                default=False,
            )
        )
        space.apply(macvlan_network(name, ipv4=[f"{space.name}-{name}"]))
    networks = (
        ",".join(names) if form == "list" else [{"name": name, "namespace": space.name} for name in names]
    )
    space.apply(pod("one", {NETWORKS: networks}), pod("two", {NETWORKS: networks}))
    space.await_pods(2)
    for interface in ("net1", "net2"):
        shown = space.cluster.exec(space.name, "two", "ip", "-4", "-o", "address", "show", interface)
        address = shown.split()[3].partition("/")[0]
        assert address.startswith("172.30.")
        space.cluster.exec(space.name, "one", "ping", "-c", "1", "-W", "3", "-I", interface, address)
    assert all(len(held) == 4 for held in space.system.ask.addresses(space.name).values())
    space.kubectl("delete", "pods", "--all")
    space.await_leases_of(set)
    for name in names:
        space.kubectl("delete", "spiderippool", f"{space.name}-{name}", "--timeout=60s")


def test_a_deleted_namespace_keeps_no_address(space: Space) -> None:
    space.apply(deployment("web", 6), stateful_set("db", 2))
    space.await_pods(8)
    space.delete()
    space.await_leases_of(set)


def test_containers_start_again_with_the_same_addresses(space: Space) -> None:
    """The sandbox dies, the pod lives: its new sandbox is the same pod."""
    space.apply(pod("one", nodeName="node1"))
    space.await_pods(1)
    before = space.addresses()
    space.system.kill_sandbox(space.name, "one")

    def runs_anew() -> bool:
        pods = space.pods()
        statuses = pods[0]["status"].get("containerStatuses", [])
        return not is_leaving(pods[0]) and any(
            status["restartCount"] > 0 and status["ready"] for status in statuses
        )

    await_true("the pod runs in a new sandbox", runs_anew)
    assert space.addresses() == before
