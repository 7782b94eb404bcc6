"""docs/migration.md, step by step, in a cluster whose pods have their addresses from Spiderpool: there, back, and here again.

The pods live through all of it: some ping each other from the first minute to the last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kube_cluster import Cluster, await_true
from tests.support.kube_installation import NAMESPACE, TAGS, Installation
from tests.support.kube_space import Space
from tests.support.kube_spiderpool import (
    CNI_CONFIGURATION,
    OURS,
    Spiderpool,
    shown_addresses,
)
from tests.support.kube_spiderpool_form import FINALIZER, cidr_label
from tests.support.kube_spiderpool_form import NAMESPACE as FORMER
from tests.support.kube_workload import (
    NETWORKS,
    daemon_set,
    deployment,
    pod,
    pool,
    stateful_set,
)

V4, V6, STORAGE = "default-v4-ippool", "underlay-v6", "storage-v4"
POOLS = (
    pool(V4, "10.232.0.0/16", "10.232.8.10-10.232.8.90", gateway="10.232.0.1"),
    pool(V6, "fd00:232::/64", "fd00:232::8:10-fd00:232::8:9f", gateway="fd00:232::1"),
    # a name without a namespace means the one where Spiderpool is
    pool(STORAGE, "172.31.0.0/24", "172.31.0.10-172.31.0.60", default=False, multusName=["storage"]),
)
RANGES = {
    V4: ["10.232.8.10-10.232.8.29", "10.232.8.30-10.232.8.49"],
    V6: ["fd00:232::8:10-fd00:232::8:2f", "fd00:232::8:30-fd00:232::8:4f"],
    STORAGE: ["172.31.0.10-172.31.0.19", "172.31.0.20-172.31.0.29"],
}
SPIDER_NETWORKS = {
    "underlay": {"master": ["eth1"], "ippools": {"ipv4": [V4], "ipv6": [V6]}},
    "storage": {"master": ["eth1"], "ippools": {"ipv4": [STORAGE]}},
}
TWO = {NETWORKS: f"{FORMER}/storage"}
BEGINNING = {
    "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_NAME": "default",
    "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_POD_CIDR_TYPE": "cluster",
    "SPIDERPOOL_INIT_DEFAULT_IPV4_IPPOOL_NAME": V4,
    "SPIDERPOOL_INIT_DEFAULT_IPV4_IPPOOL_SUBNET": "10.232.0.0/16",
    "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_NAME": "default-v6-ippool",
    "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_SUBNET": "fd00:232::/64",
    "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_IPRANGES": '["fd00:232::9:10-fd00:232::9:1f"]',
}

Json = dict[str, Any]
Held = dict[str, dict[str, set[str]]]
"""By pod, by interface, addresses with prefix lengths."""
Stored = tuple[dict[str, Json], dict[str, Json]]


class Migration:
    """A cluster that Spiderpool serves, our installation that is not there yet, and what is compared between them."""

    def __init__(self, cluster: Cluster, archives: list[Path]) -> None:
        self.cluster = cluster
        self.client = cluster.server.client
        self.spiderpool = Spiderpool(cluster, POOLS, RANGES)
        self.system = Installation(
            cluster, archives, components=["spiderpool-settings"], begins_with=BEGINNING
        )
        self.spiderpool.install(SPIDER_NETWORKS)
        self.system.load()
        cluster.await_ready()
        self.space = Space(cluster, self.system)
        self._pinging: list[tuple[str, str]] = []

    # What can be seen

    def held(self) -> Held:
        """What the links of the pods have."""
        return {
            name: {
                ifname: set(of) for ifname, of in shown_addresses(self.cluster, self.space.name, name).items()
            }
            for name in (one["metadata"]["name"] for one in self.space.pods())
        }

    def leased(self) -> Held:
        found: Held = {}
        for lease in self.system.ask.leases(pod_namespace=self.space.name):
            of_pod = found.setdefault(lease.pod_name, {})
            of_pod.setdefault(lease.interface, set()).add(f"{lease.address}/{lease.prefix_len}")
        return found

    def stored(self) -> Stored:
        """`allocatedIPs` of the pools that have any, and the endpoints, as somebody who goes by them reads them."""
        records: dict[str, Json] = {}
        for one in self.client.items(f"{OURS}/spiderippools"):
            status, meta = one["status"], one["metadata"]
            assert meta["finalizers"] == [FINALIZER]
            assert meta["labels"] == {"ipam.spidernet.io/ippool-cidr": cidr_label(one["spec"]["subnet"])}
            assert set(status) <= {"allocatedIPs", "allocatedIPCount", "totalIPCount"}
            of_pool = json.loads(status.get("allocatedIPs", "{}"))
            assert status["allocatedIPCount"] == len(of_pool)
            assert of_pool or "allocatedIPs" not in status
            if of_pool:
                records[meta["name"]] = of_pool
        endpoints = self.client.items(f"{OURS}/namespaces/{self.space.name}/spiderendpoints")
        return records, {one["metadata"]["name"]: as_read(one) for one in endpoints}

    def networks(self) -> dict[str, str]:
        """Every NetworkAttachmentDefinition, and its version."""
        found = self.client.items("/apis/k8s.cni.cncf.io/v1/network-attachment-definitions")
        return {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in found}

    def as_spiderpool_would(self) -> Stored:
        records, endpoints = self.spiderpool.expected(self.space.name)
        return records, {name: as_read(one) for name, one in endpoints.items()}

    def await_stored_as_spiderpool_would(self) -> None:
        await_true(
            "what is stored is what Spiderpool would have stored",
            lambda: self.stored() == self.as_spiderpool_would(),
            30,
            lambda: f"{self.stored()}\n{self.as_spiderpool_would()}",
        )

    def await_leases_as_held(self) -> None:
        await_true(
            "the pods' addresses are leased, and no others",
            lambda: self.leased() == self.held(),
            60,
            lambda: f"{self.leased()}\n{self.held()}",
        )

    def findings(self) -> list[str]:
        return [f"{one.check}: {one.sentence}" for one in self.system.ask.findings() if one.result != "ok"]

    def orbweaver(self, *words: str) -> str:
        return self.system.kubectl("exec", "deploy/orbweaver-tools", "--", "orbweaver", *words)

    def state(self, address: str) -> str:
        [lease] = self.system.ask.leases(address=address.partition("/")[0])
        return lease.state

    def answers(self, address: str) -> bool:
        address = address.partition("/")[0]
        said = self.cluster.exec(
            self.space.name, "double-1", "ping", "-c", "1", "-W", "1", address, check=False
        )
        return " 1 packets received" in said

    # Pings that never stop

    def ping(self, source: str, addresses: Iterable[str]) -> None:
        for address in addresses:
            target = address.partition("/")[0]
            script = f"ping -i 0.2 {target} >/ping.{len(self._pinging)} 2>&1 </dev/null & echo $!"
            pid = self.cluster.exec(self.space.name, source, "sh", "-c", script).strip()
            self._pinging.append((source, pid))

    def lost(self) -> list[str]:
        """Ends the pings; those of which an answer is missing."""
        lost: list[str] = []
        for number, (source, pid) in enumerate(self._pinging):
            script = f"kill -INT {pid}; sleep 1; cat /ping.{number}"
            said = self.cluster.exec(self.space.name, source, "sh", "-c", script)
            sent, received = map(int, re.findall(r"(\d+) packets", said))
            print(f"{source}: {said.splitlines()[0]}: {sent} sent, {received} received")
            assert sent > 100
            # the last one may be under way
            if sent - received > 1:
                lost.append(f"{source}: {said.splitlines()[0]}: {sent} sent, {received} received")
        return lost

    # The steps of docs/migration.md

    def take_spiderpool_away(self) -> None:
        kinds = "validatingwebhookconfigurations,mutatingwebhookconfigurations"
        self.cluster.server.kubectl("delete", kinds, "spiderpool-controller", "--ignore-not-found")
        self.spiderpool.stop_agents()

    def apply_ours(self) -> None:
        self.system.apply_overlay(TAGS[0], "--server-side", "--force-conflicts")
        self.system.await_rollout()

    def take_multus_away(self) -> None:
        for node in self.cluster.nodes:
            node.run("rm", f"/etc/cni/net.d/{CNI_CONFIGURATION}")

    def take_ours_away(self) -> None:
        kubectl = self.cluster.server.kubectl
        ours = ("-l", "app.kubernetes.io/part-of=orbweaver")
        kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")
        of_admission = "validatingwebhookconfigurations,mutatingwebhookconfigurations"
        kubectl("delete", f"{of_admission},clusterroles,clusterrolebindings", *ours)
        kubectl("-n", FORMER, "delete", "roles,rolebindings", *ours)
        kubectl("-n", FORMER, "delete", "configmap/orbweaver-lease-log", "lease/orbweaver-controller")
        for node in self.cluster.nodes:
            node.run("rm", "-rf", "/etc/cni/net.d/05-orbweaver.conflist", "/var/lib/orbweaver")


def as_read(endpoint: Json) -> Json:
    meta = endpoint["metadata"]
    owners = [(o["apiVersion"], o["kind"], o["name"], o["uid"]) for o in meta.get("ownerReferences", ())]
    return {"owners": owners, "finalizers": meta["finalizers"], "status": endpoint["status"]}


def flat(held: Held) -> set[str]:
    return {address for of_pod in held.values() for of in of_pod.values() for address in of}


@pytest.fixture
def migration(tmp_path: Path, archives: list[Path]) -> Iterator[Migration]:
    with Cluster(tmp_path / "cluster") as cluster:
        yield Migration(cluster, archives)


def test_there_and_back_and_here_again(migration: Migration) -> None:
    _spiderpool_serves(migration)
    _there(migration)
    _migrated_pods_end(migration)
    _back(migration)
    _here_again(migration)
    assert migration.lost() == []


def _spiderpool_serves(migration: Migration) -> None:
    space = migration.space
    space.apply(
        deployment("web", 3),
        stateful_set("db", 2),
        daemon_set("each"),
        pod("double-1", TWO, nodeName="node1"),
        pod("double-2", TWO, nodeName="node2"),
        pod("last", nodeName="node1"),
    )
    space.await_pods(10)
    migration.spiderpool.record(space.name)
    held = migration.held()
    assert migration.stored() == migration.as_spiderpool_would()
    assert {name: len(of) for name, of in migration.stored()[0].items()} == {V4: 10, V6: 10, STORAGE: 2}
    migration.ping("double-1", flat({"double-2": held["double-2"]}))
    migration.ping("double-2", flat({"db-1": held["db-1"]}))


def _there(migration: Migration) -> None:
    space, system = migration.space, migration.system
    before, networks, (records, endpoints) = migration.held(), migration.networks(), migration.stored()
    pools = {one["metadata"]["name"]: one["spec"] for one in migration.client.items(f"{OURS}/spiderippools")}
    migration.take_spiderpool_away()
    # What ends and begins meanwhile waits for whoever comes.
    doomed = next(name for name in before if name.startswith("web"))
    space.kubectl("delete", "pod", doomed, "--wait=false")
    migration.apply_ours()
    migration.take_multus_away()
    space.await_pods(10)

    kept = {name: held for name, held in before.items() if name != doomed}
    held = migration.held()
    assert {name: held[name] for name in kept} == kept
    assert not flat({name: of for name, of in held.items() if name not in kept}) & flat(before)
    migration.await_leases_as_held()
    migration.await_stored_as_spiderpool_would()
    now_records, now_endpoints = migration.stored()
    assert {name: now_endpoints[name] for name in kept} == {name: endpoints[name] for name in kept}
    for name, of_pool in records.items():
        former = {address: one for address, one in of_pool.items() if not one["pod"].endswith(f"/{doomed}")}
        assert former.items() <= now_records[name].items()

    # What an installation begins with is there; what was there is as it was.
    now = {one["metadata"]["name"]: one["spec"] for one in migration.client.items(f"{OURS}/spiderippools")}
    assert now.keys() - pools.keys() == {"default-v6-ippool"}
    assert now.items() >= pools.items()
    assert now["default-v6-ippool"]["default"] is True
    assert migration.networks() == networks
    [coordinator] = migration.client.items(f"{OURS}/spidercoordinators")
    assert coordinator["spec"]["podCIDRType"] == "none"

    # New pods beside the migrated ones; the network's pool is for kube-system/storage by its bare name.
    space.apply(pod("new", TWO, nodeName="node2"))
    space.await_pods(11)
    held = migration.held()
    assert not flat({"new": held["new"]}) & flat(before)
    assert {name: len(of) for name, of in held["new"].items()} == {"eth0": 2, "net1": 1}
    assert space.unreachable() == []
    migration.await_leases_as_held()
    assert migration.findings() == []
    # A person who has collected whatever may go takes nothing from a pod that came along.
    assert json.loads(migration.orbweaver("gc", "-o", "json"))["verdicts"] == []
    migration.await_leases_as_held()
    assert migration.held() == held
    assert system.failures() == []


def _migrated_pods_end(migration: Migration) -> None:
    """In every way: deleted, re-created, in a new sandbox."""
    space, system, cluster = migration.space, migration.system, migration.cluster
    before = migration.held()
    system.kubectl("rollout", "restart", "daemonset/orbweaver-agent")
    system.await_rollout()
    migration.await_leases_as_held()

    space.kubectl("delete", "pod", "last", "db-0")
    each = [name for name in before if name.startswith("each")][-1]
    node = next(one["spec"]["nodeName"] for one in space.pods() if one["metadata"]["name"] == each)
    cluster.node(node).kill_sandbox(space.name, each)
    await_true(f"{each} in a sandbox of ours", lambda: f"{space.name}/{each}" in system.live())
    space.await_pods(10)
    held = migration.held()
    ended = flat({"last": before.pop("last")})
    assert {address for address in ended if migration.answers(address)} == set()
    assert {migration.state(address) for address in ended} == {"resting"}
    assert held == before
    migration.await_leases_as_held()
    migration.await_stored_as_spiderpool_would()
    assert f"{space.name}/db-0" in system.live()
    assert space.unreachable() == []


def _back(migration: Migration) -> None:
    space, spiderpool = migration.space, migration.spiderpool
    before = migration.held()
    migration.take_ours_away()
    assert migration.stored() == migration.as_spiderpool_would()
    spiderpool.know_records()
    spiderpool.install_multus()
    spiderpool.start_agents()
    space.kubectl("delete", "pod", "new")
    space.apply(pod("theirs", TWO, nodeName="node2"))
    space.await_pods(10)
    spiderpool.record(space.name)
    held = migration.held()
    assert not flat({"theirs": held.pop("theirs")}) & flat(before)
    assert before.pop("new") and held == before
    assert space.unreachable() == []


def _here_again(migration: Migration) -> None:
    """With Multus in front this time: it calls macvlan, which calls us for the addresses."""
    space, system = migration.space, migration.system
    before = migration.held()
    migration.take_spiderpool_away()
    migration.apply_ours()
    migration.await_leases_as_held()
    assert migration.held() == before
    space.apply(pod("ours", TWO, nodeName="node1"))
    space.await_pods(11)
    assert not flat({"ours": migration.held()["ours"]}) & flat(before)
    assert space.unreachable() == []
    space.kubectl("delete", "pod", "theirs", "ours", "db-0")
    space.await_pods(9)
    assert migration.held() == {name: of for name, of in before.items() if name != "theirs"}
    migration.await_leases_as_held()
    migration.await_stored_as_spiderpool_would()
    assert migration.findings() == []
    assert system.failures() == []
