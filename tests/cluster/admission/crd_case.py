"""Objects that the API server must take, and changes to them that it must refuse, rule by rule.

`BASES` are objects with every member of their kind; what their schemas forbid by a keyword is made from them by `violations`, and
`CEL_CASES` has one change at least for each CEL rule.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import msgspec

from shared.manifests.crd.definition import definitions

Json = dict[str, Any]
V2BETA1 = "spiderpool.spidernet.io/v2beta1"
DELETE = object()


def ours(kind: str, spec: Json, name: str = "a", **members: Any) -> Json:
    return {"apiVersion": V2BETA1, "kind": kind, "metadata": {"name": name}, "spec": spec, **members}


_RANGES: Json = {
    "ipVersion": 4,
    "subnet": "172.18.40.0/24",
    "ips": ["172.18.40.2", "172.18.40.10-172.18.40.20"],
    "excludeIPs": ["172.18.40.15"],
    "gateway": "172.18.40.1",
    "routes": [{"dst": "10.0.0.0/8", "gw": "172.18.40.254"}],
}
_SELECTOR: Json = {
    "matchLabels": {"a": "b"},
    "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
}
_COORDINATOR: Json = {
    "mode": "underlay",
    "podCIDRType": "calico",
    "hijackCIDR": ["169.254.0.0/16", "10.0.0.1", "fd00::/64"],
    "policyRoutes": [{"dst": "10.9.0.0/16", "gw": "10.8.0.1"}, {"dst": "fd00::5", "gw": "fd00::1"}],
    "podMACPrefix": "0a:1b",
    "tunePodRoutes": False,
    "podDefaultRouteNIC": "net1",
    "hostRuleTable": 600,
    "podRPFilter": -1,
    "txQueueLen": 1000,
    "vethLinkAddress": "169.254.200.1",
    "vethMTU": 1400,
    "detectGateway": True,
    "detectIPConflict": False,
    "hostRPFilter": 0,
}
_POOLS: Json = {"ipv4": ["v4-*"], "ipv6": ["v6"], "matchMasterSubnet": False}
_LINK: Json = {
    "master": ["eth1", "eth2"],
    "mtu": 1400,
    "vlanID": 100,
    "bond": {"name": "bond0", "mode": 1, "options": "miimon=100"},
    "rdmaResourceName": "spidernet.io/shared",
    "ippools": _POOLS,
}
_BLOCKS: Json = {
    "macvlan": _LINK,
    "ipvlan": _LINK,
    "vlan": {**_LINK, "vlanMode": "manual"},
    "sriov": {
        "resourceName": "intel.com/sriov",
        "vlanID": 5,
        "mtu": 9000,
        "minTxRateMbps": 10,
        "maxTxRateMbps": 100,
        "rdmaIsolation": True,
        "ippools": {**_POOLS, "matchMasterSubnet": True},
    },
    "ibsriov": {
        "resourceName": "ib/vf",
        "pkey": "0x8001",
        "linkState": "auto",
        "rdmaIsolation": True,
        "enableIbKubernetes": True,
        "ippools": _POOLS,
    },
    "ipoib": {"master": "ib0", "ippools": _POOLS},
    "ovs": {
        "bridge": "br1",
        "vlan": 7,
        "trunk": [{"minID": 1, "maxID": 9}, {"id": 42}],
        "deviceID": "0000:04:00.1",
        "ippools": _POOLS,
    },
}
CNI_TYPES = {"ibsriov": "ib-sriov"}


def multus(key: str, block: Json | None = None) -> Json:
    """A SpiderMultusConfig of the type whose block has this key, with a coordinator."""
    spec: Json = {
        "cniType": CNI_TYPES.get(key, key),
        key: copy.deepcopy(_BLOCKS[key] if block is None else block),
        "coordinator": copy.deepcopy(_COORDINATOR),
        "enableCoordinator": True,
        "disableIPAM": False,
        "chainCNIJsonData": ['{"type":"tuning"}'],
    }
    return ours("SpiderMultusConfig", spec)


_DETAIL: Json = {
    "interface": "eth0",
    "ipv4": "10.6.0.12/16",
    "ipv6": "fd00::c/64",
    "ipv4Pool": "v4",
    "ipv6Pool": "v6",
    "vlan": 0,
    "ipv4Gateway": "10.6.0.1",
    "ipv6Gateway": "fd00::1",
    "cleanGateway": False,
    "routes": [{"dst": "10.0.0.0/8", "gw": "10.6.0.254"}],
    "mac": "0a:1b:00:00:00:01",
}
_COUNTS: Json = {"allocatedIPCount": 1, "totalIPCount": 9223372036854775807}

BASES: dict[str, Json] = {
    "SpiderIPPool": ours(
        "SpiderIPPool",
        {
            **_RANGES,
            "podAffinity": _SELECTOR,
            "namespaceAffinity": _SELECTOR,
            "namespaceName": ["x"],
            "nodeAffinity": _SELECTOR,
            "nodeName": ["n1"],
            "multusName": ["kube-system/macvlan"],
            "default": True,
            "disable": True,
        },
        status={"allocatedIPs": '{"172.18.40.2":{"pod":"x/p","podUid":"u"}}', **_COUNTS},
    ),
    "SpiderSubnet": ours(
        "SpiderSubnet", dict(_RANGES), status={"controlledIPPools": '{"a":{"ips":[]}}', **_COUNTS}
    ),
    "SpiderReservedIP": ours("SpiderReservedIP", {"ipVersion": 6, "ips": ["fd00::1", "fd00::5-fd00::9"]}),
    "SpiderEndpoint": {
        "apiVersion": V2BETA1,
        "kind": "SpiderEndpoint",
        "metadata": {"name": "a"},
        "status": {
            "current": {"uid": "u", "node": "n1", "ips": [_DETAIL]},
            "ownerControllerType": "Deployment",
            "ownerControllerName": "web",
        },
    },
    "SpiderCoordinator": ours(
        "SpiderCoordinator",
        dict(_COORDINATOR),
        status={
            "phase": "Synced",
            "reason": "",
            "overlayPodCIDR": ["10.244.0.0/16"],
            "serviceCIDR": ["10.96.0.0/12"],
        },
    ),
    "custom": ours("SpiderMultusConfig", {"cniType": "custom", "customCNI": '{"type":"x"}'}),
    **{key: multus(key) for key in _BLOCKS},
}

ACCEPTED: dict[str, Json] = {
    "a pool with its subnet alone": ours("SpiderIPPool", {"subnet": "10.6.0.0/16"}),
    "a pool of IPv6": ours(
        "SpiderIPPool",
        {
            "ipVersion": 6,
            "subnet": "fd12:3456:789a::/48",
            "ips": ["fd12:3456:789a:baba::1-fd12:3456:789a:ffff:ffff:ffff:ffff:ffff"],
            "gateway": "fd12:3456:789a::1",
            "routes": [{"dst": "fd00::/8", "gw": "fd12:3456:789a::ff"}],
        },
    ),
    "a pool with empty lists": ours(
        "SpiderIPPool", {"subnet": "10.6.0.0/16", "ips": [], "excludeIPs": [], "routes": [], "gateway": ""}
    ),
    "a pool of an empty selector of nodes": ours(
        "SpiderIPPool", {"subnet": "10.6.0.0/16", "nodeAffinity": {}, "namespaceAffinity": {}}
    ),
    "a pool whose only network is an address": ours(
        "SpiderIPPool", {"subnet": "10.6.0.1/32", "ips": ["10.6.0.1"]}
    ),
    "a pool of everything": ours("SpiderIPPool", {"subnet": "0.0.0.0/0", "ips": ["1.0.0.0-223.255.255.255"]}),
    "a subnet of an auto pool": ours(
        "SpiderIPPool",
        {"subnet": "10.6.0.0/16", "podAffinity": {"matchLabels": {"ipam.spidernet.io/app-namespace": "x"}}},
    ),
    "a subnet": ours("SpiderSubnet", {"subnet": "fd00:172:18::/64", "ips": ["fd00:172:18::1"]}),
    "a reservation whose version the webhook finds": ours("SpiderReservedIP", {"ips": ["10.6.0.5"]}),
    "a reservation of nothing": ours("SpiderReservedIP", {"ipVersion": 4, "ips": []}),
    "a coordinator": ours("SpiderCoordinator", {"podCIDRType": "auto"}),
    "a coordinator of all defaults written": ours(
        "SpiderCoordinator",
        {
            "podCIDRType": "none",
            "podMACPrefix": "",
            "podDefaultRouteNIC": "",
            "vethLinkAddress": "",
            "podRPFilter": 2,
        },
    ),
    "a custom configuration of nothing": ours("SpiderMultusConfig", {}),
    "a configuration without spec": {
        "apiVersion": V2BETA1,
        "kind": "SpiderMultusConfig",
        "metadata": {"name": "a"},
    },
    "vlanMode auto": multus("vlan", {"master": ["eth1"], "vlanMode": "auto"}),
    "no limit above a least rate": multus(
        "sriov", {"resourceName": "r", "minTxRateMbps": 5, "maxTxRateMbps": 0}
    ),
    "one master without bond": multus("macvlan", {"master": ["eth1"]}),
    "an endpoint without addresses": {
        "apiVersion": V2BETA1,
        "kind": "SpiderEndpoint",
        "metadata": {"name": "a"},
        "status": {
            "current": {"uid": "u", "node": "n", "ips": []},
            "ownerControllerType": "Pod",
            "ownerControllerName": "p",
        },
    },
}


class Case(msgspec.Struct, frozen=True):
    """`base` with `value` at `at` (DELETE takes it away): refused about `field` with `sentence`."""

    base: str
    at: tuple[str | int, ...]
    value: Any
    field: str
    sentence: str

    @property
    def label(self) -> str:
        return f"{self.base} {'.'.join(map(str, self.at))} {self.value if self.value is not DELETE else 'absent'!s:.40} {self.sentence:.30}"

    def object(self) -> Json:
        out = copy.deepcopy(BASES[self.base])
        if self.at:
            put(out, self.at, self.value)
        return out


def put(where: Any, at: tuple[str | int, ...], value: Any) -> None:
    for key in at[:-1]:
        where = where[key]
    if value is DELETE:
        del where[at[-1]]
    else:
        where[at[-1]] = value


def path_of(at: tuple[str | int, ...]) -> str:
    """`spec.ips[0]`, as the API server writes it."""
    out = ""
    for key in at:
        out += f"[{key}]" if isinstance(key, int) else f".{key}" if out else key
    return out


def schema_of(kind: str) -> Json:
    found = next(one for one in definitions().values() if one["spec"]["names"]["kind"] == kind)
    return found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def places(
    schema: Json, value: Any, at: tuple[str | int, ...] = ()
) -> Iterator[tuple[Json, tuple[str | int, ...]]]:
    """Every schema together with the place in the object that it is about; of a list its first item."""
    yield schema, at
    if isinstance(value, dict):
        for key, member in schema.get("properties", {}).items():
            if key in value:
                yield from places(member, value[key], (*at, key))
    elif isinstance(value, list) and value and "items" in schema:
        yield from places(schema["items"], value[0], (*at, 0))


_WRONG_TYPE: Json = {"integer": "x", "string": 7, "boolean": "true", "array": {}, "object": []}


def violations() -> Iterator[Case]:
    """One for each keyword of each place of each base: each keyword must refuse."""
    for base, raw in BASES.items():
        for schema, at in places(schema_of(raw["kind"]), raw):
            if len(at) < 2 and at != ("spec",):
                continue
            field = path_of(at)
            yield Case(base, at, _WRONG_TYPE[schema["type"]], field, "must be of type")
            for key in schema.get("required", ()):
                yield Case(base, (*at, key), DELETE, path_of((*at, key)), "Required value")
            if "enum" in schema:
                yield Case(
                    base, at, 5 if schema["type"] == "integer" else "elsewhere", field, "Unsupported value"
                )
            if "minimum" in schema:
                yield Case(base, at, schema["minimum"] - 1, field, "should be greater than or equal to")
            if "maximum" in schema:
                yield Case(base, at, schema["maximum"] + 1, field, "should be less than or equal to")
            if "minLength" in schema:
                yield Case(base, at, "", field, "should be at least 1 chars long")
            if "maxLength" in schema:
                yield Case(base, at, "a" * (schema["maxLength"] + 1), field, "may not be more than")
            if "pattern" in schema:
                yield Case(base, at, "a/b", field, "should match")
            if "minItems" in schema:
                yield Case(base, at, [], field, "should have at least 1 items")
            if "maxItems" in schema:
                one = BASES[base]
                for key in at:
                    one = one[key]
                yield Case(base, at, one[:1] * (schema["maxItems"] + 1), field, "must have at most")


def _range_cases(base: str) -> list[Case]:
    spec = ("spec",)
    out = [
        Case(base, (*spec, "subnet"), "172.18.40.0", "spec.subnet", "invalid CIDR"),
        Case(base, (*spec, "subnet"), "", "spec.subnet", "invalid CIDR"),
        Case(base, (*spec, "subnet"), "172.18.40.0/33", "spec.subnet", "invalid CIDR"),
        Case(
            base,
            (*spec, "subnet"),
            "172.18.40.9/24",
            "spec.subnet",
            "unformatted subnet 172.18.40.9/24, please change it to 172.18.40.0/24",
        ),
        Case(
            base,
            (*spec, "subnet"),
            "FD00:0::/64",
            "spec.subnet",
            "unformatted subnet FD00:0::/64, please change it to fd00::/64",
        ),
        Case(base, (*spec, "ipVersion"), 6, "spec.subnet", "invalid CIDR in IPv6 172.18.40.0/24"),
        Case(base, (*spec, "gateway"), "172.18.41.1", "spec.gateway", "is not contained in the subnet"),
        Case(base, (*spec, "gateway"), "fd00::1", "spec.gateway", "is not contained in the subnet"),
        Case(base, (*spec, "gateway"), "gateway", "spec.gateway", "invalid gateway"),
        Case(
            base,
            (*spec, "routes", 0, "dst"),
            "0.0.0.0/0",
            "spec.routes[0].dst",
            "default routes are not allowed",
        ),
        Case(
            base, (*spec, "routes", 0, "dst"), "::/0", "spec.routes[0].dst", "default routes are not allowed"
        ),
        Case(base, (*spec, "routes", 0, "dst"), "10.0.0.1", "spec.routes[0].dst", "invalid CIDR"),
        Case(base, (*spec, "routes", 0, "gw"), "x", "spec.routes[0].gw", "invalid gateway"),
        Case(
            base,
            (*spec, "routes", 0, "gw"),
            "172.18.41.1",
            "spec.routes",
            "the gateway 172.18.41.1 is not contained",
        ),
        Case(
            base, (*spec, "routes", 0, "dst"), "fd00::/64", "spec.routes", "of another family than the subnet"
        ),
    ]
    for key in ("ips", "excludeIPs"):
        for text in ("172.18.40.0/24", "172.18.40.2-", "172.18.40.2-3", "1-2-3", " 172.18.40.2", "172.18.40.2 - 172.18.40.3",
                     "fd00::1", "172.18.40.2-fd00::1", "", "172.18.040.2", "172.18.40.2-172.18.40.4-172.18.40.5"):  # fmt: skip
            out.append(
                Case(base, (*spec, key, 0), text, f"spec.{key}", f"invalid IP range format in IPv4 {text}:")
            )
        for text in ("172.18.41.2", "172.18.40.2-172.18.41.3", "172.18.39.255-172.18.40.3"):
            out.append(
                Case(
                    base,
                    (*spec, key, 0),
                    text,
                    f"spec.{key}",
                    f"not match base subnet: {text} is not contained",
                )
            )
    return out


def _coordinator_cases(base: str, *spec: str) -> list[Case]:
    path = path_of(spec)
    return [
        Case(
            base,
            (*spec, "hijackCIDR", 1),
            "10.0.0.0/33",
            f"{path}.hijackCIDR[1]",
            "is neither an IP nor a CIDR",
        ),
        Case(base, (*spec, "hijackCIDR", 0), "x", f"{path}.hijackCIDR[0]", "is neither an IP nor a CIDR"),
        Case(
            base,
            (*spec, "policyRoutes", 0, "dst"),
            "x",
            f"{path}.policyRoutes[0].dst",
            "is neither an IP nor a CIDR",
        ),
        Case(base, (*spec, "policyRoutes", 0, "gw"), "x", f"{path}.policyRoutes[0].gw", "invalid IP address"),
        Case(
            base,
            (*spec, "policyRoutes", 0, "gw"),
            "fd00::1",
            f"{path}.policyRoutes[0].gw",
            "different families",
        ),
        Case(
            base,
            (*spec, "policyRoutes", 1, "gw"),
            "10.0.0.1",
            f"{path}.policyRoutes[1].gw",
            "different families",
        ),
        Case(base, (*spec, "podMACPrefix"), "0a1b", f"{path}.podMACPrefix", "is not a valid MAC prefix"),
        Case(base, (*spec, "podMACPrefix"), "zz:10", f"{path}.podMACPrefix", "is not a valid MAC prefix"),
        Case(base, (*spec, "podMACPrefix"), "01:10", f"{path}.podMACPrefix", "is not a unicast MAC"),
        Case(
            base,
            (*spec, "vethLinkAddress"),
            "169.254.0.1/16",
            f"{path}.vethLinkAddress",
            "invalid IP address",
        ),
        Case(base, (*spec, "vethMTU"), 0, f"{path}.vethMTU", "vethMTU must be greater than 0"),
        Case(base, (*spec, "vethMTU"), -1, f"{path}.vethMTU", "vethMTU must be greater than 0"),
    ]


def _multus_cases() -> list[Case]:
    out: list[Case] = []
    for key in _BLOCKS:
        out.append(Case(key, ("spec", key), DELETE, f"spec.{key}", f"no {key} specified"))
        other = "macvlan" if key != "macvlan" else "ovs"
        out.append(Case(key, ("spec", other), _BLOCKS[other], f"spec.{other}", "only supports its own block"))
        out.append(
            Case(
                "custom",
                ("spec", key),
                _BLOCKS[key],
                f"spec.{key}",
                "the cniType custom only supports its own",
            )
        )
    out.append(
        Case(
            "macvlan",
            ("spec", "customCNI"),
            "",
            "spec.customCNI",
            "the cniType macvlan only supports its own",
        )
    )
    for key in ("macvlan", "ipvlan", "vlan"):
        where = ("spec", key)
        out.append(Case(key, (*where, "bond"), DELETE, f"spec.{key}.bond", "for two or more masters"))
        out.append(
            Case(
                key,
                (*where, "ippools", "matchMasterSubnet"),
                True,
                f"spec.{key}.ippools.matchMasterSubnet",
                "is not supported for this cniType, only for sriov",
            )
        )
    out += [
        Case(
            "vlan",
            ("spec", "vlan", "vlanMode"),
            "auto",
            "spec.vlan.vlanID",
            "may not be given in the vlanMode auto",
        ),
        Case(
            "sriov",
            ("spec", "sriov", "minTxRateMbps"),
            101,
            "spec.sriov.minTxRateMbps",
            "must not be above maxTxRateMbps",
        ),
        Case(
            "ovs", ("spec", "ovs", "trunk", 0, "minID"), DELETE, "spec.ovs.trunk[0]", "must be given together"
        ),
        Case(
            "ovs", ("spec", "ovs", "trunk", 0, "maxID"), DELETE, "spec.ovs.trunk[0]", "must be given together"
        ),
        Case(
            "ovs",
            ("spec", "ovs", "trunk", 0, "maxID"),
            0,
            "spec.ovs.trunk[0].maxID",
            "must not be below minID",
        ),
    ]
    return out


CEL_CASES: tuple[Case, ...] = (
    *_range_cases("SpiderIPPool"),
    *_range_cases("SpiderSubnet"),
    Case("SpiderIPPool", ("spec", "podAffinity"), {}, "spec.podAffinity", "requires at least one of"),
    Case(
        "SpiderIPPool",
        ("spec", "podAffinity"),
        {"matchLabels": {}},
        "spec.podAffinity",
        "requires at least one of",
    ),
    Case(
        "SpiderReservedIP",
        ("spec", "ips", 0),
        "10.6.0.1",
        "spec.ips",
        "invalid IP range format in IPv6 10.6.0.1",
    ),
    Case("SpiderReservedIP", ("spec",), {"ips": []}, "spec.ipVersion", "is not generated correctly"),
    Case("SpiderReservedIP", ("spec",), {}, "spec.ipVersion", "is not generated correctly"),
    *_coordinator_cases("SpiderCoordinator", "spec"),
    *_coordinator_cases("macvlan", "spec", "coordinator"),
    *_multus_cases(),
)
"""Beside the transitions, which need an older object."""
