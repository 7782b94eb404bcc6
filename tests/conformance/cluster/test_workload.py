"""Pods of every kind of owner, on real nodes: their addresses, by annotation and by what restricts a pool."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.conformance.case import case
from tests.conformance.cluster.stage import Json, Stage, drawing, until
from tests.conformance.series import AGENT, CONTROLLER
from tests.support.kube_image import BUSYBOX
from tests.support.kube_workload import (
    GROUP,
    IPPOOL,
    NETWORKS,
    deployment,
    macvlan_network,
    pod,
    pool,
    stateful_set,
)

IPPOOLS = "ipam.spidernet.io/ippools"
DEFAULT_POOLS = ("underlay-v4", "underlay-v6")
ZONE = "topology.example.com/zone"


def workload(kind: str, replicas: int, annotations: dict[str, Any], **spec: Any) -> Json:
    """Named `load`; a DaemonSet has a pod on each node, a Job's pods run until they are deleted."""
    if kind == "Pod":
        return pod("load", annotations, **spec)
    whole = copy.deepcopy(deployment("load", replicas, annotations, **spec))
    whole["kind"] = kind
    match kind:
        case "StatefulSet":
            return stateful_set("load", replicas, annotations, **spec)
        case "DaemonSet":
            del whole["spec"]["replicas"]
        case "Job":
            template = whole["spec"]["template"]
            template["spec"]["restartPolicy"] = "Never"
            whole["spec"] = {"completions": replicas, "parallelism": replicas, "template": template}
            whole["apiVersion"] = "batch/v1"
        case _:
            pass
    return whole


@pytest.mark.parametrize(
    ("kind", "count", "families"),
    [
        pytest.param("Pod", 1, (4,), marks=case("E00001")),
        pytest.param("Pod", 1, (6,), marks=case("E00001")),
        pytest.param("Pod", 1, (4, 6), marks=case("E00001")),
        pytest.param("Deployment", 3, (4, 6), marks=case("E00002")),
        pytest.param("Deployment", 2, (6,), marks=case("E00002")),
        pytest.param("StatefulSet", 3, (4, 6), marks=case("E00003")),
        pytest.param("StatefulSet", 2, (4,), marks=case("E00003")),
        pytest.param("DaemonSet", 2, (4, 6), marks=case("E00004")),
        pytest.param("Job", 2, (4, 6), marks=case("E00005")),
        pytest.param("ReplicaSet", 3, (4, 6), marks=case("E00006")),
    ],
)
def test_a_workload(stage: Stage, kind: str, count: int, families: tuple[int, ...]) -> None:
    pools = [stage.pool(name=f"v{family}", family=family) for family in families]
    stage.space.apply(workload(kind, count, drawing(*pools, families=families)))
    stage.space.await_pods(count)
    addresses = stage.sane(*pools)
    assert {len(found) for found in addresses.values()} == {len(families)}
    assert {one["status"]["ownerControllerType"] for one in stage.endpoints().values()} == {kind}
    # a Job counts a pod whose container ended well as done, whoever ended it, and makes no other
    if kind not in ("Pod", "Job"):
        old = stage.uids()
        stage.space.kubectl("delete", "pods", "--all", "--wait=false")
        stage.await_new_pods(count, old)
        again = stage.sane(*pools)
        if kind == "StatefulSet":
            assert again == addresses
    stage.space.kubectl("delete", kind.lower(), "load", "--timeout=120s")
    stage.await_empty(*pools)
    until(lambda: not stage.endpoints(), "no endpoint is left")


@case("E00007")
def test_long_labels_and_annotations(stage: Stage) -> None:
    name = stage.pool()
    wanted = pod("load", drawing(name) | {f"example.com/{n}": "x" * 20_000 for n in range(10)})
    wanted["metadata"]["labels"] |= {f"{'k' * 63}.example.com/{n:0>63}": "v" * 63 for n in range(20)}
    # Not by kubectl, which would keep all of it once more in an annotation of its own.
    stage.client.create(f"/api/v1/namespaces/{stage.name}/pods", wanted)
    stage.space.await_pods(1)
    stage.sane(name)


@case("E00008")
def test_one_address_for_two_pods(stage: Stage) -> None:
    name = stage.pool(3)
    subnet = stage.pool_object(name)["spec"]["subnet"].rpartition(".")[0]
    path = f"/apis/{GROUP}/spiderippools/{name}"
    stage.client.patch(path, {"spec": {"excludeIPs": [f"{subnet}.101-{subnet}.102"]}})
    until(lambda: stage.pool_object(name)["status"]["totalIPCount"] == 1, "one address counts")
    stage.space.apply(pod("first", drawing(name)))
    stage.space.await_pods(1)
    stage.space.apply(pod("second", drawing(name)))
    until(
        lambda: any("all IP addresses used out" in text for text in stage.space.sandbox_failures()),
        "the second is told why it waits",
    )
    assert set(stage.records(name)) == {f"{subnet}.100"}
    stage.space.kubectl("delete", "pod", "first", "--timeout=120s")
    stage.space.await_pods(1)
    assert stage.sane(name) == {"second": {f"{subnet}.100"}}


@case("A00003")
def test_a_pool_that_is_not_there_yet(stage: Stage) -> None:
    """The pod waits, and an event tells for what; with the pool it runs."""
    name = f"{stage.name}-later"
    stage.space.apply(pod("load", drawing(name)))
    until(
        lambda: any(name in text and "not found" in text for text in stage.space.sandbox_failures()),
        "the pod is told why it waits",
    )
    assert stage.endpoints() == {}
    assert stage.space.pods()[0]["status"]["phase"] == "Pending"
    stage.own(name)
    stage.system.apply(pool(name, "172.30.1.0/24", "172.30.1.7", default=False))
    stage.space.await_pods(1)
    assert stage.sane(name) == {"load": {"172.30.1.7"}}


@case("A00003")
@pytest.mark.parametrize("text", ["{", "[]", '{"ipv5": ["a"]}'])
def test_an_annotation_that_nothing_can_cure(stage: Stage, text: str) -> None:
    """It is refused when the pod is made; where admission only warns, the pod waits and an event tells."""
    wanted = pod("load", {IPPOOL: text})
    assert "metadata.annotations[ipam.spidernet.io/ippool]" in stage.refused(wanted)
    stage.settings({"podValidation": "warn"})

    def made() -> bool:
        said = stage.cluster.server.kubectl(
            *("-n", stage.name, "apply", "-f", "-"), stdin=json.dumps(wanted), check=False
        )
        return "created" in said

    until(made, "the webhook only warns")
    until(
        lambda: any("ipam.spidernet.io/ippool" in text for text in stage.space.sandbox_failures()),
        "the pod is told why it waits",
    )
    assert stage.endpoints() == {}


@case("A00008")
def test_several_containers(stage: Stage) -> None:
    pools = [stage.pool(name="v4"), stage.pool(name="v6", family=6)]
    containers = [{"name": f"c{n}", "image": BUSYBOX, "imagePullPolicy": "Never"} for n in range(3)]
    stage.space.apply(pod("load", drawing(*pools, families=(4, 6)), containers=containers))
    stage.space.await_pods(1)
    (addresses,) = stage.sane(*pools).values()
    assert len(addresses) == 2
    for container in containers[1:]:
        seen = stage.space.kubectl("exec", "load", "-c", container["name"], "--", "ip", "addr")
        assert all(address in seen for address in addresses)


@case("A00009")
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_other_pools_in_the_template(stage: Stage, kind: str) -> None:
    old, new = stage.pool(name="old"), stage.pool(name="new")
    stage.space.apply(workload(kind, 2, drawing(old)))
    stage.space.await_pods(2)
    stage.sane(old)
    before = stage.uids()
    stage.space.apply(workload(kind, 2, drawing(new)))
    stage.await_new_pods(2, before)
    stage.await_empty(old)
    stage.sane(new)
    pools = {ip["ipv4Pool"] for one in stage.endpoints().values() for ip in one["status"]["current"]["ips"]}
    assert pools == {new}


@case("A00017")
def test_a_further_network_changes_its_pool(stage: Stage) -> None:
    """eth0 draws from the cluster's default pools: the annotation `ippool` would be for every interface."""
    old, new = stage.pool(name="old"), stage.pool(name="new")
    stage.space.apply(macvlan_network("extra", ipv4=[old]))
    stage.await_definition("extra")
    stage.space.apply(stateful_set("db", 1, {NETWORKS: "extra"}))
    stage.space.await_pods(1)
    stage.sane(*DEFAULT_POOLS, old)
    before = stage.kernel_addresses("db-0")
    uids = stage.uids()
    stage.space.apply(macvlan_network("extra", ipv4=[new]))
    stage.await_definition("extra", contains=new)
    stage.space.kubectl("delete", "pod", "db-0")
    stage.await_new_pods(1, uids)
    stage.await_empty(old)
    stage.sane(*DEFAULT_POOLS, new)
    after = stage.kernel_addresses("db-0")
    assert after["eth0"] == before["eth0"]
    assert set(stage.records(new)) == after["net1"] - set(stage.records(*DEFAULT_POOLS))
    assert len(stage.records(new)) == 1


@case("A00018")
def test_nameless_ippools_of_a_stateful_set(stage: Stage) -> None:
    first, old, new = (stage.pool(name=name) for name in ("first", "old", "new"))

    def wanted(second: str) -> Json:
        marks = {NETWORKS: "extra", IPPOOLS: [{"ipv4": [first]}, {"ipv4": [second]}]}
        return stateful_set("db", 2, marks)

    stage.space.apply(macvlan_network("extra"), wanted(old))
    stage.space.await_pods(2)
    before = stage.sane(first, old)
    assert {len(found) for found in before.values()} == {2}
    uids = stage.uids()
    stage.space.kubectl("delete", "pod", "--all", "--wait=false")
    stage.await_new_pods(2, uids)
    assert stage.sane(first, old) == before
    uids = stage.uids()
    stage.space.apply(wanted(new))
    stage.await_new_pods(2, uids)
    stage.await_empty(old)
    for name, found in stage.sane(first, new).items():
        assert stage.kernel_addresses(name)["net1"] <= set(stage.records(new)), found


@case("L00007")
def test_a_daemon_set_over_two_zones(stage: Stage) -> None:
    nodes = ("node1", "node2")
    zones = {node: f"{stage.name}-{node}" for node in nodes}
    for node, zone in zones.items():
        stage.cluster.server.kubectl("label", "--overwrite", "node", node, f"{ZONE}={zone}")
    pools = {
        node: stage.pool(name=node, nodeAffinity={"matchLabels": {ZONE: zone}})
        for node, zone in zones.items()
    }
    stage.space.apply(workload("DaemonSet", 2, drawing(*pools.values())))
    placed = {one["metadata"]["name"]: one["spec"]["nodeName"] for one in stage.space.await_pods(2)}
    assert set(placed.values()) == set(nodes)
    for name, addresses in stage.sane(*pools.values()).items():
        assert addresses <= set(stage.records(pools[placed[name]]))


@case("L00008")
def test_a_stateful_set_keeps_its_addresses_until_its_pool_changes(stage: Stage) -> None:
    bound = {"matchLabels": {"app": "db"}}
    old, new = (stage.pool(name=name, podAffinity=bound) for name in ("old", "new"))
    stage.space.apply(stateful_set("db", 2, drawing(old)))
    stage.space.await_pods(2)
    before = stage.sane(old)
    uids = stage.uids()
    stage.space.kubectl("rollout", "restart", "statefulset/db")
    stage.await_new_pods(2, uids)
    assert stage.sane(old) == before
    stage.space.kubectl("scale", "statefulset/db", "--replicas=3")
    stage.space.await_pods(3)
    stage.space.kubectl("scale", "statefulset/db", "--replicas=2")
    stage.space.await_pods(2)
    assert stage.sane(old) == before
    uids = stage.uids()
    stage.space.apply(stateful_set("db", 2, drawing(new)))
    stage.await_new_pods(2, uids)
    stage.await_empty(old)
    stage.sane(new)


@case("K00001")
def test_metrics(stage: Stage) -> None:
    """What a scrape finds of the agent of the pod's node and of the controller, before and after a pod."""
    name = stage.pool()
    before = {node.name: stage.series(node.name) for node in stage.cluster.nodes}
    stage.space.apply(pod("load", drawing(name)))
    (running,) = stage.space.await_pods(1)
    stage.space.kubectl("delete", "pod", "load", "--timeout=120s")
    stage.await_empty(name)
    node = running["spec"]["nodeName"]
    assert not set(AGENT) - set(stage.series(node))
    assert not set(CONTROLLER) - set(stage.series())
    for series in ("spiderpool_ipam_allocation_counts_total", "spiderpool_ipam_release_counts_total"):
        assert stage.series(node)[series] >= before[node].get(series, 0.0) + 1
    count = len(stage.client.items(f"/apis/{GROUP}/spiderippools"))
    until(lambda: stage.series()["spiderpool_total_ippool_counts"] == count, "the pools are counted")
