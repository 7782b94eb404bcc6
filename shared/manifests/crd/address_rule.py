"""What the API server knows of the kinds about addresses, beyond their types: descriptions, limits, defaults, CEL.

Owns the rules that need no other object and that CEL can tell within its budget (so every text and list has its longest).
Sentences are those of shared/admission, which judges the same and more: whether a range is reversed, whether ranges overlap.
CEL's `ip()` and `cidr()` are those of Kubernetes 1.31.
"""

from __future__ import annotations

from shared.manifests.crd.schema import Rules, cel, valid
from shared.manifests.ipam import (
    Allocation,
    AllocationDetail,
    EndpointStatus,
    IPPoolSpec,
    IPPoolStatus,
    RangeSpec,
    ReservedIPSpec,
    Route,
    SpiderEndpoint,
    SpiderIPPool,
    SpiderReservedIP,
    SpiderSubnet,
    SubnetStatus,
)
from shared.manifests.meta import LabelSelector, Requirement

ADDRESS_MAX = 45
"""Bytes of the longest text of an address: IPv6 with an IPv4 tail."""
CIDR_MAX = ADDRESS_MAX + 4
RANGE_MAX = 2 * ADDRESS_MAX + 1
RANGES_MAX = 10_000
ROUTES_MAX = 1_000

_UNCHANGED = cel("self == oldSelf", "is not changeable", reason="FieldValueForbidden")
_VERSION = {
    "format": "int64",
    "enum": [4, 6],
    "description": "The family: 4 or 6. Taken from the subnet where it is not given.",
    **valid(_UNCHANGED),
}
_COUNT = {"format": "int64", "minimum": 0}

_FIRST = "r.split('-')[0]"
_LAST = "r.split('-')[size(r.split('-')) - 1]"
_ENDS = f"isIP({_FIRST}) && isIP({_LAST}) && size(r.split('-')) <= 2"
_OF_FAMILY = f"{_ENDS} && ip({_FIRST}).family() == VERSION && ip({_LAST}).family() == VERSION"
_IN_SUBNET = f"cidr(self.subnet).containsIP({_FIRST}) && cidr(self.subnet).containsIP({_LAST})"


def _range_rules(member: str, version: str, has_version: str) -> list[dict[str, str]]:
    """Each range is one, of the family. `version` and `has_version` are CEL."""
    good = _OF_FAMILY.replace("VERSION", version)
    given = f"has(self.{member}) && {has_version}"
    return [
        cel(
            f"!({given}) || self.{member}.all(r, {good})",
            "invalid IP range format",
            expression=f"'invalid IP range format in IPv%d %s: an address or FIRST-LAST is wanted'.format("
            f"[{version}, self.{member}.filter(r, !({good}))[0]])",
            field=f".{member}",
        )
    ]


def _within(member: str) -> dict[str, str]:
    given = f"has(self.{member}) && isCIDR(self.subnet)"
    return cel(
        f"!({given}) || self.{member}.all(r, !({_ENDS}) || ({_IN_SUBNET}))",
        "not match base subnet",
        expression=f"'not match base subnet: %s is not contained in %s'.format("
        f"[self.{member}.filter(r, {_ENDS} && !({_IN_SUBNET}))[0], self.subnet])",
        field=f".{member}",
    )


_SUBNET_VERSION = "cidr(self.subnet).ip().family()"
_ROUTES = "has(self.routes) && isCIDR(self.subnet)"
_RANGES = {"maxItems": RANGES_MAX}

ADDRESS_RULES: Rules = {
    Requirement: {
        "": {"required": ["key", "operator"]},
        "key": {"description": "A label's key."},
        "operator": {"description": "In, NotIn, Exists or DoesNotExist."},
        "values": {"description": "For In and NotIn."},
    },
    LabelSelector: {
        "": {"x-kubernetes-map-type": "atomic"},
        "matchLabels": {"description": "Labels that must have these values."},
        "matchExpressions": {"description": "Requirements that must all hold."},
    },
    Route: {
        "": {"required": ["dst", "gw"]},
        "dst": {"maxLength": CIDR_MAX, "description": "The destination."},
        "gw": {"maxLength": ADDRESS_MAX, "description": "The gateway's address."},
    },
    RangeSpec: {
        "": valid(
            cel(
                "!has(self.ipVersion) || !isCIDR(self.subnet) || " + _SUBNET_VERSION + " == self.ipVersion",
                "invalid CIDR in IPvN: it is of the other family",
                expression="'invalid CIDR in IPv%d %s'.format([self.ipVersion, self.subnet])",
                field=".subnet",
            ),
            *_range_rules("ips", _SUBNET_VERSION, "isCIDR(self.subnet)"),
            _within("ips"),
            *_range_rules("excludeIPs", _SUBNET_VERSION, "isCIDR(self.subnet)"),
            _within("excludeIPs"),
            cel(
                "!has(self.gateway) || !isIP(self.gateway) || !isCIDR(self.subnet) || cidr(self.subnet).containsIP(self.gateway)",
                "gateway is not contained in the subnet",
                expression="'gateway %s is not contained in the subnet %s'.format([self.gateway, self.subnet])",
                field=".gateway",
            ),
            cel(
                f"!({_ROUTES}) || self.routes.all(r, !isCIDR(r.dst) || cidr(r.dst).ip().family() == {_SUBNET_VERSION})",
                "a destination is of another family than the subnet",
                field=".routes",
            ),
            cel(
                f"!({_ROUTES}) || self.routes.all(r, !isIP(r.gw) || cidr(self.subnet).containsIP(r.gw))",
                "the gateway of a route is not contained in the subnet",
                expression="'the gateway %s is not contained in the subnet %s'.format([self.routes.filter("
                "r, isIP(r.gw) && !cidr(self.subnet).containsIP(r.gw))[0].gw, self.subnet])",
                field=".routes",
            ),
        ),
        "ipVersion": _VERSION,
        "subnet": {
            "required": True,
            "maxLength": CIDR_MAX,
            "description": "The network as a CIDR whose host bits are zero.",
            **valid(
                _UNCHANGED,
                cel("isCIDR(self)", "invalid CIDR: ADDRESS/PREFIX is wanted"),
                cel(
                    "!isCIDR(self) || string(cidr(self).masked()) == self",
                    "unformatted subnet",
                    expression="'unformatted subnet %s, please change it to %s'.format([self, string(cidr(self).masked())])",
                ),
            ),
        },
        "ips": {"description": "Addresses and ranges FIRST-LAST that may be given.", **_RANGES},
        "ips[]": {"maxLength": RANGE_MAX},
        "excludeIPs": {"description": "Addresses and ranges of `ips` that may not be given.", **_RANGES},
        "excludeIPs[]": {"maxLength": RANGE_MAX},
        "gateway": {
            "maxLength": ADDRESS_MAX,
            "description": "The gateway of the subnet. Never given to a pod.",
            **valid(cel("self == '' || isIP(self)", "invalid gateway: an IP address is wanted")),
        },
        "routes": {
            "maxItems": ROUTES_MAX,
            "description": "Further routes; the default route follows from `gateway`.",
        },
        "routes[]": valid(
            cel("isCIDR(self.dst)", "invalid CIDR: ADDRESS/PREFIX is wanted", field=".dst"),
            cel(
                "!isCIDR(self.dst) || cidr(self.dst).prefixLength() > 0",
                "default routes are not allowed here, use 'spec.gateway'",
                field=".dst",
            ),
            cel("isIP(self.gw)", "invalid gateway: an IP address is wanted", field=".gw"),
        ),
    },
    IPPoolSpec: {
        "podAffinity": {
            "description": "Pods that may take addresses here.",
            **valid(
                cel(
                    "(has(self.matchLabels) && size(self.matchLabels) > 0) || "
                    "(has(self.matchExpressions) && size(self.matchExpressions) > 0)",
                    "requires at least one of matchLabels and matchExpressions",
                )
            ),
        },
        "namespaceAffinity": {"description": "Namespaces, by label, whose pods may take addresses here."},
        "namespaceName": {"description": "Namespaces, by name, whose pods may take addresses here."},
        "nodeAffinity": {"description": "Nodes, by label, on which pods may take addresses here."},
        "nodeName": {"description": "Nodes, by name, on which pods may take addresses here."},
        "multusName": {
            "description": "Networks, NAME or NAMESPACE/NAME, whose interfaces may take addresses here."
        },
        "default": {"default": False, "description": "A pool for pods that name none."},
        "disable": {"default": False, "description": "Gives no new address; releases go on."},
    },
    IPPoolStatus: {
        "allocatedIPs": {"description": "JSON text: address → pod and podUid. Absent when empty."},
        "allocatedIPCount": {**_COUNT, "description": "Addresses that are given."},
        "totalIPCount": {**_COUNT, "description": "Addresses of the pool, at most 9223372036854775807."},
        "allocatedIPsOmitted": {
            **_COUNT,
            "description": "How many given addresses allocatedIPs does not list; absent when it lists all.",
        },
    },
    SubnetStatus: {
        "controlledIPPools": {
            "description": "JSON text: pool → its addresses and application. Absent when empty."
        },
        "allocatedIPCount": {**_COUNT, "description": "Addresses that pools hold."},
        "totalIPCount": {**_COUNT, "description": "Addresses of the subnet, at most 9223372036854775807."},
    },
    ReservedIPSpec: {
        "": valid(
            cel(
                "has(self.ipVersion) || (has(self.ips) && size(self.ips) > 0)",
                "is not generated correctly, 'spec.ips' may be empty or its first element invalid",
                field=".ipVersion",
            ),
            *_range_rules("ips", "self.ipVersion", "has(self.ipVersion)"),
        ),
        "ipVersion": {
            **_VERSION,
            "description": "The family: 4 or 6. Taken from the first of `ips` where it is not given.",
        },
        "ips": {"description": "Addresses and ranges FIRST-LAST that no pool gives.", **_RANGES},
        "ips[]": {"maxLength": RANGE_MAX},
    },
    AllocationDetail: {
        "interface": {"required": True, "description": "The interface in the pod."},
        "ipv4": {"description": "Address with prefix length."},
        "ipv6": {"description": "Address with prefix length."},
        "ipv4Pool": {"description": "The SpiderIPPool of the address."},
        "ipv6Pool": {"description": "The SpiderIPPool of the address."},
        "vlan": {"format": "int64", "minimum": 0, "maximum": 4094, "default": 0, "description": "VLAN ID."},
        "ipv4Gateway": {"description": "The pool's gateway."},
        "ipv6Gateway": {"description": "The pool's gateway."},
        "cleanGateway": {"description": "No default route by this interface."},
        "routes": {"description": "Routes by this interface, without the default route."},
        "mac": {"description": "MAC address, where a provider of addresses gave one."},
    },
    Allocation: {
        "uid": {"required": True, "description": "The pod's UID."},
        "node": {"required": True, "description": "The pod's node."},
        "ips": {"required": True, "description": "The pod's interfaces."},
    },
    EndpointStatus: {
        "current": {"required": True, "description": "What the pod has now."},
        "ownerControllerType": {"required": True, "description": "Kind of the pod's top controller."},
        "ownerControllerName": {"required": True, "description": "Name of the pod's top controller."},
    },
    SpiderIPPool: {
        "": {"description": "Addresses that pods can have."},
        "spec": {"required": True},
    },
    SpiderSubnet: {
        "": {"description": "Addresses from which pools are made."},
        "spec": {"required": True},
    },
    SpiderReservedIP: {
        "": {"description": "Addresses that no pod gets, whatever the pools say."},
        "spec": {"required": True},
    },
    SpiderEndpoint: {"": {"description": "The interfaces and addresses of one pod; written by the system."}},
}
