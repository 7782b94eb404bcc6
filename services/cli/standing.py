"""What an address is to the objects in force when nobody holds it: free, reserved, excluded, a gateway, or nothing. Pure.

Owns the words of `orbweaver who`. Must not know who holds what.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from services.cli.status import total_ips
from shared.net.ranges import IntervalSet, parse_address, parse_cidr

Json = dict[str, Any]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """`word`: free, disabled, gateway, reserved, excluded, outside (in a pool's subnet, in no range of it). `by` is the object."""

    word: str
    by: str
    sentence: str


def standings(address: str, pools: Iterable[Json], reserved: Iterable[Json]) -> list[Standing]:
    """All that the objects say about `address`, reservations first; empty if none speaks of it. Raises ValueError on no address."""
    family, value = parse_address(address)
    found: list[Standing] = []
    for raw in reserved:
        spec, name = _spec(raw), _name(raw)
        if spec.get("ipVersion") == family and value in IntervalSet.parse(spec.get("ips") or (), family):
            by = f"SpiderReservedIP/{name}"
            found.append(Standing(word="reserved", by=by, sentence=f"reserved by SpiderReservedIP {name}"))
    is_reserved = bool(found)
    for raw in pools:
        spec, name = _spec(raw), _name(raw)
        network = parse_cidr(str(spec.get("subnet", "")))
        if network.family != family or value not in network:
            continue
        by = f"SpiderIPPool/{name}"
        if spec.get("gateway") and parse_address(str(spec["gateway"])) == (family, value):
            found.append(
                Standing(word="gateway", by=by, sentence=f"the gateway of pool {name}, never given to a pod")
            )
        elif value in IntervalSet.parse(spec.get("excludeIPs") or (), family):
            found.append(Standing(word="excluded", by=by, sentence=f"excluded from pool {name} (excludeIPs)"))
        elif value not in total_ips(spec):
            sentence = f"in the subnet {network} of pool {name}, but in none of its ranges"
            found.append(Standing(word="outside", by=by, sentence=sentence))
        elif spec.get("disable"):
            found.append(Standing(word="disabled", by=by, sentence=f"in pool {name}, which is disabled"))
        elif not is_reserved:
            found.append(Standing(word="free", by=by, sentence=f"free in pool {name}"))
    return found


def _spec(raw: Json) -> Json:
    return cast("Json", raw.get("spec") or {})


def _name(raw: Json) -> str:
    return str(cast("Json", raw.get("metadata") or {}).get("name", ""))
