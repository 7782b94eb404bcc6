"""What the allocator knows from facts: pools, reservations, namespaces, nodes, pods, network definitions, settings.

Owns the typed view and which version of an object counts. Must not know leases, the bus or time. An object that cannot be
read counts as absent: admission has refused it where it could.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from services.allocator.owner import StatefulSetFact, stateful_set_fact
from services.allocator.pod import KnownPod, known_pod
from services.allocator.pool_index import PoolSpace
from shared.contracts import mark as marks
from shared.contracts.facts import Fact, FactsSynced, FactsTerm, ObjectFact, ObjectGone
from shared.manifests.annotations import CR_NAME
from shared.manifests.ipam import SpiderIPPool, SpiderReservedIP
from shared.manifests.meta import Object
from shared.manifests.network import SpiderMultusConfig
from shared.manifests.problem import Invalid
from shared.manifests.settings import Settings, settings_of
from shared.manifests.workload import ConfigMap, Namespace, Node, Pod, Workload
from shared.net.ranges import IntervalSet, parse_address
from shared.selection.cluster import NetworkFact, PoolFact, network_fact, pool_fact
from shared.selection.precedence import Claims, PoolRivals, rank_of

GONE_KEPT_MAX = 16_384
SETTINGS_NAME = "spiderpool-conf"
T = TypeVar("T", bound=Object)


class Changes(msgspec.Struct, kw_only=True):
    """What a fact touched: pools whose free space must be made anew, pods and StatefulSets (`ns`, `name`), nodes that came, went or
    are otherwise than before, and whether the settings or the shared mark are."""

    pools: set[str] = msgspec.field(default_factory=lambda: set[str]())
    pods: set[tuple[str, str]] = msgspec.field(default_factory=lambda: set[tuple[str, str]]())
    stateful_sets: set[tuple[str, str]] = msgspec.field(default_factory=lambda: set[tuple[str, str]]())
    nodes: set[str] = msgspec.field(default_factory=lambda: set[str]())
    settings: bool = False
    mark: bool = False


class Facts:
    """`sequence` is the stream sequence folded; `synced` whether a full list is known; `departed` are nodes whose objects were
    deleted. `mark` is the one that all replicas share; `mark_flaw` says why what is kept there is none."""

    def __init__(self) -> None:
        self.pools: dict[str, PoolFact] = {}
        self.reserved: dict[str, tuple[int, IntervalSet]] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.nodes: dict[str, Node] = {}
        self.departed: set[str] = set()
        self.pods: dict[tuple[str, str], KnownPod] = {}
        self.stateful_sets: dict[tuple[str, str], StatefulSetFact] = {}
        self._networks: Claims[NetworkFact] = Claims()
        self._rivals = PoolRivals()
        self.settings = Settings()
        self.installation_namespace = "kube-system"
        self.cluster_network = ""
        self.mark: marks.LogMark | None = None
        self.mark_flaw = ""
        self.synced = False
        self.sequence = 0
        self._versions: dict[tuple[str, str, str], int] = {}
        self._gone: dict[tuple[str, str, str], int] = {}
        self._settings_namespace = ""

    @property
    def networks(self) -> Mapping[str, NetworkFact]:
        return self._networks.chosen

    def pool_before(self, name: str) -> str:
        return self._rivals.before(name)

    def apply(self, fact: Fact | FactsTerm, sequence: int) -> Changes:
        """Takes one fact of the stream; an older version of an object than the one known changes nothing."""
        self.sequence = max(self.sequence, sequence)
        changes = Changes()
        if isinstance(fact, FactsTerm):
            return changes
        if isinstance(fact, FactsSynced):
            self.synced = True
            return changes
        key = (fact.kind, fact.namespace, fact.name)
        if fact.version < self._versions.get(key, self._gone.get(key, 0)):
            return changes
        gone = isinstance(fact, ObjectGone)
        self._note(key, fact.version, gone)
        match fact.kind:
            case "SpiderIPPool":
                self._pool(fact.name, None if gone else fact, changes)
            case "SpiderReservedIP":
                self._reserved(fact.name, None if gone else fact, changes)
            case "Pod":
                self._pod(fact.namespace, fact.name, None if gone else fact, changes)
            case "Namespace":
                self._keep(self.namespaces, fact.name, None if gone else fact, Namespace)
            case "Node":
                self._keep(self.nodes, fact.name, None if gone else fact, Node)
                (self.departed.add if gone else self.departed.discard)(fact.name)
                changes.nodes.add(fact.name)
            case "StatefulSet":
                self._stateful_set(fact.namespace, fact.name, None if gone else fact)
                changes.stateful_sets.add((fact.namespace, fact.name))
            case "SpiderMultusConfig":
                self._network(fact.namespace, fact.name, None if gone else fact)
            case "ConfigMap" if fact.name == SETTINGS_NAME:
                self._configure(fact.namespace, None if gone else fact)
                changes.settings = True
            case "ConfigMap" if fact.name == marks.CONFIG_MAP:
                self._mark(fact.namespace, None if gone else fact)
                changes.mark = True
            case _:
                pass
        return changes

    def _note(self, key: tuple[str, str, str], version: int, gone: bool) -> None:
        """Of objects that are gone the last so many are remembered: an older word of one comes late by a moment, not by thousands."""
        self._gone.pop(key, None)
        if not gone:
            self._versions[key] = version
            return
        self._versions.pop(key, None)
        self._gone[key] = version
        if len(self._gone) > GONE_KEPT_MAX:
            del self._gone[next(iter(self._gone))]

    def _keep(self, into: dict[str, T], name: str, fact: ObjectFact | None, kind: type[T]) -> None:
        found = _read(fact, kind)
        if found is None:
            into.pop(name, None)
        else:
            into[name] = found

    def _pool(self, name: str, fact: ObjectFact | None, changes: Changes) -> None:
        manifest = _read(fact, SpiderIPPool)
        pool = None if manifest is None else pool_fact(name, manifest)
        if pool == self.pools.get(name):
            return
        changes.pools.add(name)
        if pool is None:
            self.pools.pop(name, None)
            self._rivals.drop(name)
        else:
            self.pools[name] = pool
            self._rivals.put(pool)

    def _reserved(self, name: str, fact: ObjectFact | None, changes: Changes) -> None:
        before = self.reserved.pop(name, None)
        manifest = _read(fact, SpiderReservedIP)
        after = None
        if manifest is not None and manifest.spec.ips and not manifest.metadata.terminating:
            try:
                family = manifest.spec.ip_version or parse_address(manifest.spec.ips[0].partition("-")[0])[0]
                after = (family, IntervalSet.parse(manifest.spec.ips, family))
            except ValueError:
                after = None
        if after is not None:
            self.reserved[name] = after
        families = {entry[0] for entry in (before, after) if entry is not None}
        changes.pools |= {pool.name for pool in self.pools.values() if pool.family in families}

    def _pod(self, namespace: str, name: str, fact: ObjectFact | None, changes: Changes) -> None:
        changes.pods.add((namespace, name))
        manifest = _read(fact, Pod)
        if manifest is None:
            self.pods.pop((namespace, name), None)
        else:
            self.pods[namespace, name] = known_pod(namespace, name, manifest)

    def _stateful_set(self, namespace: str, name: str, fact: ObjectFact | None) -> None:
        """Only that of Kubernetes itself: others share the name of the kind."""
        manifest = _read(fact, Workload)
        if fact is None or manifest is None or not fact.api_version.startswith("apps/"):
            self.stateful_sets.pop((namespace, name), None)
        else:
            self.stateful_sets[namespace, name] = stateful_set_fact(manifest)

    def _network(self, namespace: str, name: str, fact: ObjectFact | None) -> None:
        """`networks` goes by the name under which pods know a network, which may be another than its object's."""
        own = f"{namespace}/{name}"
        manifest = _read(fact, SpiderMultusConfig)
        if fact is None or manifest is None:
            self._networks.drop(own)
            return
        key = f"{namespace}/{manifest.metadata.annotations.get(CR_NAME) or name}"
        spec_json = msgspec.json.encode(msgspec.json.decode(fact.object).get("spec", {})).decode()
        self._networks.put(own, key, rank_of(manifest.metadata), network_fact(manifest, spec_json))

    def _configure(self, namespace: str, fact: ObjectFact | None) -> None:
        manifest = _read(fact, ConfigMap)
        if manifest is None:
            if namespace == self._settings_namespace:
                self.settings, self.cluster_network = Settings(), ""
            return
        settings = settings_of(manifest)
        if not isinstance(settings, Invalid):
            self.settings = settings
            self.installation_namespace = self._settings_namespace = namespace
            self.cluster_network = manifest.data.get("clusterNetwork", "").strip()

    def _mark(self, namespace: str, fact: ObjectFact | None) -> None:
        self.mark, self.mark_flaw = None, ""
        if fact is None:
            return
        manifest = _read(fact, ConfigMap)
        try:
            self.mark = marks.read_mark(manifest.data if manifest is not None else {})
        except ValueError as error:
            self.mark_flaw = f"the mark in ConfigMap {namespace}/{marks.CONFIG_MAP} cannot be read: {error}"

    def pool_space(self, name: str) -> PoolSpace | None:
        """What the pool may give: without reservations, its gateway, and for IPv4 network and broadcast address."""
        pool = self.pools.get(name)
        if pool is None:
            return None
        holes: list[tuple[int, int]] = []
        for family, addresses in self.reserved.values():
            if family == pool.family:
                holes += list(addresses)
        if pool.gateway:
            gateway = parse_address(pool.gateway)[1]
            holes.append((gateway, gateway))
        if pool.family == 4 and pool.subnet.prefix_len < 31:
            holes += [(pool.subnet.first, pool.subnet.first), (pool.subnet.last, pool.subnet.last)]
        return PoolSpace(pool.subnet, pool.total.subtract(IntervalSet(holes)))

    def pod_of_owner(self, namespace: str, name: str, owner: str) -> KnownPod | None:
        """The pod of that name if it is the owner: same UID, a UID that is not known, or the static pod's configuration hash."""
        pod = self.pods.get((namespace, name))
        if pod is not None and pod.uid and owner not in (pod.uid, pod.config_hash, f"pod:{namespace}/{name}"):
            return None
        return pod


def _read(fact: ObjectFact | None, kind: type[T]) -> T | None:
    if fact is None:
        return None
    try:
        return msgspec.json.decode(fact.object, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
