"""A cluster that Spiderpool serves, as far as whoever takes over can see it: what its chart installs, what its programs store, and on the
nodes a stand-in of its data path (kube_former_cni.py), by which pods really get their addresses.

Owns what stands where, and when. Must not know the form of it (kube_spiderpool_form.py), nor our system.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from tests.cluster import build
from tests.support import kube_former_cni
from tests.support import kube_spiderpool_form as form
from tests.support.kube_cluster import Cluster
from tests.support.kube_pki import Authority
from tests.support.kube_spiderpool_form import CONFIGURATION, NAMESPACE
from tests.support.kube_workload import GROUP

CNI_CONFIGURATION = "00-multus.conf"
OURS = f"/apis/{GROUP}"
_NETWORKS = "/apis/k8s.cni.cncf.io/v1"
_HOME = kube_former_cni.HOME
_PLUGINS = ("multus", "spiderpool")
_AGENT = {"fieldManager": "spiderpool-agent"}

Json = dict[str, Any]


class Spiderpool:
    """`ranges` is what each node gives of each pool: a name, and per node the first and last address."""

    def __init__(self, cluster: Cluster, pools: Iterable[Json], ranges: Mapping[str, list[str]]) -> None:
        self._cluster = cluster
        self._client = cluster.server.client
        self._pools = {pool["metadata"]["name"]: pool for pool in pools}
        self._ranges = ranges
        self._first = ""

    def install(self, networks: Mapping[str, Json]) -> None:
        """The chart's and the user's objects; `networks` are macvlan blocks of SpiderMultusConfigs, the first is every pod's."""
        for definition in form.definitions():
            self._client.request(
                "POST",
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
                definition,
                query={"fieldManager": "helm"},
            )
        self._cluster.server.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
        self._first = next(iter(networks))
        data = {"conf.yml": form.CONF, "clusterNetwork": self._first}
        meta = {"name": CONFIGURATION, "labels": {"app.kubernetes.io/name": "spiderpool"}}
        self._client.create(f"/api/v1/namespaces/{NAMESPACE}/configmaps", {"metadata": meta, "data": data})
        for pool in self._pools.values():
            self._create("spiderippools", form.as_admitted(pool))
        self._create("spidercoordinators", form.COORDINATOR)
        for name, block in networks.items():
            made = self._create(f"namespaces/{NAMESPACE}/spidermultusconfigs", form.network(name, block))
            self._client.create(
                f"{_NETWORKS}/namespaces/{NAMESPACE}/network-attachment-definitions",
                form.rendered(made, block),
            )
        authority = Authority(self._cluster.directory / "spiderpool-pki").ca_file.read_text()
        for configuration in form.webhooks(authority):
            self._client.create(
                f"/apis/admissionregistration.k8s.io/v1/{configuration['kind'].lower()}s", configuration
            )
        self.install_multus()
        self.start_agents()

    def start_agents(self) -> None:
        """Its plugins are there again, and its agents answer them."""
        source = Path(kube_former_cni.__file__).read_bytes()
        for number, node in enumerate(self._cluster.nodes):
            home = node.path(str(_HOME))
            home.mkdir(exist_ok=True)
            of_node = {name: self._range(name, texts[number]) for name, texts in self._ranges.items()}
            (home / "ranges.json").write_text(json.dumps(of_node))
            for name in _PLUGINS:
                # as an installer does it: whoever runs the present file goes on with it
                fresh = node.path(f"/opt/cni/bin/.{name}")
                fresh.write_bytes(source)
                fresh.chmod(0o755)
                fresh.rename(node.path(f"/opt/cni/bin/{name}"))
            (home / "spiderpool.sock").touch()

    def know_records(self) -> None:
        """What the pools' records say is given, is given: as it reads them before it gives."""
        for pool in self._known().values():
            for address in json.loads(pool["status"].get("allocatedIPs", "{}")):
                for node in self._cluster.nodes:
                    for folder in node.path("/var/lib/cni/networks").iterdir():
                        if not (folder / address).exists():
                            (folder / address).write_text("by its record\r\neth0")

    def stop_agents(self) -> None:
        for node in self._cluster.nodes:
            node.path(str(_HOME / "spiderpool.sock")).unlink()

    def install_multus(self) -> None:
        """Multus in front, which must go on reaching the API server by itself."""
        configuration = {
            "cniVersion": "0.3.1",
            "name": "multus-cni-network",
            "type": "multus",
            "clusterNetwork": self._first,
            "multusNamespace": NAMESPACE,
            "kubeconfig": str(self._cluster.server.kubeconfig),
            "kubectl": str(build.programs() / "kubectl"),
        }
        for node in self._cluster.nodes:
            node.write_cni(CNI_CONFIGURATION, configuration)

    def _range(self, pool: str, text: str) -> Json:
        spec = self._pools[pool]["spec"]
        first, _, last = text.partition("-")
        gateway = {"gateway": spec["gateway"]} if spec.get("gateway") else {}
        return {"subnet": spec["subnet"], "rangeStart": first, "rangeEnd": last, **gateway}

    # What its agents store

    def expected(self, namespace: str) -> tuple[dict[str, Json], dict[str, Json]]:
        """What Spiderpool stores of the pods of the namespace, by what they really have: the records of each pool that gave any, and the
        endpoints by pod."""
        records: dict[str, Json] = {}
        endpoints: dict[str, Json] = {}
        pools = self._known()
        for pod in self._cluster.pods(namespace):
            meta = pod["metadata"]
            details = form.details(shown_addresses(self._cluster, namespace, meta["name"]), pools)
            for detail in details:
                for family in (4, 6):
                    if (pool := detail.get(f"ipv{family}Pool")) is not None:
                        address = str(ip_interface(detail[f"ipv{family}"]).ip)
                        of_pod = {"pod": f"{namespace}/{meta['name']}", "podUid": meta["uid"]}
                        records.setdefault(pool, {})[address] = of_pod
            endpoints[meta["name"]] = form.endpoint(pod, details)
        return records, endpoints

    def record(self, namespace: str) -> None:
        """Stores what is expected, as its agents and its controller do, and takes away what is of pods that are gone."""
        records, endpoints = self.expected(namespace)
        for name in self._known():
            self._store_records(name, records.get(name, {}))
        collection = f"{OURS}/namespaces/{namespace}/spiderendpoints"
        for stored in self._client.items(collection):
            path = f"{collection}/{stored['metadata']['name']}"
            wanted = endpoints.pop(stored["metadata"]["name"], None)
            if wanted is None:
                self._client.patch(path, {"metadata": {"finalizers": None}})
                self._client.delete(path)
            else:
                version = {"resourceVersion": stored["metadata"]["resourceVersion"]}
                wanted = {**wanted, "metadata": {**wanted["metadata"], **version}}
                self._client.request("PUT", path, wanted, query=_AGENT)
        for wanted in endpoints.values():
            self._client.request("POST", collection, wanted, query=_AGENT)

    def _store_records(self, pool: str, records: Json) -> None:
        path = f"{OURS}/spiderippools/{pool}"
        stored = self._client.get(path)
        total = sum(map(form.size_of, stored["spec"]["ips"]))
        stored["status"] = {"allocatedIPCount": len(records), "totalIPCount": total}
        if records:
            stored["status"]["allocatedIPs"] = json.dumps(records, separators=(",", ":"), sort_keys=True)
        self._client.request("PUT", f"{path}/status", stored, query=_AGENT)

    def _known(self) -> dict[str, Json]:
        return {one["metadata"]["name"]: one for one in self._client.items(f"{OURS}/spiderippools")}

    def _create(self, collection: str, body: Json) -> Json:
        return self._client.request("POST", f"{OURS}/{collection}", body, query={"fieldManager": "kubectl"})


def shown_addresses(cluster: Cluster, namespace: str, pod: str) -> dict[str, list[str]]:
    """What a pod's links have, with prefix lengths, by interface."""
    found: dict[str, list[str]] = {}
    for line in cluster.exec(namespace, pod, "ip", "-o", "address", "show").splitlines():
        words = line.split()
        interface, address = words[1], words[3]
        if interface != "lo" and not address.startswith("fe80:"):
            found.setdefault(interface, []).append(address)
    return found
