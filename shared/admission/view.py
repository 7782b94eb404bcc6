"""What admission sees of the other objects, and a store that shows it.

Owns the `View` that every rule reads, and `Objects`, the store in memory behind the webhook, the validate command and the
folder of manifests. Must not fetch anything: whoever holds the store feeds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, cast

from shared.admission.addressing import network_of
from shared.admission.cluster import AdmissionCluster
from shared.manifests import shape
from shared.manifests.document import ObjectKey
from shared.manifests.ipam import SpiderIPPool, SpiderSubnet
from shared.manifests.kinds import BY_KIND, GROUP, group_of
from shared.manifests.meta import Json, Object
from shared.manifests.network import NetworkAttachmentDefinition, SpiderMultusConfig
from shared.manifests.problem import Invalid
from shared.manifests.settings import CONFIG_MAP, Settings, settings_of
from shared.manifests.workload import ConfigMap, Namespace
from shared.net.network_index import NetworkIndex
from shared.net.ranges import Network
from shared.selection.cluster import Cluster


class View(Protocol):
    """The other objects. Every look-up is from memory."""

    @property
    def settings(self) -> Settings: ...

    @property
    def cluster(self) -> Cluster:
        """The same, as selection reads it."""
        ...

    def pools(self) -> Iterable[SpiderIPPool]: ...

    def pool(self, name: str) -> SpiderIPPool | None: ...

    def pools_overlapping(self, network: Network) -> Iterable[SpiderIPPool]:
        """Those whose subnet shares an address with `network`."""
        ...

    def rivals(self, pool: str) -> frozenset[str]:
        """The pools that a stored pool excludes as it is (precedence.py): they came in at one moment, or unjudged."""
        ...

    def subnets(self) -> Iterable[SpiderSubnet]: ...

    def subnet(self, name: str) -> SpiderSubnet | None: ...

    def multus_configs(self, namespace: str) -> Iterable[SpiderMultusConfig]: ...

    def network_configs(self) -> Iterable[SpiderMultusConfig]:
        """Those of all namespaces."""
        ...

    def namespace(self, name: str) -> Namespace | None: ...

    def network_definition(self, namespace: str, name: str) -> NetworkAttachmentDefinition | None: ...

    def allocated(self, pool: str) -> Mapping[str, str] | None:
        """Addresses of the pool that are leased, each with its pod `ns/name`; None where the caller does not know."""
        ...


READ_KINDS = frozenset(
    (
        "SpiderIPPool",
        "SpiderSubnet",
        "SpiderMultusConfig",
        "NetworkAttachmentDefinition",
        "ConfigMap",
        "Namespace",
    )
)
"""The kinds that rules look up; a store may leave out all others."""


class Objects:
    """A store of objects by key. An object that does not fit its type is kept as JSON and shown to no rule."""

    def __init__(
        self, objects: Iterable[Json] = (), leases: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """`leases`: pool → address → `ns/name`; a pool that is missing there has none, None means that nobody asked."""
        self._raw: dict[ObjectKey, Json] = {}
        self._typed: dict[str, dict[ObjectKey, Object]] = {kind: {} for kind in READ_KINDS}
        self._networks = NetworkIndex()
        self.cluster = AdmissionCluster()
        self._leases = leases
        for raw in objects:
            self.put(raw)

    def copy(self, leases: Mapping[str, Mapping[str, str]] | None = None) -> Objects:
        """A store that changes apart from this one, with other leases if given."""
        out = Objects(leases=self._leases if leases is None else leases)
        out._raw = dict(self._raw)
        out._typed = {kind: dict(members) for kind, members in self._typed.items()}
        out._networks = self._networks.copy()
        out.cluster = self.cluster.copy()
        return out

    def put(self, raw: Json) -> ObjectKey:
        """Stores an object in place of the one with its key."""
        key = key_of(raw)
        self.remove(key)
        self._raw[key] = raw
        row = BY_KIND.get(key.kind)
        if (
            key.kind in READ_KINDS
            and row is not None
            and row.group == group_of(str(raw.get("apiVersion", "")))
        ):
            value = shape.decode(row.type, raw)
            if not isinstance(value, Invalid):
                self._typed[key.kind][key] = value
                self.cluster.put(key, value)
                if isinstance(value, SpiderIPPool) and (network := network_of(value.spec.subnet)) is not None:
                    self._networks.add(key.name, network)
                if key.kind == "ConfigMap" and key.name == CONFIG_MAP:
                    self._read_settings()
        return key

    def remove(self, key: ObjectKey) -> Json | None:
        """Forgets an object; the object, or None if there was none."""
        gone = self._raw.pop(key, None)
        typed = self._typed.get(key.kind, {}).pop(key, None)
        self.cluster.remove(key)
        if isinstance(typed, SpiderIPPool):
            if (network := network_of(typed.spec.subnet)) is not None:
                self._networks.discard(key.name, network)
        elif isinstance(typed, ConfigMap):
            self._read_settings()
        return gone

    def get(self, key: ObjectKey) -> Json | None:
        return self._raw.get(key)

    def __len__(self) -> int:
        return len(self._raw)

    def _read_settings(self) -> None:
        """The first readable `spiderpool-conf`; the default settings where there is none."""
        self.cluster.settings = Settings()
        for key in sorted(self._typed["ConfigMap"]):
            config_map = self._typed["ConfigMap"][key]
            if key.name == CONFIG_MAP and isinstance(config_map, ConfigMap):
                settings = settings_of(config_map)
                if not isinstance(settings, Invalid):
                    self.cluster.settings = settings
                    return

    @property
    def settings(self) -> Settings:
        return self.cluster.settings

    def pools(self) -> Iterable[SpiderIPPool]:
        return [one for one in self._typed["SpiderIPPool"].values() if isinstance(one, SpiderIPPool)]

    def pool(self, name: str) -> SpiderIPPool | None:
        found = self._typed["SpiderIPPool"].get(ObjectKey("SpiderIPPool", "", name))
        return found if isinstance(found, SpiderIPPool) else None

    def pools_overlapping(self, network: Network) -> Iterable[SpiderIPPool]:
        found = (self.pool(name) for name in self._networks.overlapping(network))
        return [one for one in found if one is not None]

    def rivals(self, pool: str) -> frozenset[str]:
        return self.cluster.rivals(pool)

    def subnets(self) -> Iterable[SpiderSubnet]:
        return [one for one in self._typed["SpiderSubnet"].values() if isinstance(one, SpiderSubnet)]

    def subnet(self, name: str) -> SpiderSubnet | None:
        found = self._typed["SpiderSubnet"].get(ObjectKey("SpiderSubnet", "", name))
        return found if isinstance(found, SpiderSubnet) else None

    def multus_configs(self, namespace: str) -> Iterable[SpiderMultusConfig]:
        return [
            one
            for key, one in self._typed["SpiderMultusConfig"].items()
            if key.namespace == namespace and isinstance(one, SpiderMultusConfig)
        ]

    def network_configs(self) -> Iterable[SpiderMultusConfig]:
        return [
            one for one in self._typed["SpiderMultusConfig"].values() if isinstance(one, SpiderMultusConfig)
        ]

    def namespace(self, name: str) -> Namespace | None:
        found = self._typed["Namespace"].get(ObjectKey("Namespace", "", name))
        return found if isinstance(found, Namespace) else None

    def namespaces(self) -> Iterable[Namespace]:
        return [one for one in self._typed["Namespace"].values() if isinstance(one, Namespace)]

    def network_definition(self, namespace: str, name: str) -> NetworkAttachmentDefinition | None:
        key = ObjectKey("NetworkAttachmentDefinition", namespace, name)
        found = self._typed["NetworkAttachmentDefinition"].get(key)
        return found if isinstance(found, NetworkAttachmentDefinition) else None

    def allocated(self, pool: str) -> Mapping[str, str] | None:
        return None if self._leases is None else self._leases.get(pool, {})


def key_of(raw: Json) -> ObjectKey:
    """The key of an object; a cluster-scoped kind has no namespace, whatever is written."""
    meta = raw.get("metadata")
    meta = cast("Json", meta) if isinstance(meta, dict) else {}
    kind, namespace, name = (
        str(raw.get("kind", "")),
        str(meta.get("namespace") or ""),
        str(meta.get("name") or ""),
    )
    row = BY_KIND.get(kind)
    if row is not None and group_of(str(raw.get("apiVersion", ""))) in (row.group, GROUP):
        namespace = (namespace or "default") if row.namespaced else ""
    return ObjectKey(kind, namespace, name)
