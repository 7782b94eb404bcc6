"""A namespace of a cluster with our system, and what a test does in it.

Owns the waiting for what Kubernetes and we do about it. Must not know what the objects are.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

from tests.support.kube import namespace
from tests.support.kube_cluster import Cluster, await_true, is_ready
from tests.support.kube_ours import OurSystem

SETTLE_S = 180.0
_OURS = "/apis/spiderpool.spidernet.io/v2beta1"


class Space:
    """A namespace and what a test does in it."""

    def __init__(self, cluster: Cluster, system: OurSystem) -> None:
        self.cluster = cluster
        self.system = system
        self.name = namespace(cluster.server)
        account = f"/api/v1/namespaces/{self.name}/serviceaccounts/default"
        await_true("the namespace's service account", lambda: cluster.server.client.exists(account))

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return self.cluster.server.kubectl("-n", self.name, *arguments, stdin=stdin)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        documents = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(documents))

    def await_pods(self, count: int, selector: str = "") -> list[dict[str, Any]]:
        return self.cluster.await_pods(self.name, count, selector, SETTLE_S)

    def pods(self, selector: str = "") -> list[dict[str, Any]]:
        return self.cluster.pods(self.name, selector)

    def addresses(self) -> dict[str, set[str]]:
        """What Kubernetes shows of the Ready pods."""
        return {
            pod["metadata"]["name"]: {address["ip"] for address in pod["status"]["podIPs"]}
            for pod in self.pods()
            if is_ready(pod)
        }

    def unreachable(self) -> list[str]:
        return self.cluster.unreachable(self.name, self.pods())

    def sandbox_failures(self) -> list[str]:
        """What the kubelets said of attaches that failed and were repeated."""
        events = self.cluster.server.client.items(f"/api/v1/namespaces/{self.name}/events")
        return [event["message"] for event in events if event["reason"] == "FailedCreatePodSandBox"]

    def await_leases_of(self, pods: Callable[[], set[str]]) -> None:
        """Nobody else in this namespace holds an address any more."""
        await_true(
            f"leases of the pods of {self.name} alone",
            lambda: set(self.system.ask.addresses(self.name)) == pods(),
            SETTLE_S,
            lambda: "\n".join(map(str, self.system.ask.leases(pod_namespace=self.name))),
        )

    def await_status(self) -> None:
        """What Kubernetes shows of addresses is what the leases are: the pools' status, and the SpiderEndpoints of this namespace."""
        await_true(
            "the status of pools and endpoints is as the leases are",
            lambda: self._shown() == self._held(),
            SETTLE_S,
            lambda: f"shown {self._shown()}\nheld {self._held()}",
        )

    def _held(self) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        """Addresses by pool, and by pod of this namespace."""
        of_pools: dict[str, set[str]] = {}
        for lease in self.system.ask.leases():
            if lease.state != "held":
                continue
            of_pools.setdefault(lease.pool, set()).add(lease.address)
        return of_pools, self.system.ask.addresses(self.name)

    def _shown(self) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        client = self.cluster.server.client
        of_pools: dict[str, set[str]] = {}
        for pool in client.items(f"{_OURS}/spiderippools"):
            status = pool.get("status", {})
            listed = set(json.loads(status.get("allocatedIPs", "{}")))
            assert len(listed) == status.get("allocatedIPCount", 0), pool
            if listed:
                of_pools[pool["metadata"]["name"]] = listed
        of_pods: dict[str, set[str]] = {}
        for one in client.items(f"{_OURS}/namespaces/{self.name}/spiderendpoints"):
            details = one["status"]["current"]["ips"]
            texts = [
                detail[family] for detail in details for family in ("ipv4", "ipv6") if detail.get(family)
            ]
            of_pods[one["metadata"]["name"]] = {text.partition("/")[0] for text in texts}
        return of_pools, of_pods

    def delete(self) -> None:
        """The namespace with everything in it; nothing to do is no error."""
        limit = f"--timeout={SETTLE_S:.0f}s"
        self.cluster.server.kubectl("delete", "namespace", self.name, "--ignore-not-found", limit)


def assert_distinct(addresses: Mapping[str, Iterable[str]], each: int = 2) -> None:
    """Every pod has `each` addresses (one a family), and no two have the same."""
    every = list(itertools.chain.from_iterable(addresses.values()))
    assert len(every) == len(set(every)) == each * len(addresses), addresses


@contextmanager
def repeating(one: Callable[[int], None]) -> Generator[list[int]]:
    """Meanwhile `one` is done again and again; the number of each round that ended is told, and at least one has."""
    rounds: list[int] = []
    ended = threading.Event()

    def run() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            one(number)
            rounds.append(number)

    # What a thread starts dies with it (PR_SET_PDEATHSIG): kubectl is done before the thread ends.
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield rounds
    finally:
        ended.set()
        thread.join()
    assert rounds
