"""The kinds about addresses: SpiderIPPool, SpiderSubnet, SpiderReservedIP, SpiderEndpoint.

Owns their types. Must not know their rules (shared/admission) or how addresses are counted (shared/net).
"""

from __future__ import annotations

import msgspec

from shared.manifests.meta import LabelSelector, Object, Part


class Route(Part, frozen=True, kw_only=True):
    dst: str = ""
    gw: str = ""


class RangeSpec(Part, frozen=True, kw_only=True):
    """What pool and subnet have in common. `ip_version` 0 is unset; `routes` None is absent, which is not the empty list."""

    ip_version: int = msgspec.field(default=0, name="ipVersion")
    subnet: str = ""
    ips: tuple[str, ...] = ()
    exclude_ips: tuple[str, ...] = msgspec.field(default=(), name="excludeIPs")
    gateway: str = ""
    routes: tuple[Route, ...] | None = None


class IPPoolSpec(RangeSpec, frozen=True, kw_only=True):
    pod_affinity: LabelSelector | None = None
    namespace_affinity: LabelSelector | None = None
    namespace_name: tuple[str, ...] = ()
    node_affinity: LabelSelector | None = None
    node_name: tuple[str, ...] = ()
    multus_name: tuple[str, ...] = ()
    default: bool = False
    disable: bool = False


class IPPoolStatus(Part, frozen=True, kw_only=True):
    """`allocated_ips` is JSON text of `{"<ip>": {"pod": "ns/name", "podUid": "…"}}`, empty when nothing is allocated. Of a pool with
    very many it has the first, and `allocated_ips_omitted` says how many more there are; the counts are of all."""

    allocated_ips: str = msgspec.field(default="", name="allocatedIPs")
    allocated_ip_count: int | None = msgspec.field(default=None, name="allocatedIPCount")
    total_ip_count: int | None = msgspec.field(default=None, name="totalIPCount")
    allocated_ips_omitted: int | None = msgspec.field(default=None, name="allocatedIPsOmitted")


class SpiderIPPool(Object, frozen=True, kw_only=True):
    spec: IPPoolSpec = IPPoolSpec()
    status: IPPoolStatus = IPPoolStatus()


class SubnetStatus(Part, frozen=True, kw_only=True):
    """`controlled_ip_pools` is JSON text of `{"<pool>": {"ips": ["a-b", …], "application": "<key>"}}`."""

    controlled_ip_pools: str = msgspec.field(default="", name="controlledIPPools")
    allocated_ip_count: int | None = msgspec.field(default=None, name="allocatedIPCount")
    total_ip_count: int | None = msgspec.field(default=None, name="totalIPCount")


class SpiderSubnet(Object, frozen=True, kw_only=True):
    spec: RangeSpec = RangeSpec()
    status: SubnetStatus = SubnetStatus()


class ReservedIPSpec(Part, frozen=True, kw_only=True):
    ip_version: int = msgspec.field(default=0, name="ipVersion")
    ips: tuple[str, ...] = ()


class SpiderReservedIP(Object, frozen=True, kw_only=True):
    spec: ReservedIPSpec = ReservedIPSpec()


class AllocationDetail(Part, frozen=True, kw_only=True):
    """One interface of a pod; addresses carry their prefix length (`10.6.0.12/16`)."""

    interface: str = ""
    ipv4: str | None = None
    ipv6: str | None = None
    ipv4_pool: str | None = None
    ipv6_pool: str | None = None
    vlan: int | None = None
    ipv4_gateway: str | None = None
    ipv6_gateway: str | None = None
    clean_gateway: bool | None = None
    routes: tuple[Route, ...] = ()
    mac: str | None = None


class Allocation(Part, frozen=True, kw_only=True):
    uid: str = ""
    node: str = ""
    ips: tuple[AllocationDetail, ...] = ()


class EndpointStatus(Part, frozen=True, kw_only=True):
    current: Allocation = Allocation()
    owner_controller_type: str = ""
    owner_controller_name: str = ""


class SpiderEndpoint(Object, frozen=True, kw_only=True):
    status: EndpointStatus = EndpointStatus()
