"""The blocks of a SpiderMultusConfig, one for each CNI type: defaults and rules.

Owns which block belongs to which `cniType`. Must not know annotations or other objects.
"""

from __future__ import annotations

import msgspec

from shared.admission import draft
from shared.limits import INT32_MAX
from shared.manifests import wildcard
from shared.manifests.annotations import interface_error
from shared.manifests.meta import Json
from shared.manifests.network import (
    BLOCK_KEYS,
    Bond,
    IBSriovConfig,
    IpoibConfig,
    MacvlanConfig,
    MultusConfigSpec,
    OvsConfig,
    PoolNames,
    SriovConfig,
    VlanConfig,
)
from shared.manifests.problem import FieldError, entry, invalid, member

TYPES = (*BLOCK_KEYS, "custom")
_RESOURCE_KEYS = {"sriov": "resourceName", "ib-sriov": "resourceName", "ipoib": "master"}
_VLAN_MAX = 4094

Block = MacvlanConfig | VlanConfig | SriovConfig | IBSriovConfig | IpoibConfig | OvsConfig


def default(spec: Json) -> None:
    """Gives the block of the written `cniType` its defaults; other blocks stay, validation refuses them."""
    cni_type = spec.get("cniType")
    key = BLOCK_KEYS.get(cni_type) if isinstance(cni_type, str) else None
    block = draft.existing(spec, key) if key else None
    if block is None:
        return
    pools = draft.section(block, "ippools")
    if pools is not None:
        draft.default(pools, matchMasterSubnet=False)
    match cni_type:
        case "macvlan" | "ipvlan" | "vlan":
            draft.default(block, mtu=0, rdmaResourceName="")
            if cni_type == "vlan":
                draft.default(block, vlanMode="manual")
            if cni_type != "vlan" or block["vlanMode"] == "manual":
                draft.default(block, vlanID=0)
            bond = draft.existing(block, "bond")
            if bond is not None:
                draft.default(bond, options="")
        case "sriov":
            draft.default(
                block, resourceName="", vlanID=0, mtu=0, minTxRateMbps=0, maxTxRateMbps=0, rdmaIsolation=False
            )
        case "ib-sriov":
            draft.default(
                block,
                resourceName="",
                pkey="",
                linkState="enable",
                rdmaIsolation=True,
                enableIbKubernetes=False,
            )
        case "ovs":
            draft.default(block, vlan=0)
        case _:
            pass


def blocks_of(spec: MultusConfigSpec) -> dict[str, Block]:
    """The blocks that are present, by key."""
    found: dict[str, Block | None] = {
        "macvlan": spec.macvlan,
        "ipvlan": spec.ipvlan,
        "vlan": spec.vlan,
        "sriov": spec.sriov,
        "ovs": spec.ovs,
        "ibsriov": spec.ibsriov,
        "ipoib": spec.ipoib,
    }
    return {key: block for key, block in found.items() if block is not None}


def resource_path(cni_type: str) -> str:
    return f"spec.{BLOCK_KEYS[cni_type]}.{_RESOURCE_KEYS.get(cni_type, 'rdmaResourceName')}"


def resource_and_pools(spec: MultusConfigSpec) -> tuple[str, bool]:
    """The resource that a pod of this network needs, and whether any pool is named."""
    block = blocks_of(spec).get(BLOCK_KEYS.get(spec.cni_type or "", ""))
    if block is None:
        return "", False
    match block:
        case MacvlanConfig():
            resource = block.rdma_resource_name
        case SriovConfig() | IBSriovConfig():
            resource = block.resource_name
        case IpoibConfig():
            resource = block.master
        case _:
            resource = None
    pools = block.ippools
    return resource or "", pools is not None and bool(pools.ipv4 or pools.ipv6)


def errors(spec: MultusConfigSpec) -> list[FieldError]:
    """The type, that exactly its block is there, and the block's own rules."""
    cni_type = "custom" if spec.cni_type is None else spec.cni_type
    if cni_type not in TYPES:
        supported = ", ".join(f'"{one}"' for one in TYPES)
        sentence = f'Unsupported value: "{cni_type[:40]}": supported values: {supported}'
        return [invalid("spec.cniType", sentence, "NotSupported")]
    wanted = BLOCK_KEYS.get(cni_type, "customCNI")
    found = blocks_of(spec)
    out: list[FieldError] = []
    for key in (*found, *(("customCNI",) if spec.custom_cni is not None else ())):
        if key != wanted:
            sentence = f"the cniType {cni_type} only supports {wanted}, please remove other CNI configs"
            out.append(invalid(member("spec", key), sentence, "Forbidden"))
    block = found.get(wanted)
    if cni_type == "custom":
        return out + _custom_errors(spec.custom_cni or "")
    if block is None:
        return [*out, invalid(member("spec", wanted), f"no {wanted} specified", "Required")]
    path = member("spec", wanted)
    return (
        out
        + _block_errors(block, path, cni_type)
        + _pool_errors(block.ippools, member(path, "ippools"), cni_type)
    )


def _custom_errors(text: str) -> list[FieldError]:
    if not text:
        return []
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return [invalid("spec.customCNI", f"is not JSON: {error}")]
    return []


def _block_errors(block: Block, path: str, cni_type: str) -> list[FieldError]:
    match block:
        case VlanConfig():
            return _vlan_mode_errors(block, path) + _macvlan_errors(block, path)
        case MacvlanConfig():
            return _macvlan_errors(block, path)
        case SriovConfig():
            return _sriov_errors(block, path)
        case IBSriovConfig():
            out = _required(block.resource_name, member(path, "resourceName"))
            if block.link_state not in (None, "auto", "enable", "disable"):
                sentence = (
                    f'Unsupported value: "{block.link_state}": supported values: "auto", "enable", "disable"'
                )
                out.append(invalid(member(path, "linkState"), sentence, "NotSupported"))
            return out
        case IpoibConfig():
            sentence = interface_error(block.master) if block.master else None
            wrong = [invalid(member(path, "master"), sentence)] if sentence else []
            return _required(block.master, member(path, "master")) + wrong
        case OvsConfig():
            return _ovs_errors(block, path)


def _required(value: str | None, path: str) -> list[FieldError]:
    return [] if value else [invalid(path, "must be given", "Required")]


def _vlan_errors(vlan_id: int | None, path: str) -> list[FieldError]:
    if vlan_id is None or 0 <= vlan_id <= _VLAN_MAX:
        return []
    return [invalid(path, f"{vlan_id} is not a VLAN ID: it must be in range of 0 to {_VLAN_MAX}")]


def _count_errors(value: int | None, path: str) -> list[FieldError]:
    if value is None or 0 <= value <= INT32_MAX:
        return []
    bound = "greater than or equal to 0" if value < 0 else f"less than or equal to {INT32_MAX}"
    return [invalid(path, f"{value} must be {bound}")]


def _macvlan_errors(block: MacvlanConfig, path: str) -> list[FieldError]:
    out = _vlan_errors(block.vlan_id, member(path, "vlanID"))
    out += _count_errors(block.mtu_bytes, member(path, "mtu"))
    if not block.master:
        out.append(invalid(member(path, "master"), "must name at least one link of the node", "Required"))
    for i, name in enumerate(block.master):
        sentence = interface_error(name)
        if sentence:
            out.append(invalid(entry(member(path, "master"), i), sentence))
    if len(block.master) > 1 and block.bond is None:
        sentence = "must be given, with a name, for two or more masters"
        out.append(invalid(member(path, "bond"), sentence, "Required"))
    if block.bond is not None:
        out += _bond_errors(block.bond, member(path, "bond"))
    return out


def _bond_errors(bond: Bond, path: str) -> list[FieldError]:
    out = _required(bond.name, member(path, "name"))
    sentence = interface_error(bond.name) if bond.name else None
    if sentence:
        out.append(invalid(member(path, "name"), sentence))
    if bond.mode is None:
        out.append(invalid(member(path, "mode"), "must be given: 0 to 6", "Required"))
    elif not 0 <= bond.mode <= 6:
        out.append(invalid(member(path, "mode"), f"{bond.mode} is not a bonding mode: 0 to 6"))
    return out


def _vlan_mode_errors(block: VlanConfig, path: str) -> list[FieldError]:
    match "manual" if block.vlan_mode is None else block.vlan_mode:
        case "manual":
            if block.vlan_id is None:
                return [invalid(member(path, "vlanID"), "must be given in the vlanMode manual", "Required")]
        case "auto":
            if block.vlan_id is not None:
                return [invalid(member(path, "vlanID"), "may not be given in the vlanMode auto", "Forbidden")]
        case other:
            sentence = f'Unsupported value: "{other[:40]}": supported values: "manual", "auto"'
            return [invalid(member(path, "vlanMode"), sentence, "NotSupported")]
    return []


def _sriov_errors(block: SriovConfig, path: str) -> list[FieldError]:
    out = _required(block.resource_name, member(path, "resourceName"))
    out += _vlan_errors(block.vlan_id, member(path, "vlanID"))
    out += _count_errors(block.mtu_bytes, member(path, "mtu"))
    out += _count_errors(block.min_tx_rate_mbps, member(path, "minTxRateMbps"))
    out += _count_errors(block.max_tx_rate_mbps, member(path, "maxTxRateMbps"))
    low, high = block.min_tx_rate_mbps or 0, block.max_tx_rate_mbps or 0
    # 0 is "no limit" to the kernel (rtnetlink, IFLA_VF_RATE), so it bounds nothing.
    if high and low > high:
        out.append(invalid(member(path, "minTxRateMbps"), f"{low} must not be above maxTxRateMbps {high}"))
    return out


def _ovs_errors(block: OvsConfig, path: str) -> list[FieldError]:
    out = _required(block.bridge, member(path, "bridge"))
    out += _vlan_errors(block.vlan, member(path, "vlan"))
    for i, trunk in enumerate(block.trunk):
        here = entry(member(path, "trunk"), i)
        for key, value in (("minID", trunk.min_id), ("maxID", trunk.max_id), ("id", trunk.id)):
            out += _vlan_errors(value, member(here, key))
        if (trunk.min_id is None) != (trunk.max_id is None):
            missing = "minID" if trunk.min_id is None else "maxID"
            out.append(invalid(member(here, missing), "minID and maxID must be given together", "Required"))
        elif trunk.min_id is not None and trunk.max_id is not None and trunk.max_id < trunk.min_id:
            out.append(
                invalid(member(here, "maxID"), f"{trunk.max_id} must not be below minID {trunk.min_id}")
            )
    return out


def _pool_errors(pools: PoolNames | None, path: str, cni_type: str) -> list[FieldError]:
    if pools is None:
        return []
    out: list[FieldError] = []
    if pools.match_master_subnet and cni_type in ("macvlan", "ipvlan", "vlan"):
        sentence = f"is not supported for the cniType {cni_type}, only for sriov"
        out.append(invalid(member(path, "matchMasterSubnet"), sentence))
    for key, names in (("ipv4", pools.ipv4), ("ipv6", pools.ipv6)):
        for i, name in enumerate(names):
            sentence = wildcard.pattern_error(name) if wildcard.is_pattern(name) else None
            if not name or sentence:
                out.append(invalid(entry(member(path, key), i), sentence or "an IPPool name is empty"))
    return out
