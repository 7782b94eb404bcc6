"""The kinds about links: SpiderMultusConfig, SpiderCoordinator, NetworkAttachmentDefinition.

Owns their types; `None` is a member that was not written, which several rules tell apart from its zero.
Must not know their rules (shared/admission) or how a CNI configuration is rendered.
"""

from __future__ import annotations

import msgspec

from shared.manifests.ipam import Route
from shared.manifests.meta import Object, Part

BLOCK_KEYS = {
    "macvlan": "macvlan",
    "ipvlan": "ipvlan",
    "vlan": "vlan",
    "sriov": "sriov",
    "ovs": "ovs",
    "ib-sriov": "ibsriov",
    "ipoib": "ipoib",
}
"""cniType → the key of its block."""


class CoordinatorSpec(Part, frozen=True, kw_only=True):
    mode: str | None = None
    pod_cidr_type: str | None = msgspec.field(default=None, name="podCIDRType")
    hijack_cidr: tuple[str, ...] | None = msgspec.field(default=None, name="hijackCIDR")
    policy_routes: tuple[Route, ...] | None = None
    pod_mac_prefix: str | None = msgspec.field(default=None, name="podMACPrefix")
    tune_pod_routes: bool | None = None
    pod_default_route_nic: str | None = msgspec.field(default=None, name="podDefaultRouteNIC")
    host_rule_table: int | None = None
    pod_rp_filter: int | None = msgspec.field(default=None, name="podRPFilter")
    tx_queue_len: int | None = None
    veth_link_address: str | None = None
    veth_mtu_bytes: int | None = msgspec.field(default=None, name="vethMTU")
    # Fields of older releases: still accepted, without effect.
    detect_gateway: bool | None = None
    detect_ip_conflict: bool | None = msgspec.field(default=None, name="detectIPConflict")
    host_rp_filter: int | None = msgspec.field(default=None, name="hostRPFilter")


class CoordinatorStatus(Part, frozen=True, kw_only=True):
    phase: str = ""
    reason: str = ""
    overlay_pod_cidr: tuple[str, ...] = msgspec.field(default=(), name="overlayPodCIDR")
    service_cidr: tuple[str, ...] = msgspec.field(default=(), name="serviceCIDR")


class SpiderCoordinator(Object, frozen=True, kw_only=True):
    spec: CoordinatorSpec = CoordinatorSpec()
    status: CoordinatorStatus = CoordinatorStatus()


class Bond(Part, frozen=True, kw_only=True):
    name: str = ""
    mode: int | None = None
    options: str | None = None


class PoolNames(Part, frozen=True, kw_only=True):
    """Names or wildcard patterns of pools, by family."""

    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    match_master_subnet: bool | None = None


class MacvlanConfig(Part, frozen=True, kw_only=True):
    """The block of `macvlan` and of `ipvlan`."""

    master: tuple[str, ...] = ()
    mtu_bytes: int | None = msgspec.field(default=None, name="mtu")
    vlan_id: int | None = msgspec.field(default=None, name="vlanID")
    bond: Bond | None = None
    rdma_resource_name: str | None = None
    ippools: PoolNames | None = None


class VlanConfig(MacvlanConfig, frozen=True, kw_only=True):
    vlan_mode: str | None = None


class SriovConfig(Part, frozen=True, kw_only=True):
    resource_name: str | None = None
    vlan_id: int | None = msgspec.field(default=None, name="vlanID")
    mtu_bytes: int | None = msgspec.field(default=None, name="mtu")
    min_tx_rate_mbps: int | None = msgspec.field(default=None, name="minTxRateMbps")
    max_tx_rate_mbps: int | None = msgspec.field(default=None, name="maxTxRateMbps")
    rdma_isolation: bool | None = None
    ippools: PoolNames | None = None


class IBSriovConfig(Part, frozen=True, kw_only=True):
    resource_name: str | None = None
    pkey: str | None = None
    link_state: str | None = None
    rdma_isolation: bool | None = None
    enable_ib_kubernetes: bool | None = None
    ippools: PoolNames | None = None


class IpoibConfig(Part, frozen=True, kw_only=True):
    master: str | None = None
    ippools: PoolNames | None = None


class Trunk(Part, frozen=True, kw_only=True):
    min_id: int | None = msgspec.field(default=None, name="minID")
    max_id: int | None = msgspec.field(default=None, name="maxID")
    id: int | None = None


class OvsConfig(Part, frozen=True, kw_only=True):
    bridge: str | None = None
    vlan: int | None = None
    trunk: tuple[Trunk, ...] = ()
    device_id: str | None = msgspec.field(default=None, name="deviceID")
    ippools: PoolNames | None = None


class MultusConfigSpec(Part, frozen=True, kw_only=True):
    cni_type: str | None = None
    macvlan: MacvlanConfig | None = None
    ipvlan: MacvlanConfig | None = None
    vlan: VlanConfig | None = None
    sriov: SriovConfig | None = None
    ibsriov: IBSriovConfig | None = None
    ipoib: IpoibConfig | None = None
    ovs: OvsConfig | None = None
    enable_coordinator: bool | None = None
    disable_ipam: bool | None = msgspec.field(default=None, name="disableIPAM")
    coordinator: CoordinatorSpec | None = None
    chain_cni_json_data: tuple[str, ...] | None = msgspec.field(default=None, name="chainCNIJsonData")
    custom_cni: str | None = msgspec.field(default=None, name="customCNI")


class SpiderMultusConfig(Object, frozen=True, kw_only=True):
    spec: MultusConfigSpec = MultusConfigSpec()


class NetworkAttachmentSpec(Part, frozen=True, kw_only=True):
    config: str = ""


class NetworkAttachmentDefinition(Object, frozen=True, kw_only=True):
    spec: NetworkAttachmentSpec = NetworkAttachmentSpec()
