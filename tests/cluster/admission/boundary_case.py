"""Values at the edges of every field: which a real API server with our CRDs and our webhook must take, and which refuse.

A row is a kind and a field with the values that are refused and those that are taken, each put into the kind's smallest object.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

Json = dict[str, Any]
V2BETA1 = "spiderpool.spidernet.io/v2beta1"
RDMA, NETWORK = "cni.spidernet.io/rdma-resource-inject", "cni.spidernet.io/network-resource-inject"
CR_NAME, CNI_VERSION = "multus.spidernet.io/cr-name", "multus.spidernet.io/cni-version"
GATEWAY = "10.70.0.1"


def _object(kind: str, spec: Json, name: str = "edge", **meta: Any) -> Json:
    return {"apiVersion": V2BETA1, "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}


class Row(msgspec.Struct, frozen=True):
    """`make` puts a value into an object; every value of `refused` and `taken` is one case."""

    what: str
    make: Callable[[Any], Json]
    refused: list[Any]
    taken: list[Any]


def _field(kind: str, base: Json, field: str) -> Callable[[Any], Json]:
    return lambda value: _object(kind, {**base, field: value})


_SUBNETS = Row(
    "subnet",
    lambda value: _object("SpiderIPPool", {"subnet": value}),
    [
        "", None, 5, "10.70.0.0", "10.70.0.1/24", "10.70.0.0/33", "10.70.0.0/-1", "10.70.0.0/+24", "10.70.0.0/024", "10.70.0.0/",
        "/24", "010.70.0.0/24", " 10.70.0.0/24", "10.70.0.0/24 ", "10.70/16", "0x0a.70.0.0/24", "１０.70.0.0/24", "10.70.0.0/２４",
        "10.70.0.0/24/24", "10.70.0.0-10.70.0.255", "FD00:70::/64", "fd00:0070::/64", "fd00:70:0:0::/64", "fd00:70::1/64",
        "fd00:70::/129", "fd00:70::/ 64", "fd00:70::%eth0/64", "::ffff:10.70.0.0/120", "::ffff:a46:0/120",
    ],
    [
        "10.70.0.0/32", "10.70.0.0/31", "0.0.0.0/0", "::/0", "fd00:70::/128", "fd00:70::1/128", "fe80::/64", "ff00::/8", "224.0.0.0/4",
    ],
)  # fmt: skip
_RANGES_4 = (
    [
        [""], [None], [5], "10.70.0.10", {}, ["10.70.0.9-10.70.0.1"], ["10.70.0.10-"], ["-10.70.0.10"],
        ["10.70.0.1-10.70.0.2-10.70.0.3"], ["10.70.0.10 - 10.70.0.12"], ["10.70.0.10,10.70.0.11"], ["10.70.0.0/28"],
        ["10.70.0.10-20"], ["fd00::1"], ["10.70.1.1"], ["10.70.0.250-10.70.1.2"], ["10.70.0.010"], ["10.70.0.10 "],
        ["10.70.0.10-fd00::1"], ["::ffff:10.70.0.10"], ["10.70.0.256"], ["10.70.0"], ["10.70.0.10\n"], ["１０.70.0.10"],
        ["10.70.0.10–10.70.0.12"],
    ],
    [
        [], None, ["10.70.0.0"], ["10.70.0.255"], ["10.70.0.10-10.70.0.10"], ["10.70.0.10", "10.70.0.10"], ["10.70.0.0-10.70.0.255"],
        ["10.70.0.10-10.70.0.20", "10.70.0.15-10.70.0.30"],
    ],
)  # fmt: skip
_RANGES_6 = (
    [["10.0.0.1"], ["fd00:70::1%1"], ["fd00:70::g"], ["fd00:70::1-fd00:71::"], ["::1"], ["fd00:70::1::2"]],
    [
        ["FD00:70::A"], ["fd00:70::1-fd00:70::FFFF"], ["fd00:70::-fd00:70::ffff:ffff:ffff:ffff"], ["fd00:70:0:0:0:0:0:1"],
        ["fd00:70::10.0.0.1"],
    ],
)  # fmt: skip
_GATEWAYS_4 = (
    ["10.70.1.1", "fd00::1", "10.70.0.1/24", "10.70.0.001", "10.70.0.300", "gw", " 10.70.0.1", 5],
    ["", None, GATEWAY, "10.70.0.0", "10.70.0.255"],
)
_ROUTES = (
    [
        [{"dst": "0.0.0.0/0", "gw": GATEWAY}], [{"dst": "1.2.3.4/0", "gw": GATEWAY}], [{"dst": "::/0", "gw": GATEWAY}],
        [{"dst": "10.1.0.0/16", "gw": GATEWAY}] * 2, [{"dst": "10.1.0.0/16", "gw": "10.71.0.1"}], [{"dst": "10.1.0.0/16"}],
        [{"gw": GATEWAY}], [{"dst": "", "gw": GATEWAY}], [{"dst": "10.1.0.0/16", "gw": ""}], [{"dst": "10.1.0.1", "gw": GATEWAY}],
        [{"dst": "fd00::/64", "gw": GATEWAY}], [{"dst": "10.1.0.0/33", "gw": GATEWAY}], [{"dst": "10.1.0.0/16", "gw": "fd00::1"}],
        [{"dst": "10.1.0.0/016", "gw": GATEWAY}], {"dst": "10.1.0.0/16", "gw": GATEWAY}, ["10.1.0.0/16"],
    ],
    [
        [], None, [{"dst": "10.1.0.0/16", "gw": GATEWAY}], [{"dst": "10.1.0.5/16", "gw": GATEWAY}],
        [{"dst": "10.1.0.5/32", "gw": GATEWAY}, {"dst": "10.1.0.0/24", "gw": GATEWAY}],
    ],
)  # fmt: skip
_VERSIONS = ([6, 0, 5, -4, "4", 4.5], [4, None])
_NAMES = Row(
    "metadata.name",
    lambda value: _object("SpiderIPPool", {"subnet": "10.70.0.0/24"}, value),
    ["", "a" * 254, "A", "ä", "a..b", "-a", "a_b", "a/b"],
    ["a" * 253, "a.b-c", "0"],
)
_SELECTORS_REFUSED: list[Any] = [
    {}, {"matchLabels": {}}, {"matchExpressions": []}, {"matchLabels": {"a b": "c"}}, {"matchLabels": {"a": "b" * 64}},
    {"matchLabels": {"": "b"}}, {"matchLabels": {"a": "-"}}, {"matchLabels": {"a": 5}}, [], "x",
    {"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]}, {"matchExpressions": [{"key": "a", "operator": "In"}]},
    {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]},
    {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
    {"matchExpressions": [{"key": "", "operator": "Exists"}]}, {"matchExpressions": [{"operator": "Exists"}]},
]  # fmt: skip
_SELECTORS_TAKEN: list[Any] = [
    None, {"matchLabels": {"a": ""}}, {"matchLabels": {"x.io/a": "b" * 63}},
    {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b", "b"]}]},
    {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]},
]  # fmt: skip
_UNJUDGED: list[Any] = [
    {}, None, {"matchLabels": {"a b": "c"}}, {"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]},
    {"matchExpressions": [{"key": "a", "operator": "In"}]},
]  # fmt: skip
_LISTS = (["x", [5], {}], [[], None, ["x"], ["x", "x"], ["a/b"], [""]])
_FLAGS = (["true", 1, []], [True, False, None])


def _pools() -> Iterator[Row]:
    four, six = {"subnet": "10.70.0.0/24"}, {"subnet": "fd00:70::/64"}
    yield _NAMES
    for kind in ("SpiderIPPool", "SpiderSubnet"):
        yield Row(
            f"{kind} subnet",
            lambda v, k=kind: {**_SUBNETS.make(v), "kind": k},
            _SUBNETS.refused,
            _SUBNETS.taken,
        )
        for field in ("ips", "excludeIPs"):
            yield Row(f"{kind} IPv4 {field}", _field(kind, four, field), *_RANGES_4)
            yield Row(f"{kind} IPv6 {field}", _field(kind, six, field), *_RANGES_6)
        yield Row(f"{kind} ipVersion", _field(kind, four, "ipVersion"), *_VERSIONS)
        yield Row(f"{kind} gateway", _field(kind, four, "gateway"), *_GATEWAYS_4)
        yield Row(
            f"{kind} IPv6 gateway",
            _field(kind, six, "gateway"),
            ["::ffff:10.70.0.1", GATEWAY, "fd00:70::1%1"],
            ["FD00:70::1", "fd00:70::"],
        )
        given = {**four, "ips": ["10.70.0.1-10.70.0.9"], "gateway": GATEWAY}
        yield Row(
            f"{kind} gateway among the addresses",
            _field(kind, given, "excludeIPs"),
            [[], ["10.70.0.2-10.70.0.9"]],
            [["10.70.0.1"], ["10.70.0.0-10.70.0.255"]],
        )
        yield Row(f"{kind} routes", _field(kind, four, "routes"), *_ROUTES)
    pool = "SpiderIPPool"
    yield Row("podAffinity", _field(pool, four, "podAffinity"), _SELECTORS_REFUSED, _SELECTORS_TAKEN)
    for field in ("namespaceAffinity", "nodeAffinity"):
        yield Row(field, _field(pool, four, field), ["x", []], _UNJUDGED)
    for field in ("namespaceName", "nodeName", "multusName"):
        yield Row(field, _field(pool, four, field), *_LISTS)
    for field in ("default", "disable"):
        yield Row(field, _field(pool, four, field), *_FLAGS)
    yield Row(
        "many ranges",
        _field(pool, {"subnet": "10.0.0.0/8"}, "ips"),
        [],
        [[f"10.{i // 250}.{i % 250}.1" for i in range(5000)], [f"10.70.0.{i}" for i in range(2, 250, 2)]],
    )


def _reservations() -> Iterator[Row]:
    yield Row(
        "reservation",
        lambda spec: _object("SpiderReservedIP", spec),
        [
            {}, {"ips": []}, {"ips": None}, {"ips": [""]}, {"ips": ["10.0.0.1", "fd00::1"]}, {"ips": ["10.0.0.9-10.0.0.1"]},
            {"ips": ["10.0.0.0/24"]}, {"ips": ["10.0.0.01"]}, {"ips": ["::ffff:10.0.0.1-10.0.0.3"]}, {"ipVersion": 5},
            {"ipVersion": 6, "ips": ["10.0.0.1"]}, {"ipVersion": 4, "ips": ["fd00::1"]}, {"ipVersion": 0, "ips": ["10.0.0.1"]},
        ],
        [
            {"ipVersion": 4}, {"ipVersion": 6, "ips": []}, {"ips": ["10.0.0.1"]}, {"ips": ["FD00::1"]}, {"ips": ["10.0.0.1", "10.0.0.1"]},
            {"ips": ["0.0.0.0-255.255.255.255"]}, {"ips": ["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]},
            {"ips": ["10.0.0.1", "10.0.0.2-10.0.0.3"]},
        ],
    )  # fmt: skip


def _endpoint(detail: Any) -> Json:
    current = {"uid": "u", "node": "n", "ips": [detail]}
    status = {"current": current, "ownerControllerType": "Pod", "ownerControllerName": "p"}
    return {"apiVersion": V2BETA1, "kind": "SpiderEndpoint", "metadata": {"name": "edge"}, "status": status}


def _link(cni_type: str, key: str = "") -> Callable[[Any], Json]:
    return lambda block: _object("SpiderMultusConfig", {"cniType": cni_type, key or cni_type: block})


def _links() -> Iterator[Row]:
    for cni_type in ("macvlan", "ipvlan", "vlan"):
        one: Json = {"master": ["eth0"]}
        two: Json = {"master": ["a", "b"]}
        yield Row(
            cni_type,
            _link(cni_type),
            [
                None, {}, {"master": []}, {"master": None}, {"master": "eth0"}, {"master": [""]}, {"master": ["a" * 16]},
                {"master": ["a/b"]}, {"master": ["a b"]}, {**one, "vlanID": -1}, {**one, "vlanID": 4095}, {**one, "vlanID": "5"},
                {**one, "vlanID": 1.5}, {**one, "mtu": -1}, {**one, "mtu": 1 << 31}, two, {**two, "bond": {"mode": 1}},
                {**two, "bond": {"name": "", "mode": 1}}, {**two, "bond": {"name": "b"}}, {**two, "bond": {"name": "b", "mode": 7}},
                {**two, "bond": {"name": "b", "mode": -1}}, {**two, "bond": {"name": "b", "mode": "1"}},
                {**one, "ippools": {"matchMasterSubnet": True}}, {**one, "ippools": {"ipv4": "x"}}, {**one, "ippools": {"ipv4": [5]}},
            ],
            [
                one, {"master": ["a" * 15]}, {**one, "vlanID": 0}, {**one, "vlanID": 4094}, {**one, "vlanID": None}, {**one, "mtu": 0},
                {**one, "mtu": (1 << 31) - 1}, {**two, "bond": {"name": "b", "mode": 0}},
                {**two, "bond": {"name": "b", "mode": 6, "options": ""}}, {**one, "bond": {"name": "b", "mode": 6}},
                {**one, "ippools": {}}, {**one, "ippools": {"ipv4": []}}, {**one, "ippools": {"ipv4": ["x-*", "y?", "[a-c]z"]}},
                {**one, "rdmaResourceName": ""},
            ],
        )  # fmt: skip
        yield Row(
            f"{cni_type} beside another block",
            lambda more, t=cni_type: _object(
                "SpiderMultusConfig", {"cniType": t, t: {"master": ["eth0"]}, **more}
            ),
            [
                {"sriov": {"resourceName": "r"}},
                {"customCNI": "{}"},
                {"customCNI": ""},
                {"ovs": {"bridge": "b"}},
            ],
            [{}, {"sriov": None}, {"customCNI": None}],
        )
    yield Row(
        "vlanMode",
        lambda more: _link("vlan")({"master": ["eth0"], **more}),
        [
            {"vlanMode": "auto", "vlanID": 5},
            {"vlanMode": "auto", "vlanID": 0},
            {"vlanMode": "Auto"},
            {"vlanMode": ""},
        ],
        [
            {"vlanMode": "auto"},
            {"vlanMode": "manual", "vlanID": 0},
            {"vlanMode": "manual"},
            {"vlanMode": None},
        ],
    )
    vf: Json = {"resourceName": "r"}
    yield Row(
        "sriov",
        _link("sriov"),
        [
            {}, {"resourceName": ""}, {**vf, "vlanID": -1}, {**vf, "vlanID": 4095}, {**vf, "mtu": -1}, {**vf, "minTxRateMbps": -1},
            {**vf, "maxTxRateMbps": -1}, {**vf, "minTxRateMbps": 10, "maxTxRateMbps": 9}, {**vf, "maxTxRateMbps": 1 << 31},
        ],
        [
            vf, {**vf, "vlanID": 0}, {**vf, "vlanID": 4094}, {**vf, "minTxRateMbps": 9, "maxTxRateMbps": 9},
            {**vf, "ippools": {"matchMasterSubnet": True}}, {**vf, "rdmaIsolation": True},
        ],
    )  # fmt: skip
    yield Row(
        "ib-sriov",
        _link("ib-sriov", "ibsriov"),
        [{}, {"resourceName": ""}, {**vf, "linkState": "up"}, {**vf, "linkState": ""}],
        [
            vf, {**vf, "linkState": "auto"}, {**vf, "linkState": "disable"}, {**vf, "pkey": ""}, {**vf, "pkey": "0x7fff"},
            {**vf, "ippools": {"matchMasterSubnet": True}},
        ],
    )  # fmt: skip
    yield Row("ib-sriov under another key", _link("ib-sriov", "sriov"), [vf], [])
    yield Row(
        "ipoib",
        _link("ipoib"),
        [{}, {"master": ""}, {"master": ["ib0"]}],
        [{"master": "ib0"}, {"master": "ib0", "ippools": {"matchMasterSubnet": True}}],
    )
    bridge: Json = {"bridge": "br1"}
    yield Row(
        "ovs",
        _link("ovs"),
        [
            {}, {"bridge": ""}, {**bridge, "vlan": -1}, {**bridge, "vlan": 4095}, {**bridge, "trunk": [{"minID": 1, "maxID": 4095}]},
            {**bridge, "trunk": [{"minID": 5, "maxID": 4}]}, {**bridge, "trunk": [{"maxID": 4}]}, {**bridge, "trunk": [{"id": 4095}]},
            {**bridge, "trunk": [{"id": -1}]},
        ],
        [
            bridge, {**bridge, "vlan": 0}, {**bridge, "vlan": 4094}, {**bridge, "trunk": []}, {**bridge, "deviceID": "0000:01:00.0"},
            {**bridge, "trunk": [{"minID": 0, "maxID": 4094}]}, {**bridge, "trunk": [{"minID": 5, "maxID": 5}]},
            {**bridge, "trunk": [{"id": 0}, {"id": 4094}]},
        ],
    )  # fmt: skip
    yield Row(
        "customCNI",
        _link("custom", "customCNI"),
        ["{", "x", "{}}", "[", "{'a':1}", 5],
        ["", None, "{}", '"text"', '{"type":"a"}', "[]"],
    )
    yield Row(
        "cniType",
        lambda value: _object("SpiderMultusConfig", {"cniType": value}),
        ["foo", "", "Custom", 5, "macvlan"],
        [None, "custom"],
    )
    yield Row(
        "chainCNIJsonData",
        lambda value: _object(
            "SpiderMultusConfig",
            {"cniType": "macvlan", "macvlan": {"master": ["eth0"]}, "chainCNIJsonData": value},
        ),
        [["{}"], ["[]"], ['{"type":""}'], ['{"type":5}'], ["x"], [""], ['[{"type":"a"}]'], ['"a"'], [5], "x"],
        [[], None, ['{"type":"tuning"}', '{"type":"sbr"}']],
    )


def _annotated(key: str, spec: Json) -> Callable[[Any], Json]:
    return lambda value: _object("SpiderMultusConfig", spec, annotations={key: value})


def _marks() -> Iterator[Row]:
    custom: Json = {"cniType": "custom"}
    yield Row(
        CR_NAME,
        _annotated(CR_NAME, custom),
        ["", " ", "A", "a" * 254, "ä", "a..b", "-a", "a_b", "a/b"],
        ["a", "a" * 253, "a.b", "0"],
    )
    yield Row(
        CNI_VERSION,
        _annotated(CNI_VERSION, custom),
        ["", "1.0", "1.1.0", "0.2.0", "v1.0.0"],
        ["0.3.0", "0.3.1", "0.4.0", "1.0.0"],
    )
    pools: Json = {"ippools": {"ipv4": ["p"]}}
    shared: Json = {"master": ["eth0"], "rdmaResourceName": "r/x"}
    for key in (RDMA, NETWORK):
        whole: Json = {"cniType": "macvlan", "macvlan": {**shared, **pools}}
        yield Row(f"{key} value", _annotated(key, whole), ["a b", "a" * 64, "ä"], ["", "a" * 63, "a.b_c"])
        yield Row(
            f"{key} members",
            lambda spec, k=key: _object("SpiderMultusConfig", spec, annotations={k: "g"}),
            [
                custom, {"cniType": "ovs", "ovs": {"bridge": "b", **pools}}, {"cniType": "macvlan", "macvlan": shared},
                {"cniType": "sriov", "sriov": {"resourceName": "r"}}, {"cniType": "ipoib", "ipoib": {"master": "ib0"}},
            ],
            [
                whole, {"cniType": "sriov", "sriov": {"resourceName": "r", **pools}},
                {"cniType": "ipoib", "ipoib": {"master": "ib0", **pools}},
            ],
        )  # fmt: skip
    bare: Json = {"cniType": "macvlan", "macvlan": {"master": ["eth0"]}}
    yield Row(f"{RDMA} without resource", _annotated(RDMA, bare), ["g"], [])
    yield Row(f"{NETWORK} without resource", _annotated(NETWORK, bare), [], ["g"])


_COORDINATOR_REFUSED: list[Json] = [
    {"mode": "disable"}, {"mode": ""}, {"mode": "Auto"}, {"podCIDRType": "foo"}, {"podCIDRType": ""}, {"hijackCIDR": ["10.0.0.1/33"]},
    {"hijackCIDR": ["abc"]}, {"hijackCIDR": [""]}, {"hijackCIDR": "10.0.0.0/8"}, {"policyRoutes": [{"dst": "10.0.0.0/8", "gw": "fd00::1"}]},
    {"policyRoutes": [{"dst": "10.0.0.0/8"}]}, {"policyRoutes": [{"dst": "x", "gw": "10.0.0.1"}]},
    {"policyRoutes": [{"dst": "10.0.0.0/8", "gw": "10.0.0.1/24"}]}, {"podMACPrefix": "01:00"}, {"podMACPrefix": "FF:FF"},
    {"podMACPrefix": "0a1b"}, {"podMACPrefix": "0a:1b:2c"}, {"podMACPrefix": "0a:1"}, {"podMACPrefix": "zz:00"},
    {"podMACPrefix": " 0a:1b"}, {"podRPFilter": 3}, {"podRPFilter": 100}, {"txQueueLen": -1}, {"vethMTU": 0}, {"vethMTU": -1},
    {"vethLinkAddress": "169.254.1.1/16"}, {"vethLinkAddress": "x"}, {"vethLinkAddress": "169.254.1.256"}, {"tunePodRoutes": "true"},
    {"hostRuleTable": "500"}, {"podDefaultRouteNIC": "a b"},
]  # fmt: skip
_COORDINATOR_TAKEN: list[Json] = [
    *({"mode": mode} for mode in ("auto", "underlay", "overlay", "disabled")),
    *({"podCIDRType": kind} for kind in ("auto", "cluster", "calico", "cilium", "none")),
    {}, {"hijackCIDR": []}, {"hijackCIDR": ["10.0.0.1", "10.0.0.0/8", "fd00::1", "FD00::/8", "10.0.0.5/8"]}, {"policyRoutes": []},
    {"policyRoutes": [{"dst": "10.0.0.1", "gw": "10.0.0.1"}]}, {"policyRoutes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]},
    {"policyRoutes": [{"dst": "fd00::/64", "gw": "FD00::1"}]}, {"podMACPrefix": ""}, {"podMACPrefix": "0A:1B"},
    {"podMACPrefix": "0a-1b"}, {"podMACPrefix": "fe:ff"}, {"podMACPrefix": "00:00"}, {"podRPFilter": -1}, {"podRPFilter": -100},
    {"podRPFilter": 0}, {"podRPFilter": 2}, {"podRPFilter": None}, {"txQueueLen": 0}, {"txQueueLen": 100000}, {"vethMTU": 1},
    {"vethMTU": 9000}, {"vethLinkAddress": ""}, {"vethLinkAddress": "fe80::1"}, {"hostRuleTable": 0}, {"hostRuleTable": -1},
    {"podDefaultRouteNIC": "net1"}, {"tunePodRoutes": False}, {"detectGateway": True, "hostRPFilter": 1},
]  # fmt: skip


def _coordinators() -> Iterator[Row]:
    yield Row(
        "SpiderCoordinator",
        lambda more: _object("SpiderCoordinator", {"podCIDRType": "none", **more}),
        [*_COORDINATOR_REFUSED, {"podCIDRType": None}],
        _COORDINATOR_TAKEN,
    )
    block: Json = {"cniType": "macvlan", "macvlan": {"master": ["eth0"]}}
    yield Row(
        "coordinator of a SpiderMultusConfig",
        lambda value: _object("SpiderMultusConfig", {**copy.deepcopy(block), "coordinator": value}),
        [*_COORDINATOR_REFUSED, [], "x"],
        [*_COORDINATOR_TAKEN, None],
    )


ROWS: list[Row] = [
    *_pools(),
    *_reservations(),
    Row("SpiderEndpoint", _endpoint, [{}, {"interface": "eth0", "vlan": -1}, {"interface": "eth0", "vlan": 4095}],
        [{"interface": "eth0"}, {"interface": "eth0", "vlan": 0}, {"interface": "eth0", "vlan": 4094}]),
    *_links(),
    *_marks(),
    *_coordinators(),
]  # fmt: skip
