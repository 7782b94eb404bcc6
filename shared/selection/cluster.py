"""What selection sees of the cluster: pools, pods, namespaces, nodes, network definitions, settings.

Owns the typed rows and how a manifest becomes one. Must not know which version of an object counts, leases, or what is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from shared.manifests.ipam import IPPoolSpec, SpiderIPPool
from shared.manifests.network import SpiderMultusConfig
from shared.manifests.settings import Settings
from shared.manifests.workload import Namespace, Node
from shared.net.ranges import IntervalSet, Network, parse_address, parse_cidr


class PoolFact(msgspec.Struct, frozen=True, kw_only=True):
    """A pool that can be read. `total` is ips − excludeIPs; what may be given is in the pool index. `created` is its
    creationTimestamp."""

    name: str
    uid: str
    family: int
    subnet: Network
    total: IntervalSet
    gateway: str
    spec: IPPoolSpec
    terminating: bool
    created: str = ""


class PodFact(msgspec.Struct, frozen=True, kw_only=True):
    """`dead` says why a pod can hold no address any more, empty while it lives. `controlled`: a controller owns it."""

    namespace: str
    name: str
    uid: str
    node: str
    labels: dict[str, str]
    annotations: dict[str, str]
    dead: str
    controlled: bool
    config_hash: str


class NetworkFact(msgspec.Struct, frozen=True, kw_only=True):
    """A SpiderMultusConfig; `spec_json` is its spec as it stands, for the agent; `ipv4`, `ipv6` are its pools."""

    spec_json: str
    cni_type: str = "custom"
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    disable_ipam: bool = False


class Cluster(Protocol):
    """The other objects, from memory. `networks` goes by the name under which pods know a network."""

    @property
    def settings(self) -> Settings: ...
    @property
    def installation_namespace(self) -> str: ...
    @property
    def cluster_network(self) -> str: ...
    @property
    def pools(self) -> Mapping[str, PoolFact]: ...
    @property
    def namespaces(self) -> Mapping[str, Namespace]: ...
    @property
    def nodes(self) -> Mapping[str, Node]: ...
    @property
    def networks(self) -> Mapping[str, NetworkFact]: ...
    def pool_before(self, name: str) -> str:
        """The pool that excludes this one and goes before it (precedence.py), empty if there is none."""
        ...


def pool_fact(name: str, manifest: SpiderIPPool) -> PoolFact | None:
    """None for a pool that cannot be read: it counts as absent."""
    spec = manifest.spec
    try:
        subnet = parse_cidr(spec.subnet)
        total = IntervalSet.parse(spec.ips, subnet.family).subtract(
            IntervalSet.parse(spec.exclude_ips, subnet.family)
        )
        gateway_is_other = bool(spec.gateway) and parse_address(spec.gateway)[0] != subnet.family
    except ValueError:
        return None
    if gateway_is_other:
        return None
    return PoolFact(
        name=name,
        uid=manifest.metadata.uid,
        family=subnet.family,
        subnet=subnet,
        total=total.intersect(IntervalSet([(subnet.first, subnet.last)])),
        gateway=spec.gateway,
        spec=spec,
        terminating=manifest.metadata.terminating,
        created=manifest.metadata.creation_timestamp,
    )


def network_fact(manifest: SpiderMultusConfig, spec_json: str) -> NetworkFact:
    spec = manifest.spec
    block = spec.macvlan or spec.ipvlan or spec.vlan or spec.sriov or spec.ibsriov or spec.ipoib or spec.ovs
    pools = block.ippools if block is not None else None
    return NetworkFact(
        spec_json=spec_json,
        cni_type=spec.cni_type or "custom",
        ipv4=pools.ipv4 if pools is not None else (),
        ipv6=pools.ipv6 if pools is not None else (),
        disable_ipam=bool(spec.disable_ipam),
    )
