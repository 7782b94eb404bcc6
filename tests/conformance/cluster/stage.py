"""A cluster of two nodes with all our services, and what one sees in it: objects, refusals, the kernel's addresses, records.

Owns the webhook's place beside the cluster and the waiting. Must not know what a case expects.
"""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from services.webhook.access import default_access
from services.webhook.configuration import NAMESPACE, SERVICE, Reach, Wish, mutating, validating
from shared.settings import ClusterAdmissionSettings, TelemetrySettings, WebhookSettings
from tests.conformance.series import scraped
from tests.support.kube_client import ApiError
from tests.support.kube_cluster import Cluster, is_leaving
from tests.support.kube_space import Space
from tests.support.kube_system import ROOT, System
from tests.support.kube_workload import GROUP, IPPOOL, pool
from tests.support.service import Service

Json = dict[str, Any]
T = TypeVar("T")
OURS = f"/apis/{GROUP}"
NADS = "/apis/k8s.cni.cncf.io/v1"
WAIT_S = 120.0
"""For what takes moments: long, for a machine that does other things too."""
_SETTINGS = "/api/v1/namespaces/kube-system/configmaps/spiderpool-conf"
_WORKLOADS = "deployment,statefulset,daemonset,replicaset,job,pod"
_subnets = itertools.count(1)


def until(look: Callable[[], T], what: str, timeout_s: float = WAIT_S) -> T:
    """What `look` answers as soon as it is true. Raises AssertionError with what it answered last."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}: {found!r}"
        time.sleep(0.1)
    return found


def present(found: T | None) -> T:
    assert found is not None
    return found


def install_network_definitions(cluster: Cluster) -> None:
    """Multus' kind, which must be there when the controller starts."""
    cluster.server.kubectl("apply", "--server-side", "-k", str(ROOT / "deploy" / "crds" / "multus"))


class Admission:
    """Our webhook beside a cluster: the API server calls it by its URL."""

    def __init__(self, cluster: Cluster, system: System) -> None:
        server = cluster.server
        directory = cluster.directory / "webhook"
        directory.mkdir()
        server.client.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        system.apply(*default_access())
        kubeconfig = directory / "kubeconfig"
        server.write_kubeconfig(kubeconfig, token=server.service_account_token(NAMESPACE, SERVICE))
        port = _free_port()
        self.service = Service(
            "services.webhook",
            WebhookSettings(
                replica="webhook-0",
                bus=system.hub_bus("webhook"),
                telemetry=TelemetrySettings(http_address=f"127.0.0.1:{_free_port()}"),
                https_address=f"127.0.0.1:{port}",
                certificates=str(directory / "certificates"),
                cluster=ClusterAdmissionSettings(kubeconfig=str(kubeconfig), namespace=NAMESPACE),
            ),
            directory,
        )
        self.service.start()
        reach = Reach(url=f"https://127.0.0.1:{port}")
        system.apply(validating(reach, Wish()), mutating(reach, Wish()))


class Stage:
    """`space` is the namespace of one case, `name` its name; its pools go with `close`."""

    def __init__(self, cluster: Cluster, system: System) -> None:
        self.cluster = cluster
        self.system = system
        self.client = cluster.server.client
        self.space = Space(cluster, system)
        self.name = self.space.name
        self._pools: list[str] = []
        self._is_set = False

    def close(self) -> None:
        """What is in the namespace goes, then the pools: nothing is left to hold them. The namespace's own end is not waited for, which
        a cluster begins only 5 s after it was asked for (kube-controller-manager, namespaceDeletionGracePeriod)."""
        kubectl = self.cluster.server.kubectl
        kubectl("-n", self.name, "delete", _WORKLOADS, "--all", "--wait=false", check=False)
        kubectl("delete", "namespace", self.name, "--ignore-not-found", "--wait=false")
        self.space.await_leases_of(set)
        if self._is_set:
            self.client.delete(_SETTINGS)
        for name in self._pools:
            self.client.delete(f"{OURS}/spiderippools/{name}")
        until(lambda: not any(self.exists_pool(name) for name in self._pools), "the pools are gone")

    # Objects

    def pool(self, count: int = 20, *, name: str = "a", family: int = 4, **spec: Any) -> str:
        """A new pool of a subnet of its own with `count` addresses; its name."""
        number = next(_subnets)
        whole = f"{self.name}-{name}"
        subnet, first = (
            (f"172.28.{number}.0/24", f"172.28.{number}.")
            if family == 4
            else (f"fd00:28:{number}::/64", f"fd00:28:{number}::")
        )
        last = 100 + count - 1
        ips = f"{first}100-{first}{last}"
        self._pools.append(whole)
        self.system.apply(pool(whole, subnet, ips, default=False, **spec))
        self.await_known(whole)
        return whole

    def settings(self, values: Json) -> None:
        """The ConfigMap of our settings, for this case."""
        self._is_set = True
        self.client.apply(
            _SETTINGS,
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "spiderpool-conf", "namespace": "kube-system"},
                "data": {"conf.yml": json.dumps(values)},
            },
        )

    def own(self, name: str) -> None:
        """This pool too goes with the case."""
        self._pools.append(name)

    def await_known(self, name: str) -> None:
        """The controller has told of it: its status counts."""
        until(lambda: "totalIPCount" in self.pool_object(name).get("status", {}), f"{name} is counted")

    def pool_object(self, name: str) -> Json:
        return self.client.get(f"{OURS}/spiderippools/{name}")

    def exists_pool(self, name: str) -> bool:
        return self.client.exists(f"{OURS}/spiderippools/{name}")

    def refused(self, manifest: Json) -> str:
        """Why the API server takes this object neither as create nor, where it is there, as update. Raises AssertionError if it does."""
        said = self.cluster.server.kubectl(
            *("-n", self.name, "apply", "--dry-run=server", "-f", "-"),
            stdin=json.dumps(manifest),
            check=False,
        )
        assert "(server dry run)" not in said, said
        return said

    def taken(self, manifest: Json) -> Json:
        """The object as the API server would store it."""
        return json.loads(
            self.space.kubectl(
                "create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(manifest)
            )
        )

    def definition(self, name: str) -> Json | None:
        try:
            return self.client.get(f"{NADS}/namespaces/{self.name}/network-attachment-definitions/{name}")
        except ApiError as error:
            assert error.status == 404
            return None

    def await_definition(self, name: str, *, contains: str = "") -> Json:
        def found() -> Json | None:
            definition = self.definition(name)
            return definition if definition and contains in definition["spec"].get("config", "") else None

        return present(until(found, f"definition {name} with {contains!r}"))

    def plugins(self, name: str, *, contains: str = "") -> list[Json]:
        """Of the definition's configuration."""
        return json.loads(self.await_definition(name, contains=contains)["spec"]["config"])["plugins"]

    # Pods

    def kernel_addresses(self, pod: str) -> dict[str, set[str]]:
        """Global addresses by interface, as `ip` in the pod's first container tells them."""
        found: dict[str, set[str]] = {}
        for line in self.cluster.exec(self.name, pod, "ip", "-o", "addr", "show").splitlines():
            words = line.split()
            if words[2] in ("inet", "inet6") and "global" in words:
                found.setdefault(words[1], set()).add(words[3].partition("/")[0])
        return found

    def addresses(self, selector: str = "") -> dict[str, set[str]]:
        """Every address of every pod that is there, as its kernel has them."""
        return {
            name: set().union(*self.kernel_addresses(name).values())
            for name in (pod["metadata"]["name"] for pod in self.space.pods(selector) if not is_leaving(pod))
        }

    def records(self, *pools: str) -> dict[str, Json]:
        """`status.allocatedIPs` by address; each pool's count must agree."""
        found: dict[str, Json] = {}
        for name in pools:
            status = self.pool_object(name).get("status", {})
            records = json.loads(status.get("allocatedIPs", "{}"))
            assert bool(records) == ("allocatedIPs" in status), "a pool without records has no such member"
            assert status.get("allocatedIPCount", 0) == len(records), status
            found |= records
        return found

    def endpoints(self) -> dict[str, Json]:
        items = self.client.items(f"{OURS}/namespaces/{self.name}/spiderendpoints")
        return {one["metadata"]["name"]: one for one in items}

    def sane(self, *pools: str) -> dict[str, set[str]]:
        """Every record of the pools names a pod that is there, by its UID, with an address that its kernel has, and its endpoint says the
        same; no address twice. Returns the addresses by pod."""
        uids = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self.space.pods()}
        addresses = self.addresses()
        every = list(itertools.chain.from_iterable(addresses.values()))
        assert len(every) == len(set(every)), addresses
        expected = {
            (f"{self.name}/{name}", uids[name], address)
            for name, found in addresses.items()
            for address in found
        }

        def recorded() -> set[tuple[str, str, str]]:
            return {(one["pod"], one["podUid"], address) for address, one in self.records(*pools).items()}

        def told() -> set[tuple[str, str, str]]:
            return {
                (f"{self.name}/{name}", one["status"]["current"]["uid"], ip[family].partition("/")[0])
                for name, one in self.endpoints().items()
                for ip in one["status"]["current"]["ips"]
                for family in ("ipv4", "ipv6")
                if ip.get(family)
            }

        until(lambda: recorded() == expected, f"records are {expected}")
        until(lambda: told() == expected, f"endpoints are {expected}")
        return addresses

    def await_empty(self, *pools: str, timeout_s: float = WAIT_S) -> None:
        until(lambda: self.records(*pools) == {}, f"{pools} are empty", timeout_s)

    def series(self, node: str = "") -> dict[str, float]:
        """Of the agent of a node, or of the controller."""
        return scraped([self.system.metrics(node)])

    def await_new_pods(self, count: int, old: set[str]) -> None:
        """`count` Ready pods, none of which has a UID of `old`."""
        until(lambda: not old & {pod["metadata"]["uid"] for pod in self.space.pods()}, "new pods", WAIT_S)
        self.space.await_pods(count)

    def uids(self) -> set[str]:
        return {pod["metadata"]["uid"] for pod in self.space.pods()}


def drawing(*pools: str, families: tuple[int, ...] = ()) -> dict[str, Any]:
    """The annotation by which a pod draws from pools of IPv4, or each from the family named at its place."""
    found: dict[str, list[str]] = {}
    for name, family in zip(pools, families or (4,) * len(pools), strict=True):
        found.setdefault(f"ipv{family}", []).append(name)
    return {IPPOOL: found}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
