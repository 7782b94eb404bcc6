"""overlays/prod on three nodes: three servers of the hub, two replicas of each service. Parts are taken away while pods come and go."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.bus.settings import CLIENT_PORT, CLUSTER_PORT, LEAFNODES_PORT
from services.bus.vault import HUB_SECRET, identity_secret
from shared.subjects import HUB_IDENTITIES
from tests.cluster.deploy.conftest import POOLS
from tests.support.kube_client import ApiError
from tests.support.kube_cluster import Cluster, await_true, is_leaving, is_ready
from tests.support.kube_installation import NAMESPACE, TAGS, Installation
from tests.support.kube_space import Space, assert_distinct, repeating
from tests.support.kube_workload import deployment

PODS = 6
NODES = ("node1", "node2", "node3")
REPLICATED = ("orbweaver-allocator", "orbweaver-controller", "orbweaver-webhook")
PLAIN = {5711, 5713, 5721, 5723, 5725}
"""Metrics and probes. Nothing secret is on them; the kubelet speaks no TLS with a client's authority."""
OURS = range(5700, 5800)
SETTLE_S = 120.0
SILENCE_S = 2.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), nodes=3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def system(cluster: Cluster, archive: Path) -> Installation:
    for node in NODES:
        cluster.server.kubectl("label", "node", node, "orbweaver.io/hub=")
    system = Installation(cluster, [archive], overlay="prod", components=["default-network"])
    system.load()
    began = time.monotonic()
    system.apply_overlay(TAGS[0], "--server-side")
    system.await_rollout()
    print(f"Ready {time.monotonic() - began:.1f} s after the apply")
    system.apply(*POOLS)
    cluster.await_ready()
    return system


@pytest.fixture
def space(cluster: Cluster, system: Installation) -> Iterator[Space]:
    space = Space(cluster, system)
    yield space
    space.delete()
    space.await_leases_of(set)
    assert system.ask.allocator().violations == ()


def pods_of(system: Installation, name: str) -> list[dict[str, Any]]:
    return system.cluster.pods(NAMESPACE, f"app.kubernetes.io/name={name}")


def ready(system: Installation, name: str, count: int) -> bool:
    pods = pods_of(system, name)
    return len(pods) == count and all(is_ready(pod) and not is_leaving(pod) for pod in pods)


def await_whole(system: Installation) -> None:
    counts = {"orbweaver-nats": 3, "orbweaver-agent": 3, "orbweaver-rdma": 3, **dict.fromkeys(REPLICATED, 2)}
    await_true(
        "every part is Ready",
        lambda: all(ready(system, *one) for one in counts.items()),
        SETTLE_S,
        system.why,
    )


def status(system: Installation) -> dict[str, Any]:
    """As the command in the cluster tells it; behind the document kubectl tells its exit code."""
    words = ("exec", "deploy/orbweaver-tools", "--", "orbweaver", "status", "-o", "json")
    said = system.kubectl(*words, check=False)
    if not said.startswith("{"):
        return {"ready": False, "reasons": [said]}
    return json.JSONDecoder().raw_decode(said)[0]


def await_status(system: Installation) -> None:
    await_true(
        "status is ready",
        lambda: status(system)["ready"],
        SETTLE_S,
        lambda: str(status(system)["reasons"]),
    )


def kill(system: Installation, pod: dict[str, Any], container: str) -> None:
    """Its process, as a crash ends it; the kubelet starts it again."""
    (found,) = [one for one in pod["status"]["containerStatuses"] if one["name"] == container]
    node = system.cluster.node(pod["spec"]["nodeName"])
    done = node.ctr("tasks", "kill", "--signal", "KILL", found["containerID"].removeprefix("containerd://"))
    assert done.returncode == 0, done.stderr


def evict(system: Installation, pod: str) -> bool:
    """As `kubectl drain` asks; False if a PodDisruptionBudget says no."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    try:
        system.cluster.server.client.create(
            path, {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        )
    except ApiError as error:
        if error.status == 429:
            return False
        raise
    return True


def exchange(space: Space) -> None:
    """All pods of the Deployment, once."""
    space.kubectl("rollout", "restart", "deployment/web")
    space.kubectl("rollout", "status", "deployment/web", "--timeout=150s")


def await_rounds(rounds: list[int], more: int = 1) -> None:
    reached = len(rounds) + more
    await_true("pods come and go", lambda: len(rounds) >= reached, SETTLE_S)


def test_all_of_it_is_there_and_started_once(system: Installation) -> None:
    await_whole(system)
    ended = [
        f"{pod['metadata']['name']}/{one['name']}:\n"
        + system.kubectl("logs", "--previous", pod["metadata"]["name"], "-c", one["name"], check=False)
        for pod in system.cluster.pods(NAMESPACE)
        for one in pod["status"]["containerStatuses"]
        if one["restartCount"]
    ]
    assert ended == [], "\n".join(ended)
    assert {pod["spec"]["nodeName"] for pod in pods_of(system, "orbweaver-nats")} == set(NODES)
    for name in REPLICATED:
        assert len({pod["spec"]["nodeName"] for pod in pods_of(system, name)}) == 2, name
    client = system.cluster.server.client
    assert client.exists(f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies/orbweaver")


def test_the_command_tells_of_all_of_it(system: Installation) -> None:
    await_status(system)
    told = status(system)
    assert told["hub"]["servers"] == ["orbweaver-nats-0", "orbweaver-nats-1", "orbweaver-nats-2"]
    for stream in told["hub"]["streams"]:
        assert len(stream["replicas"]) == 2 and all(copy["current"] for copy in stream["replicas"]), stream
    heard = [one["service"] for one in told["services"]]
    assert {name: heard.count(name) for name in set(heard)} == {
        "allocator": 2, "controller": 2, "webhook": 2, "agent": 3, "rdma": 3,
    }  # fmt: skip
    said = system.kubectl("exec", "deploy/orbweaver-tools", "--", "orbweaver", "doctor", check=False)
    assert said.splitlines()[-1] == "all is well", said


def test_what_others_reach_of_a_node_is_encrypted(system: Installation) -> None:
    for node in system.cluster.nodes:
        open_ports: set[int] = set()
        for line in node.run("ss", "-ltnH").stdout.splitlines():
            address, _, port = line.split()[3].rpartition(":")
            if int(port) in OURS and not address.startswith("127."):
                open_ports.add(int(port))
                if int(port) not in PLAIN:
                    assert is_encrypted(address.strip("[]"), int(port)), f"{node.name} {address}:{port}"
        assert open_ports >= {CLIENT_PORT, CLUSTER_PORT, LEAFNODES_PORT, 5711, 5713}


def is_encrypted(address: str, port: int) -> bool:
    """Whether who speaks plainly there is not served, and TLS is spoken: after the greeting of a NATS server, where it has one."""
    with socket.create_connection((address, port), timeout=SILENCE_S) as plain:
        said = received(plain)
        plain.sendall(b'CONNECT {"verbose":true}\r\nPING\r\n' if said else b"GET / HTTP/1.0\r\n\r\n")
        answers = drained(plain)
        if b"+OK" in answers or b"PONG" in answers or answers.startswith(b"HTTP/1.0 2"):
            return False
    with socket.create_connection((address, port), timeout=SILENCE_S) as connection:
        if said:
            received(connection)
        connection.settimeout(10)
        # Whose certificate it is, the services check: here it matters that there is one.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(connection) as encrypted:
            return encrypted.version() in ("TLSv1.2", "TLSv1.3")


def received(connection: socket.socket) -> bytes:
    """What comes by itself."""
    try:
        return connection.recv(65536)
    except TimeoutError:
        return b""


def drained(connection: socket.socket) -> bytes:
    found = b""
    try:
        while more := connection.recv(65536):
            found += more
    except OSError:
        pass
    return found


def test_pods_attach_while_parts_are_killed(system: Installation, space: Space) -> None:
    space.apply(deployment("web", PODS))
    space.await_pods(PODS)
    failed = system.failures()
    with repeating(lambda _: exchange(space)) as rounds:
        leader = status(system)["allocator"]["replica"]
        (pod,) = [one for one in pods_of(system, "orbweaver-allocator") if one["metadata"]["name"] == leader]
        kill(system, pod, "allocator")
        await_rounds(rounds)
        (stream,) = [one for one in status(system)["hub"]["streams"] if one["name"] == "LEASES"]
        (pod,) = [
            one for one in pods_of(system, "orbweaver-nats") if one["metadata"]["name"] == stream["leader"]
        ]
        kill(system, pod, "nats")
        await_rounds(rounds)
        agent = next(one for one in pods_of(system, "orbweaver-agent") if one["spec"]["nodeName"] == "node2")
        for container in ("agent", "leaf"):
            kill(system, agent, container)
        await_rounds(rounds)
    await_whole(system)
    space.await_pods(PODS)
    assert_distinct(space.addresses())
    assert space.unreachable() == []
    assert system.failures() == failed
    assert space.sandbox_failures() == []
    space.await_leases_of(lambda: set(space.addresses()))


def test_a_drain_takes_one_of_each_at_a_time(system: Installation, space: Space) -> None:
    await_whole(system)
    for name in ("orbweaver-nats", *REPLICATED):
        first, second, *_ = (pod["metadata"]["name"] for pod in pods_of(system, name))
        assert evict(system, first), name
        assert not evict(system, second), f"{name}: two at once"
    # Pods attach while one of each is away.
    space.apply(deployment("web", PODS))
    space.await_pods(PODS)
    assert_distinct(space.addresses())
    await_whole(system)
    assert space.sandbox_failures() == []


def test_all_secrets_are_made_anew(system: Installation, space: Space) -> None:
    """As docs/deploy.md has it."""
    await_whole(system)
    client = system.cluster.server.client
    secrets = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    names = [HUB_SECRET, *(identity_secret(identity) for identity in HUB_IDENTITIES)]
    before = {name: client.get(f"{secrets}/{name}")["data"] for name in names}
    for name in names:
        system.kubectl("patch", "secret", name, "--type=merge", '-p={"data":null}')
    system.kubectl("patch", "configmap", "orbweaver-bus", "--type=merge", '-p={"data":null}')
    system.kubectl("delete", "pods", "--all")
    await_whole(system)
    for name in names:
        assert client.get(f"{secrets}/{name}")["data"] != before[name], name
    await_status(system)
    space.apply(deployment("web", PODS))
    space.await_pods(PODS)
    assert space.unreachable() == []
