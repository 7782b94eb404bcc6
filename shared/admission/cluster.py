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
from shared.selection.precedence import Claims, PoolRivals, rank_of

_NO_NODES: Mapping[str, Node] = {}


class AdmissionCluster:
    """A shared.selection.cluster.Cluster."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.pools: dict[str, PoolFact] = {}
        self.namespaces: dict[str, Namespace] = {}
        self._networks: Claims[NetworkFact] = Claims()
        self._rivals = PoolRivals()

    @property
    def networks(self) -> Mapping[str, NetworkFact]:
        return self._networks.chosen

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
        out._networks = self._networks.copy()
        out._rivals = self._rivals.copy()
        return out

    def pool_before(self, name: str) -> str:
        return self._rivals.before(name)

    def rivals(self, pool: str) -> frozenset[str]:
        return self._rivals.of(pool)

    def put(self, key: ObjectKey, value: Object) -> None:
        match value:
            case SpiderIPPool():
                pool = pool_fact(key.name, value)
                if pool is not None:
                    self.pools[key.name] = pool
                    self._rivals.put(pool)
            case SpiderMultusConfig():
                network = f"{key.namespace}/{value.metadata.annotations.get(CR_NAME) or key.name}"
                # of the spec only the agent reads more, and it is not told from here
                self._networks.put(str(key), network, rank_of(value.metadata), network_fact(value, ""))
            case Namespace():
                self.namespaces[key.name] = value
            case _:
                pass

    def remove(self, key: ObjectKey) -> None:
        match key.kind:
            case "SpiderIPPool":
                self.pools.pop(key.name, None)
                self._rivals.drop(key.name)
            case "SpiderMultusConfig":
                self._networks.drop(str(key))
            case "Namespace":
                self.namespaces.pop(key.name, None)
            case _:
                pass
