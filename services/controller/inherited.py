"""What Spiderpool left: its records of who has which address, read from the status of pools and from SpiderEndpoints.

Owns the reading. Must not know what becomes of a record: the allocator decides. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from shared.contracts.adopt import RECORDS_PER_PART_MAX, AdoptedAddress
from shared.manifests.ipam import SpiderEndpoint, SpiderIPPool
from shared.net.ranges import parse_address


def of_endpoint(raw: bytes) -> list[AdoptedAddress]:
    """The addresses of a SpiderEndpoint; none of one that cannot be read."""
    try:
        endpoint = msgspec.json.decode(raw, type=SpiderEndpoint)
    except msgspec.MsgspecError:
        return []
    current = endpoint.status.current
    out: list[AdoptedAddress] = []
    for detail in current.ips:
        for address, pool in ((detail.ipv4, detail.ipv4_pool), (detail.ipv6, detail.ipv6_pool)):
            if address and _is_address(address.partition("/")[0]):
                out.append(
                    AdoptedAddress(
                        address=address,
                        pod_namespace=endpoint.metadata.namespace,
                        pod_name=endpoint.metadata.name,
                        pod_uid=current.uid,
                        pool=pool or "",
                        node=current.node,
                        ifname=detail.interface,
                        clean_gateway=bool(detail.clean_gateway),
                    )
                )
    return out


def of_pool(raw: bytes) -> list[AdoptedAddress]:
    """The addresses of a pool's `status.allocatedIPs`; what is no record is left out."""
    try:
        pool = msgspec.json.decode(raw, type=SpiderIPPool)
        records: object = msgspec.json.decode(pool.status.allocated_ips or "{}")
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return []
    out: list[AdoptedAddress] = []
    for address, record in cast("dict[str, Any]", records if isinstance(records, dict) else {}).items():
        if not isinstance(record, dict) or not _is_address(address):
            continue
        members = cast("dict[str, object]", record)
        namespace, _, name = str(members.get("pod", "")).partition("/")
        if namespace and name:
            out.append(
                AdoptedAddress(
                    address=address,
                    pod_namespace=namespace,
                    pod_name=name,
                    pod_uid=str(members.get("podUid", "")),
                    pool=pool.metadata.name,
                )
            )
    return out


def parts(records: Iterable[AdoptedAddress]) -> Iterable[tuple[AdoptedAddress, ...]]:
    """In the order given, as many at a time as one message takes."""
    part: list[AdoptedAddress] = []
    for record in records:
        part.append(record)
        if len(part) == RECORDS_PER_PART_MAX:
            yield tuple(part)
            part.clear()
    if part:
        yield tuple(part)


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True
