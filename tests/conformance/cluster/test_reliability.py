"""Parts of the cluster and of our system restart: pods run in the end, with one address each."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest

from shared.settings import ControllerSettings, TelemetrySettings
from tests.conformance.case import case
from tests.conformance.cluster.stage import Stage, drawing, until
from tests.support.kube_workload import deployment
from tests.support.service import Service

_LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/orbweaver-controller"


def restart_controller(stage: Stage) -> None:
    stage.system.controller.stop(kill=True)
    stage.system.controller.start()


def restart_etcd(stage: Stage) -> None:
    stage.cluster.server.etcd.stop(kill=True)
    stage.cluster.server.start_etcd()


def restart_api_server(stage: Stage) -> None:
    stage.cluster.server.stop_api()
    stage.cluster.server.start_api()


def restart_agents(stage: Stage) -> None:
    for agent in stage.system.agents.values():
        agent.stop(kill=True)
        agent.start()


@pytest.mark.parametrize(
    "restart",
    [
        pytest.param(restart_controller, marks=case("R00001")),
        pytest.param(restart_etcd, marks=case("R00002")),
        pytest.param(restart_api_server, marks=case("R00003")),
        pytest.param(restart_agents, marks=case("R00004")),
    ],
)
def test_a_restart(stage: Stage, restart: Callable[[Stage], None]) -> None:
    name = stage.pool()
    stage.space.apply(deployment("before", 2, drawing(name)))
    stage.space.await_pods(2)
    kept = stage.addresses()
    stage.space.apply(deployment("meanwhile", 2, drawing(name)))
    restart(stage)
    until(lambda: stage.client.exists("/api/v1/namespaces/default"), "the API answers")
    stage.space.apply(deployment("after", 2, drawing(name)))
    stage.space.await_pods(6)
    found = stage.sane(name)
    assert {pod: found[pod] for pod in kept} == kept


@case("R00005")
def test_the_clusters_dns_restarts(stage: Stage) -> None:
    """Its pods are a stand-in without a server in it: what is tried is that nothing of an attach waits for them."""
    of_dns, name = stage.pool(name="dns"), stage.pool()
    kubectl = stage.cluster.server.kubectl
    dns = deployment("coredns", 2, drawing(of_dns))
    labels = {"k8s-app": "kube-dns"}
    dns["spec"]["selector"]["matchLabels"] = labels
    dns["spec"]["template"]["metadata"]["labels"] = labels
    kubectl("-n", "kube-system", "apply", "-f", "-", stdin=json.dumps(dns))
    try:
        old = {
            one["metadata"]["uid"]
            for one in stage.cluster.await_pods("kube-system", 2, "k8s-app=kube-dns", 120)
        }
        kubectl("-n", "kube-system", "delete", "pods", "-l", "k8s-app=kube-dns", "--wait=false")
        stage.space.apply(deployment("web", 3, drawing(name)))
        stage.space.await_pods(3)
        stage.sane(name)
        new = stage.cluster.await_pods("kube-system", 2, "k8s-app=kube-dns", 120)
        assert not old & {one["metadata"]["uid"] for one in new}
    finally:
        kubectl(
            "-n", "kube-system", "delete", "deployment", "coredns", "--cascade=foreground", "--timeout=120s"
        )
    stage.await_empty(of_dns)


@case("R00007")
def test_the_leading_controller_is_killed(stage: Stage) -> None:
    known = msgspec.json.decode(
        (stage.system.directory / "controller-0.json").read_bytes(), type=ControllerSettings
    )
    directory = stage.cluster.directory / "second"
    directory.mkdir()
    second = Service(
        "services.controller",
        msgspec.structs.replace(known, replica="controller-1", telemetry=TelemetrySettings()),
        directory,
    )
    second.start()
    try:
        stage.system.controller.stop(kill=True)
        until(
            lambda: stage.client.get(_LEASE)["spec"]["holderIdentity"].startswith("controller-1"),
            "the other leads",
            90,
        )
        name = stage.pool()
        stage.space.apply(deployment("web", 3, drawing(name)))
        stage.space.await_pods(3)
        stage.sane(name)
        stage.space.kubectl("delete", "deployment", "web")
        stage.await_empty(name)
    finally:
        second.kill()
        stage.system.controller.start()
