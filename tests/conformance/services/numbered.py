"""Pools that are told by a number in their subnet, so that an address tells its pool; and a further network, attached in two ways.

Owns the numbering. Must not know any case.
"""

from __future__ import annotations

from typing import Any

from tests.conformance.objects import Json, native, pool
from tests.conformance.world import Running

EXTRA = "kube-system/extra"
BY_NAME = {"cniVersion": "1.0.0", "name": "extra", "type": "orbweaver", "network": EXTRA}
ALONE = native(multiNetwork="")
EACH = {"eth0": ALONE, "net1": BY_NAME}
"""One ADD for each interface, as Multus calls."""


def net(number: int, name: str = "", **spec: Any) -> Json:
    """IPv4 pool `p<number>` of 172.20.<number>.0/24 with ten addresses unless `spec` says otherwise."""
    whole = {"ips": [f"172.20.{number}.10-172.20.{number}.19"]} | spec
    return pool(name or f"p{number}", f"172.20.{number}.0/24", **whole)


def net6(number: int, name: str = "", **spec: Any) -> Json:
    """IPv6 pool `q<number>` of fd00:20:<number>::/64 with ten addresses."""
    whole = {"ips": [f"fd00:20:{number}::10-fd00:20:{number}::19"]} | spec
    return pool(name or f"q{number}", f"fd00:20:{number}::/64", **whole)


def of(address: str) -> int:
    """The number of the pool that an address is of."""
    return int(address.split(":" if ":" in address else ".")[2])


def drawn(running: Running) -> dict[str, list[int]]:
    """The numbers of the pools of each interface's addresses, IPv4 first."""
    return {
        name: [of(one) for one in sorted(found, key=lambda one: ":" in one)]
        for name, found in running.addresses.items()
    }


def item(ifname: str, number: int, **more: object) -> Json:
    """One of `ippools`, without name where `ifname` is empty."""
    return ({"interface": ifname} if ifname else {}) | {"ipv4": [f"p{number}"]} | more
