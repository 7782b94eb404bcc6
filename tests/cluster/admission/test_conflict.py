"""Objects that exclude each other and come in all the same, at one moment or unjudged: one of them counts, and everybody is told."""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.contracts.ipam import Allocated
from tests.cluster.admission.agent import attach, reasons
from tests.cluster.admission.conftest import OURS, REGISTRATION, Cluster, Json, eventually, pod, pool
from tests.support.kube_client import ApiError

NETWORKS = f"{OURS}/namespaces/default/spidermultusconfigs"
DEFINITIONS = "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions"
EVENTS = "/api/v1/namespaces/default/events"
MANY = 100


@contextlib.contextmanager
def unjudged(cluster: Cluster) -> Iterator[None]:
    """As where somebody took the webhook away, or had it ignore failures while it was down."""
    for kind in ("validating", "mutating"):
        cluster.client.delete(f"{REGISTRATION}/{kind}webhookconfigurations/orbweaver")
    reversed_range = pool("x", "10.0.0.0/30", ips=["10.0.0.2-10.0.0.1"])
    # the API server follows its configurations with a delay
    eventually(lambda: "created" in cluster.told(reversed_range, dry_run=True), "nobody judges")
    try:
        yield
    finally:
        cluster.register(cluster.ports[0])
        eventually(
            lambda: "its ends are reversed" in cluster.told(reversed_range, dry_run=True), "we judge again"
        )


def create_at_once(cluster: Cluster, bodies: list[Json], path: str) -> list[str]:
    """Names of those that were made."""

    def create(body: Json) -> str:
        try:
            return str(cluster.client.create(path, body)["metadata"]["name"])
        except ApiError as error:
            assert error.status in (409, 422), error
            return ""

    with ThreadPoolExecutor(max_workers=25) as many:
        return [name for name in many.map(create, bodies) if name]


def first_of(cluster: Cluster, path: str, names: list[str]) -> str:
    """Who counts of objects that exclude each other."""
    metas = [one["metadata"] for one in cluster.client.items(path) if one["metadata"]["name"] in names]
    return min(metas, key=lambda meta: (meta["creationTimestamp"], meta["uid"]))["name"]


def told(cluster: Cluster, reason: str, name: str) -> list[str]:
    """Messages of the events of an object."""
    return [
        event["message"]
        for event in cluster.client.items(EVENTS)
        if event["reason"] == reason and event["involvedObject"]["name"] == name
    ]


def test_i00010_of_many_pools_at_once_that_nobody_judged_exactly_one_is_used(cluster: Cluster) -> None:
    names = [f"twin-{i}" for i in range(MANY)]
    cluster.client.create("/api/v1/namespaces/default/pods", {**pod("asks"), "metadata": {"name": "asks"}})
    with unjudged(cluster):
        bodies = [pool(name, "10.50.0.0/24", ips=["10.50.0.10-10.50.0.29"]) for name in names]
        assert len(create_at_once(cluster, bodies, f"{OURS}/spiderippools")) == MANY
    winner = first_of(cluster, f"{OURS}/spiderippools", names)

    def settled() -> bool:
        found = reasons(cluster, "twin-*")
        return len(found) == MANY and sum("overlaps with the older" not in why for why in found.values()) == 1

    eventually(settled, "exactly one may serve")
    why = reasons(cluster, "twin-*")
    assert why[winner] == "next address comes from here"
    sentence = (
        f"overlaps with the older IPPool {winner} in 10.50.0.10-10.50.0.29: no address is given from it"
    )
    assert all(text.startswith(sentence) for name, text in why.items() if name != winner)

    given = [one for one in attach(cluster, "many", 60, "twin-*") if isinstance(one, Allocated)]
    addresses = [grant.address for one in given for grant in one.grants]
    assert len(addresses) == len(set(addresses)) == 20
    assert {grant.pool for one in given for grant in one.grants} == {winner}

    others = [name for name in names if name != winner]
    eventually(
        lambda: all(
            any(m.startswith(sentence) for m in told(cluster, "Conflict", name)) for name in others[:5]
        ),
        "who stands back is told",
    )
    eventually(
        lambda: any(
            f"SpiderIPPool {others[0]} overlaps with" in m for m in told(cluster, "Conflict", winner)
        ),
        "who counts is told of each",
    )

    # the winner goes: the next one counts, and gives nothing that is held
    cluster.client.delete(f"{OURS}/spiderippools/{winner}")
    next_one = first_of(cluster, f"{OURS}/spiderippools", others)
    eventually(
        lambda: "overlaps with the older" not in reasons(cluster, next_one)[next_one], "the next one counts"
    )
    assert set(attach(cluster, "late", 5, "twin-*")) == {"pool_exhausted"}
    eventually(lambda: told(cluster, "ConflictEnded", next_one), "the end is told")
    for name in others:
        cluster.client.delete(f"{OURS}/spiderippools/{name}")


def test_pools_that_were_let_in_are_mended_through_the_webhook(cluster: Cluster) -> None:
    with unjudged(cluster):
        for name in ("worn-a", "worn-b"):
            cluster.client.create(
                f"{OURS}/spiderippools", pool(name, "10.51.0.0/24", ips=["10.51.0.10-10.51.0.20"])
            )
    path = f"{OURS}/spiderippools"
    eventually(
        lambda: (
            "overlap with IPPool worn-b"
            in cluster.told(_edit("worn-a", ["10.51.0.10-10.51.0.20"]), dry_run=True)
        ),
        "an overlap that stays is warned of",
    )
    said = cluster.told(_edit("worn-a", ["10.51.0.10-10.51.0.21"]))
    assert "configured" in said and "Warning: spec.ips" in said, "no worse than before"
    cluster.client.patch(f"{path}/worn-b", {"spec": {"disable": True}})
    said = cluster.told(_edit("worn-b", ["10.51.0.21-10.51.0.30"]))
    assert "overlap with IPPool worn-a in IP ranges [10.51.0.21]" in said and "configured" not in said, (
        "that is worse"
    )
    assert "overlap" not in cluster.told(_edit("worn-b", ["10.51.0.30-10.51.0.40"]))
    eventually(lambda: told(cluster, "ConflictEnded", "worn-b"), "the end is told")
    for name in ("worn-a", "worn-b"):
        cluster.client.delete(f"{path}/{name}")


def _edit(name: str, ips: list[str]) -> Json:
    return pool(name, "10.51.0.0/24", ips=ips)


def test_what_came_in_unjudged_stays_usable_and_may_not_get_worse(cluster: Cluster) -> None:
    with unjudged(cluster):
        cluster.client.create(
            f"{OURS}/spiderippools", pool("odd", "10.53.0.0/24", ips=["10.53.0.9-10.53.0.1"])
        )
    path = f"{OURS}/spiderippools/odd"
    assert cluster.client.patch(path, {"spec": {"disable": True}})["spec"]["disable"]
    cluster.client.patch(path, {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(ApiError, match="its ends are reversed"):
        cluster.client.patch(path, {"spec": {"ips": ["10.53.0.9-10.53.0.2"]}})
    cluster.client.patch(path, {"spec": {"ips": ["10.53.0.1-10.53.0.9"]}})
    cluster.client.delete(path)


def network(name: str, target: str, master: str) -> Json:
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderMultusConfig",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"multus.spidernet.io/cr-name": target},
        },
        "spec": {"cniType": "macvlan", "macvlan": {"master": [master]}},
    }


def owner(cluster: Cluster, target: str) -> str:
    """The configuration that the definition comes from."""
    path = f"{DEFINITIONS}/{target}"
    if not cluster.client.exists(path):
        return ""
    return str(cluster.client.get(path)["metadata"]["ownerReferences"][0]["name"])


def test_two_networks_of_one_name_make_one_definition_the_olders(cluster: Cluster) -> None:
    with unjudged(cluster):
        names = create_at_once(
            cluster, [network(f"net-{i}", "shared", f"eth{i}") for i in range(5)], NETWORKS
        )
    assert len(names) == 5
    first = first_of(cluster, NETWORKS, names)
    eventually(lambda: owner(cluster, "shared") == first, "it is rendered from the oldest")
    younger = next(name for name in names if name != first)
    eventually(
        lambda: any(
            f"rendered from the older SpiderMultusConfig default/{first}" in m
            for m in told(cluster, "Conflict", younger)
        ),
        "the others are told",
    )
    uid = cluster.client.get(f"{NETWORKS}/{younger}")["metadata"]["uid"]
    definition = cluster.client.get(f"{DEFINITIONS}/shared")
    definition["metadata"]["ownerReferences"][0] |= {"name": younger, "uid": uid}
    cluster.client.replace(f"{DEFINITIONS}/shared", definition)
    eventually(
        lambda: owner(cluster, "shared") == first, "one that the younger was first to render is taken over"
    )
    cluster.client.delete(f"{NETWORKS}/{first}")
    rest = [name for name in names if name != first]
    second = first_of(cluster, NETWORKS, rest)
    eventually(lambda: owner(cluster, "shared") == second, "it is rendered from the next")
    for name in rest:
        cluster.client.delete(f"{NETWORKS}/{name}")


def test_two_subnets_that_overlap_are_both_told(cluster: Cluster) -> None:
    subnet: Json = {**pool("sub-a", "10.52.0.0/16"), "kind": "SpiderSubnet"}
    other: Json = {**pool("sub-b", "10.52.1.0/24"), "kind": "SpiderSubnet"}
    with unjudged(cluster):
        assert len(create_at_once(cluster, [subnet, other], f"{OURS}/spidersubnets")) == 2
    first = first_of(cluster, f"{OURS}/spidersubnets", ["sub-a", "sub-b"])
    second = "sub-b" if first == "sub-a" else "sub-a"
    eventually(
        lambda: any(
            f"overlaps with the older SpiderSubnet {first}" in m for m in told(cluster, "Conflict", second)
        ),
        "the younger is told",
    )
    assert any(f"SpiderSubnet {second} overlaps" in m for m in told(cluster, "Conflict", first))
    for name in (first, second):
        cluster.client.delete(f"{OURS}/spidersubnets/{name}")


class Balance:
    """A Service of two endpoints: each connection goes to the next of the ports."""

    def __init__(self, *ports: int) -> None:
        self._ports = itertools.cycle(ports)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", next(self._ports)))
                threading.Thread(target=_pass, args=(near, far), daemon=True).start()

    def close(self) -> None:
        self._listener.close()


def _pass(near: socket.socket, far: socket.socket) -> None:
    with near, far, selectors.DefaultSelector() as ready, contextlib.suppress(OSError):
        ready.register(near, selectors.EVENT_READ, far)
        ready.register(far, selectors.EVENT_READ, near)
        while True:
            for key, _ in ready.select():
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(65536)
                if not data:
                    return
                key.data.sendall(data)


@pytest.fixture
def two(cluster: Cluster) -> Iterator[Cluster]:
    """Two replicas that judge side by side."""
    replica = cluster.add_replica()
    replica.logged("facts read")
    balance = Balance(*cluster.ports[-2:])
    cluster.register(balance.port)
    try:
        eventually(
            lambda: "created" in cluster.told(pool("via", "10.59.0.0/24"), dry_run=True), "both are reached"
        )
        yield cluster
    finally:
        cluster.register(cluster.ports[0])
        eventually(
            lambda: "created" in cluster.told(pool("via", "10.59.0.0/24"), dry_run=True), "one is reached"
        )
        balance.close()
        replica.stop()


def test_i00010_whatever_two_replicas_let_in_at_one_moment_one_is_used(two: Cluster) -> None:
    for turn in range(3):
        names = [f"race-{turn}-{i}" for i in range(MANY)]
        subnet = f"10.6{turn}.0.0/24"
        bodies = [pool(name, subnet, ips=[f"10.6{turn}.0.10"]) for name in names]
        made = create_at_once(two, bodies, f"{OURS}/spiderippools")
        assert made
        winner = first_of(two, f"{OURS}/spiderippools", made)

        def settled(turn: int = turn, made: list[str] = made) -> bool:
            found = reasons(two, f"race-{turn}-*")
            return (
                found.keys() == set(made)
                and sum("overlaps with the older" not in w for w in found.values()) == 1
            )

        eventually(settled, "exactly one may serve")
        given = attach(two, f"race-{turn}", 20, f"race-{turn}-*")
        granted = [grant for one in given if isinstance(one, Allocated) for grant in one.grants]
        assert [grant.pool for grant in granted] == [winner]
        assert {one for one in given if not isinstance(one, Allocated)} == {"pool_exhausted"}
