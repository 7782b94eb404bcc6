"""SpiderMultusConfig → NetworkAttachmentDefinition, to the byte as Spiderpool renders it.

Owns names, annotations, the order of plugins and of their keys. Must not know the API server, or what a plugin does with it. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from services.controller.status import FINALIZER
from shared.admission.coordinator import HOST_RULE_TABLE
from shared.manifests.annotations import CNI_VERSION, CONFIG_NAME, CR_NAME, NATIVE
from shared.manifests.kinds import API_VERSION
from shared.manifests.meta import Json
from shared.manifests.network import (
    Bond,
    CoordinatorSpec,
    IBSriovConfig,
    IpoibConfig,
    MacvlanConfig,
    MultusConfigSpec,
    NetworkAttachmentDefinition,
    OvsConfig,
    PoolNames,
    SpiderMultusConfig,
    SriovConfig,
    VlanConfig,
)

NAD_API_VERSION = "k8s.cni.cncf.io/v1"
NAD_KIND = "NetworkAttachmentDefinition"
RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
DEFAULT_CNI_VERSION = "0.3.1"
_OVS_RESOURCE = "ovs-cni.network.kubevirt.io"


def definition_name(config: SpiderMultusConfig) -> str:
    """The name under which pods know the network."""
    return config.metadata.annotations.get(CR_NAME) or config.metadata.name


def definition(config: SpiderMultusConfig) -> Json | None:
    """The whole NetworkAttachmentDefinition; None where the configuration cannot be rendered, which admission refuses."""
    name = definition_name(config)
    rendered = _config_text(config, name)
    if rendered is None:
        return None
    text, resource = rendered
    marks = dict(config.metadata.annotations)
    if resource:
        marks[RESOURCE] = resource
    meta: Json = {
        "name": name,
        "namespace": config.metadata.namespace,
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "SpiderMultusConfig",
                "name": config.metadata.name,
                "uid": config.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if marks:
        meta["annotations"] = marks
    spec = {"config": text} if text else {}
    return {"apiVersion": NAD_API_VERSION, "kind": NAD_KIND, "metadata": meta, "spec": spec}


def differs(wanted: Json, present: NetworkAttachmentDefinition) -> bool:
    """Whether a definition that is there must be written: annotations, text or controller are others."""
    controller = present.metadata.controller
    return (
        present.metadata.annotations != wanted["metadata"].get("annotations", {})
        or present.spec.config != wanted["spec"].get("config", "")
        or controller is None
        or controller.uid != wanted["metadata"]["ownerReferences"][0]["uid"]
    )


def replacement(wanted: Json, present: NetworkAttachmentDefinition, resource_version: int) -> Json:
    """`wanted` in the place of `present`: what is not ours (labels, other owners, finalizers but Spiderpool's) stays."""
    there = present.metadata
    others = [msgspec.to_builtins(one) for one in there.owner_references if not one.controller]
    meta: Json = {
        **wanted["metadata"],
        "resourceVersion": str(resource_version),
        "ownerReferences": [*others, *wanted["metadata"]["ownerReferences"]],
    }
    if there.labels:
        meta["labels"] = there.labels
    if kept := [one for one in there.finalizers if one != FINALIZER]:
        meta["finalizers"] = kept
    return {**wanted, "metadata": meta}


def _config_text(config: SpiderMultusConfig, name: str) -> tuple[str, str] | None:
    """`spec.config`, and the resource that pods must ask for."""
    marks, spec = config.metadata.annotations, config.spec
    version = marks.get(CNI_VERSION) or DEFAULT_CNI_VERSION
    network = marks.get(CONFIG_NAME) or name
    if marks.get(NATIVE) == "true":
        plugin = {"type": "orbweaver", "network": f"{config.metadata.namespace}/{name}"}
        return _list_text(version, network, [plugin]), _resource(spec)
    if (spec.cni_type or "custom") == "custom":
        return spec.custom_cni or "", ""
    main = _main(spec)
    if main is None:
        return None
    plugins = [*_before(spec), main, *_after(spec)]
    chained = [msgspec.json.decode(text) for text in spec.chain_cni_json_data or ()]
    plugins += [_sorted(one) for one in chained]
    if spec.enable_coordinator is not False:
        plugins.append(_coordinator(spec.coordinator or CoordinatorSpec()))
    if spec.cni_type == "sriov" and spec.sriov is not None and (spec.sriov.mtu_bytes or 0) > 0:
        plugins.append({"type": "tuning", "mtu": spec.sriov.mtu_bytes})
    return _list_text(version, network, plugins), _resource(spec)


def _list_text(version: str, name: str, plugins: list[Json]) -> str:
    return msgspec.json.encode({"cniVersion": version, "name": name, "plugins": plugins}).decode()


def _sorted(value: Any) -> Any:
    """Keys sorted at every depth, as a Go map is written."""
    return msgspec.json.decode(msgspec.json.encode(value, order="sorted"))


def _given(**members: Any) -> Json:
    """Members that are not None, in this order."""
    return {key: value for key, value in members.items() if value is not None}


def _main(spec: MultusConfigSpec) -> Json | None:
    match spec.cni_type:
        case "macvlan" if spec.macvlan is not None:
            block = spec.macvlan
            return _given(
                type="macvlan",
                master=_parent(block, tagged=True),
                mode="bridge",
                mtu=block.mtu_bytes,
                ipam=_ipam(spec, block.ippools),
            )
        case "ipvlan" if spec.ipvlan is not None:
            block = spec.ipvlan
            return _given(
                type="ipvlan",
                master=_parent(block, tagged=True),
                mtu=block.mtu_bytes,
                ipam=_ipam(spec, block.ippools),
            )
        case "vlan" if spec.vlan is not None:
            return _vlan(spec, spec.vlan)
        case "sriov" if spec.sriov is not None:
            return _sriov(spec, spec.sriov)
        case "ib-sriov" if spec.ibsriov is not None:
            return _ib_sriov(spec, spec.ibsriov)
        case "ipoib" if spec.ipoib is not None:
            return _ipoib(spec, spec.ipoib)
        case "ovs" if spec.ovs is not None:
            return _ovs(spec, spec.ovs)
        case _:
            return None


def _vlan(spec: MultusConfigSpec, block: VlanConfig) -> Json:
    return _given(
        type="vlan",
        master=_parent(block, tagged=False),
        vlanMode=block.vlan_mode,
        vlanId=block.vlan_id if block.vlan_mode != "auto" else None,
        mtu=block.mtu_bytes,
        ipam=_ipam(spec, block.ippools),
    )


def _sriov(spec: MultusConfigSpec, block: SriovConfig) -> Json:
    return _given(
        vlan=block.vlan_id,
        min_tx_rate=block.min_tx_rate_mbps,
        max_tx_rate=block.max_tx_rate_mbps,
        type="sriov",
        ipam=_ipam(spec, block.ippools),
    )


def _ib_sriov(spec: MultusConfigSpec, block: IBSriovConfig) -> Json:
    return _given(
        type="ib-sriov",
        pkey=block.pkey,
        link_state=block.link_state,
        rdmaIsolation=block.rdma_isolation,
        ibKubernetesEnabled=block.enable_ib_kubernetes,
        ipam=_ipam(spec, block.ippools),
    )


def _ipoib(spec: MultusConfigSpec, block: IpoibConfig) -> Json:
    return _given(type="ipoib", master=block.master, ipam=_ipam(spec, block.ippools))


def _ovs(spec: MultusConfigSpec, block: OvsConfig) -> Json:
    trunk = [_given(minID=one.min_id, maxID=one.max_id, id=one.id) for one in block.trunk]
    return _given(
        vlan=block.vlan,
        type="ovs",
        bridge=block.bridge,
        deviceID=block.device_id or None,
        ipam=_ipam(spec, block.ippools),
        trunk=trunk or None,
    )


def _parent(block: MacvlanConfig, *, tagged: bool) -> str:
    master = block.bond.name if len(block.master) > 1 and block.bond else "".join(block.master[:1])
    return f"{master}.{block.vlan_id}" if tagged and block.vlan_id else master


def _ipam(spec: MultusConfigSpec, pools: PoolNames | None) -> Json | None:
    if spec.disable_ipam:
        return None
    names = pools or PoolNames()
    return _given(
        type="spiderpool",
        default_ipv4_ippool=list(names.ipv4) or None,
        default_ipv6_ippool=list(names.ipv6) or None,
        match_master_subnet=True if spec.cni_type == "sriov" and names.match_master_subnet else None,
    )


def _before(spec: MultusConfigSpec) -> list[Json]:
    """ifacer, where the link below must be made first."""
    block = spec.macvlan or spec.ipvlan
    if spec.cni_type in ("macvlan", "ipvlan") and block is not None:
        if block.vlan_id or len(block.master) > 1:
            return [_ifacer(block, block.vlan_id or None)]
    elif spec.cni_type == "vlan" and spec.vlan is not None and len(spec.vlan.master) > 1:
        return [_ifacer(spec.vlan, None)]
    return []


def _ifacer(block: MacvlanConfig, vlan_id: int | None) -> Json:
    return _given(
        vlanID=vlan_id,
        type="ifacer",
        interfaces=list(block.master),
        bond=_bond(block.bond) if block.bond is not None else None,
    )


def _bond(bond: Bond) -> Json:
    return _given(name=bond.name, mode=bond.mode if bond.mode is not None else 0, options=bond.options)


def _after(spec: MultusConfigSpec) -> list[Json]:
    isolated = spec.cni_type == "sriov" and spec.sriov is not None and spec.sriov.rdma_isolation
    return [{"type": "rdma"}] if isolated else []


def _coordinator(block: CoordinatorSpec) -> Json:
    """What admission fills in where nobody wrote it must not hide what the SpiderCoordinator says: podRPFilter and hostRuleTable
    stand there only where they are others than the default, or (as the reference has it) podCIDRType is set too."""
    rp_filter = block.pod_rp_filter
    return _given(
        txQueueLen=block.tx_queue_len,
        vethLinkAddress=block.veth_link_address or None,
        vethMTU=block.veth_mtu_bytes,
        tunePodRoutes=block.tune_pod_routes,
        podMACPrefix=block.pod_mac_prefix or None,
        mode=block.mode or None,
        type="coordinator",
        podDefaultRouteNic=block.pod_default_route_nic or None,
        podRPFilter=rp_filter if rp_filter or block.pod_cidr_type else None,
        hostRuleTable=block.host_rule_table if block.host_rule_table != HOST_RULE_TABLE else None,
        hijackCIDR=list(block.hijack_cidr or ()) or None,
        policyRoutes=[{"dst": one.dst, "gw": one.gw} for one in block.policy_routes or ()] or None,
    )


def _resource(spec: MultusConfigSpec) -> str:
    match spec.cni_type:
        case "sriov" if spec.sriov is not None:
            return spec.sriov.resource_name or ""
        case "ib-sriov" if spec.ibsriov is not None:
            return spec.ibsriov.resource_name or ""
        case "ovs" if spec.ovs is not None and spec.ovs.device_id:
            return f"{_OVS_RESOURCE}/{spec.ovs.bridge}"
        case _:
            return ""
