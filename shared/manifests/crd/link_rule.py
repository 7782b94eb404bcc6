"""What the API server knows of the kinds about links, beyond their types: descriptions, limits, defaults, CEL.

Owns the rules that need no other object. Defaults are those that Spiderpool's own schemas give; the others are the webhook's
(shared/admission), which alone sees whether a SpiderMultusConfig was meant to have a block.
"""

from __future__ import annotations

from shared.limits import INT32_MAX
from shared.manifests.crd.address_rule import ADDRESS_MAX, CIDR_MAX, ROUTES_MAX
from shared.manifests.crd.schema import Json, Rules, Validation, cel, valid
from shared.manifests.network import (
    BLOCK_KEYS,
    Bond,
    CoordinatorSpec,
    CoordinatorStatus,
    IBSriovConfig,
    IpoibConfig,
    MacvlanConfig,
    MultusConfigSpec,
    NetworkAttachmentDefinition,
    NetworkAttachmentSpec,
    OvsConfig,
    PoolNames,
    SpiderCoordinator,
    SpiderMultusConfig,
    SriovConfig,
    Trunk,
    VlanConfig,
)

_INTERFACE = {"maxLength": 15, "pattern": r"^[^/:\s]+$"}
_VLAN = {"format": "int32", "minimum": 0, "maximum": 4094}
_INT32 = {"format": "int32", "minimum": 0, "maximum": INT32_MAX}
"""The API server does not look at the format: what is larger would be refused by everybody else who reads the object."""
_MTU = {
    **_INT32,
    "default": 0,
    "description": "Bytes; 0 takes that of the link below.",
}
_POOLS = {"description": "IPPools of this network, by name or pattern."}
_RESOURCE = {"required": True, "minLength": 1, "description": "The extended resource that brings the device."}
_IP_OR_CIDR = "isIP(self) || isCIDR(self)"
_WITHOUT_EFFECT = {"description": "Of older manifests; taken and without effect."}


def _blocks() -> list[Validation]:
    """Exactly the block of `cniType` is there; `customCNI` is the block of custom."""
    out: list[Validation] = []
    for cni_type, key in BLOCK_KEYS.items():
        out.append(
            cel(
                f"self.cniType != '{cni_type}' || has(self.{key})",
                f"no {key} specified",
                reason="FieldValueRequired",
                field=f".{key}",
            )
        )
    for cni_type, key in (*BLOCK_KEYS.items(), ("custom", "customCNI")):
        out.append(
            cel(
                f"self.cniType == '{cni_type}' || !has(self.{key})",
                "the cniType only supports its own block, please remove other CNI configs",
                expression="'the cniType %s only supports its own block, please remove other CNI configs'"
                ".format([self.cniType])",
                reason="FieldValueForbidden",
                field=f".{key}",
            )
        )
    return out


def _int(description: str, **members: int) -> Json:
    return {"format": "int64", "description": description, **members}


LINK_RULES: Rules = {
    CoordinatorSpec: {
        "mode": {
            "enum": ["auto", "underlay", "overlay", "disabled"],
            "default": "auto",
            "description": "How the pod's interfaces share traffic: auto decides by the number of networks.",
        },
        "podCIDRType": {
            "enum": ["auto", "cluster", "calico", "cilium", "none"],
            "description": "Where the pod networks of the cluster are learnt.",
        },
        "hijackCIDR": {
            "maxItems": ROUTES_MAX,
            "description": "Addresses and networks that the pod reaches by its node.",
        },
        "hijackCIDR[]": {"maxLength": CIDR_MAX, **valid(cel(_IP_OR_CIDR, "is neither an IP nor a CIDR"))},
        "policyRoutes": {"maxItems": ROUTES_MAX, "description": "Further routes of the pod."},
        "policyRoutes[]": valid(
            cel("isIP(self.dst) || isCIDR(self.dst)", "is neither an IP nor a CIDR", field=".dst"),
            cel("isIP(self.gw)", "invalid IP address", field=".gw"),
            cel(
                "!(isIP(self.dst) || isCIDR(self.dst)) || !isIP(self.gw) || "
                "(isIP(self.dst) ? ip(self.dst).family() : cidr(self.dst).ip().family()) == ip(self.gw).family()",
                "destination and gateway are of different families",
                field=".gw",
            ),
        ),
        "podMACPrefix": {
            "default": "",
            "maxLength": 5,
            "description": "The first two bytes of the pod's MAC addresses.",
            **valid(
                cel(
                    "self == '' || self.matches('^[0-9a-fA-F]{2}[:-][0-9a-fA-F]{2}$')",
                    "is not a valid MAC prefix; it is two hex bytes such as 0a:1b",
                ),
                cel(
                    "!self.matches('^[0-9a-fA-F][13579bBdDfF]')",
                    "is not a unicast MAC: the lowest bit of the first byte must be 0",
                ),
            ),
        },
        "tunePodRoutes": {"default": True, "description": "Set the routes of pods with several interfaces."},
        "podDefaultRouteNIC": {
            "default": "",
            "maxLength": 15,
            "pattern": r"^[^/:\s]*$",
            "description": "The interface that keeps the default route.",
        },
        "hostRuleTable": {**_int("The node's routing table for pods."), "default": 500},
        "podRPFilter": {**_int("rp_filter in the pod; negative leaves it alone.", maximum=2), "default": 0},
        "txQueueLen": {**_int("Transmit queue length; 0 leaves it alone.", minimum=0), "default": 0},
        "vethLinkAddress": {
            "default": "",
            "maxLength": ADDRESS_MAX,
            "description": "Address of the veth in the pod.",
            **valid(cel("self == '' || isIP(self)", "invalid IP address")),
        },
        "vethMTU": {
            **_int("MTU of the veth, in bytes."),
            **valid(cel("self > 0", "vethMTU must be greater than 0")),
        },
        "detectGateway": _WITHOUT_EFFECT,
        "detectIPConflict": _WITHOUT_EFFECT,
        "hostRPFilter": {"format": "int64", **_WITHOUT_EFFECT},
    },
    CoordinatorStatus: {
        "phase": {"required": True, "enum": ["NotReady", "Synced"], "description": "NotReady or Synced."},
        "reason": {"description": "Why it is not ready."},
        "overlayPodCIDR": {"description": "The pod networks of the cluster."},
        "serviceCIDR": {"description": "The service networks of the cluster."},
    },
    Bond: {
        "name": {
            "required": True,
            "description": "The bond's link on the node.",
            "minLength": 1,
            **_INTERFACE,
        },
        "mode": {"required": True, **_int("Bonding mode.", minimum=0, maximum=6)},
        "options": {"description": "KEY=VALUE;KEY=VALUE."},
    },
    PoolNames: {
        "ipv4": {"description": "IPv4 pools."},
        "ipv6": {"description": "IPv6 pools."},
        "matchMasterSubnet": {
            "default": False,
            "description": "Take only pools whose subnet holds an address of the device's PF. For sriov.",
        },
    },
    MacvlanConfig: {
        "": valid(
            cel(
                "!has(self.master) || size(self.master) < 2 || has(self.bond)",
                "must be given, with a name, for two or more masters",
                reason="FieldValueRequired",
                field=".bond",
            ),
            cel(
                "!has(self.ippools) || !has(self.ippools.matchMasterSubnet) || !self.ippools.matchMasterSubnet",
                "matchMasterSubnet is not supported for this cniType, only for sriov",
                field=".ippools.matchMasterSubnet",
            ),
        ),
        "master": {
            "required": True,
            "minItems": 1,
            "description": "Links of the node; two or more with a bond.",
        },
        "master[]": _INTERFACE,
        "mtu": _MTU,
        "vlanID": {**_VLAN, "description": "VLAN ID; 0 is none."},
        "bond": {"description": "The bond over two or more masters."},
        "rdmaResourceName": {"description": "The extended resource of the shared RDMA device."},
        "ippools": _POOLS,
    },
    VlanConfig: {
        "": valid(
            cel(
                "self.vlanMode != 'auto' || !has(self.vlanID)",
                "may not be given in the vlanMode auto",
                reason="FieldValueForbidden",
                field=".vlanID",
            )
        ),
        "vlanMode": {
            "enum": ["manual", "auto"],
            "default": "manual",
            "description": "manual takes vlanID, auto asks the provider of addresses.",
        },
    },
    SriovConfig: {
        "": valid(
            cel(
                "!has(self.minTxRateMbps) || !has(self.maxTxRateMbps) || self.maxTxRateMbps == 0 || "
                "self.minTxRateMbps <= self.maxTxRateMbps",
                "must not be above maxTxRateMbps",
                field=".minTxRateMbps",
            )
        ),
        "resourceName": _RESOURCE,
        "vlanID": {**_VLAN, "description": "VLAN ID; 0 is none."},
        "mtu": _MTU,
        "minTxRateMbps": {**_INT32, "description": "Least transmit rate in Mbit/s; 0 is no limit."},
        "maxTxRateMbps": {**_INT32, "description": "Greatest transmit rate in Mbit/s; 0 is no limit."},
        "rdmaIsolation": {"default": False, "description": "Move the RDMA device into the pod as well."},
        "ippools": _POOLS,
    },
    IBSriovConfig: {
        "resourceName": _RESOURCE,
        "pkey": {"description": "Partition key."},
        "linkState": {
            "enum": ["auto", "enable", "disable"],
            "default": "enable",
            "description": "Link state of the VF.",
        },
        "rdmaIsolation": {"default": True, "description": "Move the RDMA device into the pod as well."},
        "enableIbKubernetes": {"default": False, "description": "ib-kubernetes sets GUID and partition key."},
        "ippools": _POOLS,
    },
    IpoibConfig: {
        "master": {"required": True, "description": "IPoIB link of the node.", **_INTERFACE},
        "ippools": _POOLS,
    },
    Trunk: {
        "": valid(
            cel(
                "has(self.minID) == has(self.maxID)",
                "minID and maxID must be given together",
            ),
            cel(
                "!has(self.minID) || !has(self.maxID) || self.maxID >= self.minID",
                "must not be below minID",
                field=".maxID",
            ),
        ),
        "minID": {**_VLAN, "description": "First VLAN ID."},
        "maxID": {**_VLAN, "description": "Last VLAN ID."},
        "id": {**_VLAN, "description": "One VLAN ID."},
    },
    OvsConfig: {
        "bridge": {"required": True, "minLength": 1, "description": "The Open vSwitch bridge."},
        "vlan": {**_VLAN, "description": "VLAN ID; 0 is none."},
        "trunk": {"maxItems": 4096, "description": "VLANs that pass."},
        "deviceID": {"description": "The device for hardware offload; also names the resource."},
        "ippools": _POOLS,
    },
    MultusConfigSpec: {
        "": valid(*_blocks()),
        "cniType": {
            "enum": [*BLOCK_KEYS, "custom"],
            "default": "custom",
            "description": "The kind of link; exactly its block may be present.",
        },
        "enableCoordinator": {"default": True, "description": "Chain the coordinator; never for custom."},
        "disableIPAM": {"default": False, "description": "Leave out address management."},
        "coordinator": {"description": "What differs from the SpiderCoordinator."},
        "chainCNIJsonData": {
            "description": "Further plugins of the chain, each one JSON object with a type."
        },
        "customCNI": {"description": "The CNI configuration as JSON, for custom."},
        "macvlan": {"description": "For cniType macvlan."},
        "ipvlan": {"description": "For cniType ipvlan."},
        "vlan": {"description": "For cniType vlan."},
        "sriov": {"description": "For cniType sriov."},
        "ibsriov": {"description": "For cniType ib-sriov."},
        "ipoib": {"description": "For cniType ipoib."},
        "ovs": {"description": "For cniType ovs."},
    },
    SpiderMultusConfig: {"": {"description": "A network; becomes a NetworkAttachmentDefinition."}},
    SpiderCoordinator: {
        "": {"description": "How pods reach their node, other pods and services."},
        "spec": {"required": ["podCIDRType"]},
    },
    NetworkAttachmentSpec: {"config": {"description": "The CNI configuration as JSON."}},
    NetworkAttachmentDefinition: {
        "": {"description": "A network that pods name in k8s.v1.cni.cncf.io/networks."}
    },
}
