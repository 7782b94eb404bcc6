"""What is held of the Kubernetes API, as types: for those who work out what should be written.

Owns the decoding, and keeps the pools decoded. Must not know where the objects come from. An object that does not fit its type is as
if it were not there: admission has refused it where it could.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from services.controller.nad import definition_name
from services.controller.reflector import Change, Item, Name, Put
from services.controller.told import Told
from services.controller.watched import Watched
from shared.manifests.ipam import IPPoolSpec, SpiderIPPool, SpiderSubnet
from shared.manifests.meta import Object
from shared.manifests.network import NetworkAttachmentDefinition, SpiderMultusConfig
from shared.manifests.workload import ConfigMap, Pod
from shared.net.network_index import NetworkIndex
from shared.net.ranges import Network, parse_cidr
from shared.selection.cluster import pool_fact
from shared.selection.precedence import Claims, PoolRivals, Rank, rank_of

POOL, SUBNET, ENDPOINT, POD = "SpiderIPPool", "SpiderSubnet", "SpiderEndpoint", "Pod"
NETWORK, DEFINITION, COORDINATOR = "SpiderMultusConfig", "NetworkAttachmentDefinition", "SpiderCoordinator"
T = TypeVar("T", bound=Object)


class SubnetClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What of a SpiderSubnet decides whom it excludes."""

    name: str
    uid: str
    network: Network
    rank: Rank
    terminating: bool


class Typed:
    def __init__(self, told: Told) -> None:
        self.told = told
        self.pools: dict[str, IPPoolSpec] = {}
        """Every pool's spec, by name."""
        self.rivals = PoolRivals()
        self._by_cidr: dict[str, dict[str, None]] = {}
        self._claims: Claims[str] = Claims()
        self._subnets = NetworkIndex()
        self._subnet_claims: dict[str, SubnetClaim] = {}
        told.listen(self._on_change)

    def pool(self, name: str) -> tuple[SpiderIPPool, Item] | None:
        return self._find(POOL, ("", name), SpiderIPPool)

    def subnet(self, name: str) -> tuple[SpiderSubnet, Item] | None:
        return self._find(SUBNET, ("", name), SpiderSubnet)

    def subnet_claim(self, name: str) -> SubnetClaim | None:
        return self._subnet_claims.get(name)

    def overlapping_subnets(self, network: Network) -> list[SubnetClaim]:
        """Those that share an address with the network, who counts before the others first."""
        found = [self._subnet_claims[name] for name in self._subnets.overlapping(network)]
        return sorted(found, key=lambda one: one.rank)

    def subnets_of(self, cidr: str) -> Iterator[str]:
        """Names of the subnets with this CIDR."""
        for (_, name), item in self.told.held(SUBNET):
            subnet = decode(item, SpiderSubnet)
            if subnet is not None and subnet.spec.subnet == cidr:
                yield name

    def pools_of(self, cidr: str) -> Mapping[str, IPPoolSpec]:
        return {name: self.pools[name] for name in self._by_cidr.get(cidr, ())}

    def pod(self, namespace: str, name: str) -> Pod | None:
        found = self._find(POD, (namespace, name), Pod)
        return found[0] if found is not None else None

    def network(self, namespace: str, name: str) -> SpiderMultusConfig | None:
        found = self._find(NETWORK, (namespace, name), SpiderMultusConfig)
        return found[0] if found is not None else None

    def networks(self, namespace: str) -> Iterator[SpiderMultusConfig]:
        for (place, _), item in self.told.held(NETWORK):
            if place == namespace and (config := decode(item, SpiderMultusConfig)) is not None:
                yield config

    def namesakes(self, namespace: str, definition: str) -> list[str]:
        """The configurations that name this definition, the one that it is rendered from first."""
        claimants = self._claims.claimants(f"{namespace}/{definition}")
        return [claimant.partition("/")[2] for claimant in claimants]

    def first_namesake(self, namespace: str, definition: str) -> str:
        """The configuration that this definition is rendered from, empty if there is none."""
        return self._claims.chosen.get(f"{namespace}/{definition}", "")

    def definition(self, namespace: str, name: str) -> tuple[NetworkAttachmentDefinition, Item] | None:
        return self._find(DEFINITION, (namespace, name), NetworkAttachmentDefinition)

    def definitions(self, namespace: str) -> Iterator[NetworkAttachmentDefinition]:
        for (place, _), item in self.told.held(DEFINITION):
            if place == namespace and (found := decode(item, NetworkAttachmentDefinition)) is not None:
                yield found

    def config_map(self, name: Name) -> ConfigMap | None:
        found = self._find("ConfigMap", name, ConfigMap)
        return found[0] if found is not None else None

    def _find(self, kind: str, name: Name, type_: type[T]) -> tuple[T, Item] | None:
        item = self.told.find(kind, name)
        if item is None:
            return None
        value = decode(item, type_)
        return (value, item) if value is not None else None

    def _on_change(self, watched: Watched, change: Change) -> None:
        if watched.kind == NETWORK:
            self._claim(change)
        if watched.kind == SUBNET:
            self._claim_subnet(change)
        if watched.kind != POOL:
            return
        name = change.name[1]
        old = self.pools.pop(name, None)
        if old is not None:
            self._by_cidr.get(old.subnet, {}).pop(name, None)
        pool = decode(change.item, SpiderIPPool) if isinstance(change, Put) else None
        fact = pool_fact(name, pool) if pool is not None else None
        if fact is None:
            self.rivals.drop(name)
        elif fact != self.rivals.pool(name):
            self.rivals.put(fact)
        if pool is not None:
            self.pools[name] = pool.spec
            self._by_cidr.setdefault(pool.spec.subnet, {})[name] = None

    def _claim(self, change: Change) -> None:
        own = "/".join(change.name)
        config = decode(change.item, SpiderMultusConfig) if isinstance(change, Put) else None
        if config is None:
            self._claims.drop(own)
        else:
            name = f"{change.name[0]}/{definition_name(config)}"
            self._claims.put(own, name, rank_of(config.metadata), change.name[1])

    def _claim_subnet(self, change: Change) -> None:
        name = change.name[1]
        before = self._subnet_claims.pop(name, None)
        if before is not None:
            self._subnets.discard(name, before.network)
        subnet = decode(change.item, SpiderSubnet) if isinstance(change, Put) else None
        claim = _subnet_claim(subnet) if subnet is not None else None
        if claim is not None:
            self._subnet_claims[name] = claim
            self._subnets.add(name, claim.network)


def _subnet_claim(subnet: SpiderSubnet) -> SubnetClaim | None:
    meta = subnet.metadata
    try:
        network = parse_cidr(subnet.spec.subnet)
    except ValueError:
        return None
    return SubnetClaim(
        name=meta.name, uid=meta.uid, network=network, rank=rank_of(meta), terminating=meta.terminating
    )


def decode(item: Item, type_: type[T]) -> T | None:
    try:
        return msgspec.json.decode(item.body, type=type_)
    except msgspec.MsgspecError:
        return None
