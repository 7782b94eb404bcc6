"""A node is powered off, and on again."""

from __future__ import annotations

from tests.conformance.case import case
from tests.conformance.cluster.stage import Stage, drawing, until
from tests.support.kube_cluster import is_leaving
from tests.support.kube_workload import deployment, stateful_set

_OFF = "node2"
_GONE_S = 240.0
_AT_ONCE = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
    for key in ("unreachable", "not-ready")
]


def power_off(stage: Stage) -> None:
    """Every process of the node ends at once, and with its pods' network namespaces their interfaces."""
    node = stage.cluster.node(_OFF)
    node.run("sh", "-c", "kill -9 -1", check=False)
    node.run("sh", "-c", "for n in /run/netns/*; do umount $n; rm $n; done", check=False)
    for program in (stage.system.agents[_OFF], stage.system.leaves[_OFF], node.kubelet, node.containerd):
        program.stop(kill=True)


def power_on(stage: Stage) -> None:
    node = stage.cluster.node(_OFF)
    for program in (stage.system.leaves[_OFF], stage.system.agents[_OFF], node.containerd):
        program.start()
    until(lambda: node.ctr("version").returncode == 0, "containerd answers")
    node.kubelet.start()


@case("R00006")
@case("G00009")
def test_a_node_is_powered_off_and_on(stage: Stage) -> None:
    """Its stateless pods' addresses are no longer theirs while it is away; when it is back, what runs there has what is recorded."""
    stateless, static = stage.pool(name="web"), stage.pool(name="db")
    stage.space.apply(
        deployment("web", 4, drawing(stateless), tolerations=_AT_ONCE),
        stateful_set("db", 2, drawing(static)),
    )
    pods = stage.space.await_pods(6)
    stage.sane(stateless, static)
    kept = {
        pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods if "db" in pod["metadata"]["name"]
    }
    lost = {
        pod["status"]["podIP"]
        for pod in pods
        if pod["spec"]["nodeName"] == _OFF and "web" in pod["metadata"]["name"]
    }
    assert lost
    power_off(stage)
    try:
        until(lambda: not lost & set(stage.records(stateless)), "released", _GONE_S)
        running = [one for one in stage.space.pods("app=web") if not is_leaving(one)]
        assert len(running) == 4
        assert not lost & {one["status"].get("podIP") for one in running}, (
            "nobody has them before the node tells"
        )
    finally:
        power_on(stage)
    stage.cluster.await_ready()
    until(lambda: len(stage.space.pods()) == 6, "what was evicted is gone", _GONE_S)
    pods = stage.space.await_pods(6)
    found = stage.sane(stateless, static)
    assert {name: found[name] for name in kept} == {name: {address} for name, address in kept.items()}
