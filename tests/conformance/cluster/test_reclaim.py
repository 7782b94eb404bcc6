"""Addresses come back: by DEL, by collection where none comes, and while parts of the system restart."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.conformance.case import case
from tests.conformance.cluster.stage import OURS, Json, Stage, drawing, until
from tests.conformance.cluster.test_workload import workload
from tests.support.kube_image import BUSYBOX
from tests.support.kube_space import Space
from tests.support.kube_workload import deployment, pod, stateful_set

_COLLECTED_S = 240.0
PLUGIN = "/opt/cni/bin/orbweaver"


@case("G00001")
def test_a_namespace_deleted(stage: Stage) -> None:
    name = stage.pool()
    stage.space.apply(
        deployment("web", 3, drawing(name)), stateful_set("db", 2, drawing(name)), pod("one", drawing(name))
    )
    stage.space.await_pods(6)
    stage.sane(name)
    stage.space.delete()
    stage.await_empty(name)


@case("G00002")
def test_one_name_in_two_namespaces(stage: Stage) -> None:
    name = stage.pool()
    other = Space(stage.cluster, stage.system)
    try:
        for space in (stage.space, other):
            space.apply(pod("web", drawing(name)))
            space.await_pods(1)
        until(lambda: len(stage.records(name)) == 2, "both are recorded")
        other.kubectl("delete", "pod", "web", "--timeout=120s")
        until(lambda: len(stage.records(name)) == 1, "one is left")
        stage.sane(name)
    finally:
        other.delete()


@case("G00003")
def test_no_plugin_any_more(stage: Stage) -> None:
    """The executable is taken away and the objects are deleted at once: no DEL reaches us."""
    pools = {
        kind: stage.pool(name=kind.lower())
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet")
    }
    plugins = [node.path(PLUGIN) for node in stage.cluster.nodes]
    for kind, name in pools.items():
        whole = workload(kind, 2, drawing(name))
        whole["metadata"]["name"] = kind.lower()
        labels = {"app": kind.lower()}
        if kind != "Job":
            whole["spec"]["selector"]["matchLabels"] = labels
        whole["spec"]["template"]["metadata"]["labels"] = labels
        stage.space.apply(whole)
    stage.space.await_pods(10)
    for plugin in plugins:
        plugin.rename(plugin.with_suffix(".away"))
    try:
        for kind in pools:
            stage.space.kubectl("delete", kind.lower(), kind.lower(), "--cascade=orphan", "--wait=false")
        for replica_set in stage.client.items(f"/apis/apps/v1/namespaces/{stage.name}/replicasets"):
            stage.space.kubectl(
                "delete",
                "replicaset",
                replica_set["metadata"]["name"],
                "--cascade=orphan",
                "--ignore-not-found",
            )
        stage.space.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
        until(lambda: not stage.space.pods(), "the objects are gone")
        stage.await_empty(*pools.values(), timeout_s=_COLLECTED_S)
        until(lambda: not stage.endpoints(), "no endpoint is left")
    finally:
        for plugin in plugins:
            plugin.with_suffix(".away").rename(plugin)


@case("G00004")
def test_deleted_without_grace(stage: Stage) -> None:
    name = stage.pool()
    stage.space.apply(pod("web", drawing(name)))
    stage.space.await_pods(1)
    stage.sane(name)
    stage.space.kubectl("delete", "pod", "web", "--force", "--grace-period=0")
    stage.await_empty(name)


@case("G00005")
@case("G00007")
def test_planted_records(stage: Stage) -> None:
    """One of a pod that is not there, and one of a pod that is there, with another UID: the controller looks once a minute."""
    name = stage.pool()
    stage.space.apply(pod("web", drawing(name)))
    stage.space.await_pods(1)
    ((address,),) = stage.sane(name).values()
    true = stage.records(name)
    start = address.rpartition(".")[0]
    wrong = {
        address: true[address] | {"podUid": "another-uid"},
        f"{start}.110": {"pod": f"{stage.name}/nobody", "podUid": "no-uid"},
    }
    status = {"allocatedIPs": json.dumps(wrong), "allocatedIPCount": len(wrong)}
    stage.client.patch(f"{OURS}/spiderippools/{name}/status", {"status": status})
    assert stage.records(name) == wrong
    until(lambda: stage.records(name) == true, "the records are as they were", 150)
    stage.sane(name)


@case("G00006")
@pytest.mark.parametrize("command", ["true", "false"])
def test_a_job_that_ended(stage: Stage, command: str) -> None:
    name = stage.pool()
    container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": [command]}
    whole = workload("Job", 2, drawing(name), containers=[container])
    whole["spec"]["backoffLimit"] = 0
    stage.space.apply(whole)

    def ended() -> bool:
        phases = [one["status"].get("phase") for one in stage.space.pods()]
        return bool(phases) and set(phases) == {"Succeeded" if command == "true" else "Failed"}

    until(ended, "the job's pods ended")
    stage.await_empty(name)


@case("G00008")
def test_parts_restart_while_pods_come_and_go(stage: Stage) -> None:
    name = stage.pool()
    stage.space.apply(deployment("web", 2, drawing(name)))
    stage.space.await_pods(2)
    parts = (stage.system.controller, *stage.system.agents.values())
    for count, part in zip(itertools.cycle((6, 2)), parts, strict=False):
        part.stop(kill=True)
        stage.space.kubectl("scale", "deployment/web", f"--replicas={count}")
        part.start()
        stage.space.await_pods(count)
    stage.sane(name)


@case("G00010")
def test_a_stateful_set_leaves_the_pool(stage: Stage) -> None:
    """Its pods come up again on the network of their node."""
    name = stage.pool()
    stage.space.apply(stateful_set("db", 2, drawing(name)))
    stage.space.await_pods(2)
    stage.sane(name)
    uids = stage.uids()
    stage.space.apply(stateful_set("db", 2, hostNetwork=True))
    stage.await_new_pods(2, uids)
    stage.await_empty(name, timeout_s=_COLLECTED_S)
    until(lambda: not stage.endpoints(), "no endpoint is left")


@case("G00011")
def test_two_stateful_sets_on_one_pool(stage: Stage) -> None:
    name = stage.pool(8)
    stage.space.apply(*(stateful_set(one, 1, drawing(name)) for one in ("db", "queue")))
    for first, second in ((4, 2), (1, 4), (3, 3)):
        stage.space.kubectl("scale", "statefulset/db", f"--replicas={first}")
        stage.space.kubectl("scale", "statefulset/queue", f"--replicas={second}")
        stage.space.await_pods(first + second)
        stage.sane(name)
    stage.space.kubectl("delete", "statefulsets", "--all", "--timeout=120s")
    stage.await_empty(name)


@case("G00012")
def test_many_kinds_compete_for_one_pool(stage: Stage) -> None:
    name = stage.pool(20)
    wanted: list[Json] = [
        deployment("web", 4, drawing(name)),
        stateful_set("db", 3, drawing(name)),
        pod("one", drawing(name)),
        workload("DaemonSet", 2, drawing(name)),
    ]
    stage.space.apply(*wanted)
    stage.space.await_pods(10)
    for leader in (*stage.system.allocators, stage.system.controller):
        uids = stage.uids()
        leader.stop(kill=True)
        stage.space.kubectl("delete", "pods", "-l", "app in (web,db,load)", "--wait=false")
        leader.start()
        until(lambda uids=uids: len(uids & stage.uids()) <= 1, "the others are new")
        stage.space.await_pods(10)
        stage.sane(name)
    stage.space.kubectl("delete", "deployment,statefulset,daemonset,pod", "--all", "--timeout=120s")
    stage.await_empty(name)
    until(lambda: not stage.endpoints(), "no endpoint is left")
