"""Objects that look like ours: valid pools, and anything that could stand where a pool should."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from shared.net.ranges import format_address

Json = dict[str, Any]
V2BETA1 = "spiderpool.spidernet.io/v2beta1"
OURS = (
    "SpiderIPPool",
    "SpiderSubnet",
    "SpiderReservedIP",
    "SpiderEndpoint",
    "SpiderMultusConfig",
    "SpiderCoordinator",
)

WORDS = st.sampled_from(
    [
        "", "a", "eth0", "10.6.0.1", "10.6.0.9-10.6.0.1", "10.6.0.1-10.6.0.9", "fd00::1", "10.6.0.0/16", "0.0.0.0/0", "::/0",
        "macvlan", "custom", "vlan", "auto", "manual", "ib-sriov", "ovs", "sriov", "{", "{}", '{"type":"x"}', "*", "a[]b", "spiderpool.spidernet.io",
    ]
)  # fmt: skip
KEYS = st.sampled_from(
    [
        "ips", "excludeIPs", "subnet", "ipVersion", "gateway", "routes", "dst", "gw", "podAffinity", "matchLabels", "matchExpressions",
        "key", "operator", "values", "namespaceName", "cniType", "macvlan", "vlan", "sriov", "ovs", "ibsriov", "ipoib", "master", "vlanID",
        "mtu", "bond", "name", "mode", "ippools", "ipv4", "ipv6", "coordinator", "hijackCIDR", "policyRoutes", "podMACPrefix",
        "podRPFilter", "chainCNIJsonData", "customCNI", "labels", "annotations", "finalizers", "ownerReferences", "controller", "kind",
        "deletionTimestamp", "multus.spidernet.io/cr-name", "cni.spidernet.io/rdma-resource-inject", "ipam.spidernet.io/ippool",
        "allocatedIPs", "controlledIPPools", "trunk", "minID", "conf.yml", "template", "spec", "metadata", "weird key",
    ]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 5000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS
    | st.text(max_size=8),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(KEYS, below, max_size=5),
    max_leaves=25,
)
KINDS = st.sampled_from(
    [*((V2BETA1, kind) for kind in OURS), ("v1", "Pod"), ("v1", "Namespace"), ("v1", "ConfigMap")]
)


@st.composite
def anything(draw: st.DrawFn) -> Json:
    """An object of one of our kinds whose content is arbitrary."""
    api_version, kind = draw(KINDS)
    out: Json = {"apiVersion": api_version, "kind": kind}
    for key in ("metadata", "spec", "status", "data"):
        if draw(st.booleans()):
            out[key] = draw(VALUES)
    if draw(st.booleans()):
        meta = out.get("metadata")
        out["metadata"] = {
            **(meta if isinstance(meta, dict) else {}),
            "name": draw(st.sampled_from(["a", "b", "spiderpool-conf"])),
        }
    return out


@st.composite
def valid_pool(draw: st.DrawFn, name: str = "a") -> Json:
    """A pool that must be accepted in an empty cluster."""
    family = draw(st.sampled_from([4, 6]))
    width = 32 if family == 4 else 128
    host_bits = draw(st.integers(2, 20 if family == 4 else 100))
    base = draw(st.integers(1, (1 << (width - host_bits)) - 1)) << host_bits
    size = 1 << host_bits
    gateway = draw(st.none() | st.integers(0, size - 1))

    def ranges(count: int) -> list[str]:
        found: list[str] = []
        for _ in range(draw(st.integers(0, count))):
            first = draw(st.integers(0, size - 1))
            last = draw(st.integers(first, size - 1))
            text = format_address(base + first, family)
            found.append(text if draw(st.booleans()) else f"{text}-{format_address(base + last, family)}")
        return found

    spec: Json = {
        "subnet": f"{format_address(base, family)}/{width - host_bits}",
        "ips": ranges(4),
        "excludeIPs": ranges(3),
    }
    if gateway is not None:
        text = format_address(base + gateway, family)
        spec["gateway"] = text
        spec["excludeIPs"].append(text)
    if draw(st.booleans()):
        spec["ipVersion"] = family
    for key in ("namespaceName", "nodeName", "multusName"):
        if draw(st.booleans()):
            spec[key] = draw(st.lists(st.sampled_from(["x", "y", "x/y"]), max_size=2))
    return {"apiVersion": V2BETA1, "kind": "SpiderIPPool", "metadata": {"name": name}, "spec": spec}
