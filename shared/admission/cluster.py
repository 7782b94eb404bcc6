"""The store of admission as selection reads it: typed pools, networks by the name that pods use, namespaces.

Owns that view, kept in step object by object. Nodes are not in it: nobody knows yet where a new pod will run. Must not know rules.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.manifests.annotations import CR_NAME
from shared.manifests.document import ObjectKey
from shared.manifests.ipam import SpiderIPPool
from shared.manifests.meta import Object
from shared.manifests.network import SpiderMultusConfig
from shared.manifests.settings import Settings
from shared.manifests.workload import Namespace, Node
from shared.selection.cluster import NetworkFact, PoolFact, network_fact, pool_fact

_NO_NODES: Mapping[str, Node] = {}


class AdmissionCluster:
    """A shared.selection.cluster.Cluster."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.pools: dict[str, PoolFact] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.networks: dict[str, NetworkFact] = {}
        self._network_names: dict[ObjectKey, str] = {}

    @property
    def nodes(self) -> Mapping[str, Node]:
        return _NO_NODES

    @property
    def installation_namespace(self) -> str:
        return self.settings.namespace

    @property
    def cluster_network(self) -> str:
        return self.settings.cluster_network

    def copy(self) -> AdmissionCluster:
        out = AdmissionCluster()
        out.settings = self.settings
        out.pools = dict(self.pools)
        out.namespaces = dict(self.namespaces)
        out.networks = dict(self.networks)
        out._network_names = dict(self._network_names)
        return out

    def put(self, key: ObjectKey, value: Object) -> None:
        match value:
            case SpiderIPPool():
                pool = pool_fact(key.name, value)
                if pool is not None:
                    self.pools[key.name] = pool
            case SpiderMultusConfig():
                network = f"{key.namespace}/{value.metadata.annotations.get(CR_NAME) or key.name}"
                self._network_names[key] = network
                # of the spec only the agent reads more, and it is not told from here
                self.networks[network] = network_fact(value, "")
            case Namespace():
                self.namespaces[key.name] = value
            case _:
                pass

    def remove(self, key: ObjectKey) -> None:
        match key.kind:
            case "SpiderIPPool":
                self.pools.pop(key.name, None)
            case "SpiderMultusConfig":
                network = self._network_names.pop(key, "")
                if network not in self._network_names.values():
                    self.networks.pop(network, None)
            case "Namespace":
                self.namespaces.pop(key.name, None)
            case _:
                pass
