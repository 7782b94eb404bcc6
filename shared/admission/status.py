"""The maps inside the status of pool and subnet, which are JSON text in one field.

Owns their reading; a text that cannot be read is an empty map, since only the system writes it. Must not know the rules.
"""

from __future__ import annotations

import msgspec

from shared.admission.addressing import family_of
from shared.manifests.ipam import SpiderIPPool, SpiderSubnet
from shared.net.ranges import IntervalSet


class _Controlled(msgspec.Struct, frozen=True):
    ips: tuple[str, ...] = ()


def controlled(subnet: SpiderSubnet) -> dict[str, IntervalSet]:
    """`status.controlledIPPools` as sets; empty where the text cannot be read."""
    if not subnet.status.controlled_ip_pools:
        return {}
    try:
        found = msgspec.json.decode(subnet.status.controlled_ip_pools, type=dict[str, _Controlled])
        return {name: IntervalSet.parse(one.ips, family_of(subnet.spec)) for name, one in found.items()}
    except (msgspec.MsgspecError, ValueError):
        return {}


class _Record(msgspec.Struct, frozen=True):
    pod: str = ""


def recorded(pool: SpiderIPPool) -> dict[str, str]:
    """`status.allocatedIPs` as address → `ns/name`; empty where the text cannot be read."""
    if not pool.status.allocated_ips:
        return {}
    try:
        found = msgspec.json.decode(pool.status.allocated_ips, type=dict[str, _Record])
    except msgspec.MsgspecError:
        return {}
    return {address: one.pod for address, one in found.items()}
