"""What `ip` shows of a pod, reduced to what tests compare. Must not know the product."""

from __future__ import annotations

from tests.support.lab import Lab


def links(lab: Lab, pod: str) -> set[str]:
    return {link["ifname"] for link in lab.ip(pod, "link")}


def addresses(lab: Lab, pod: str, ifname: str) -> set[str]:
    """Global ones, with their prefix length."""
    (shown,) = lab.ip(pod, "address", "show", "dev", ifname)
    return {
        f"{entry['local']}/{entry['prefixlen']}" for entry in shown["addr_info"] if entry["scope"] == "global"
    }


def flags(lab: Lab, pod: str, ifname: str) -> set[str]:
    """Flags of global addresses: tentative, dadfailed, dynamic."""
    (shown,) = lab.ip(pod, "address", "show", "dev", ifname)
    watched = ("tentative", "dadfailed", "dynamic", "optimistic")
    return {
        flag
        for entry in shown["addr_info"]
        if entry["scope"] == "global"
        for flag in watched
        if entry.get(flag)
    }


def routes(lab: Lab, pod: str) -> set[tuple[str, str, str]]:
    """`(destination, gateway or "", device)` of both families' main tables, without link-local ones."""
    return {
        (route["dst"], route.get("gateway", ""), route["dev"])
        for family in ("-4", "-6")
        for route in lab.ip(pod, family, "route") or []
        if not route["dst"].startswith("fe80:")
    }
