"""Our own records: `orbweaver get leases`, `get attachments` and `get events`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from services.cli import columns, event, question
from services.cli.failure import UsageError
from services.cli.found import Filter, Found
from services.cli.system import System
from shared.contracts.query import AttachmentView, LeaseView, QueryLeases
from shared.net.ranges import format_address, parse_address

Json = dict[str, Any]


async def leases(system: System, wanted: Filter, wide: bool) -> Found:
    query = QueryLeases(
        address=_canonical(wanted.name) if wanted.name else "",
        pool=wanted.pool,
        pod_namespace=wanted.pod_namespace,
        pod_name=wanted.pod_name,
        node=wanted.node,
    )
    found = await question.leases(system, query)
    return Found(
        items=[lease_item(lease) for lease in found],
        header=[
            "ADDRESS",
            "POOL",
            "POD",
            "INTERFACE",
            "NODE",
            "STATE",
            "GENERATION",
            *(["UID", "CONTAINER"] if wide else []),
        ],
        rows=[
            [
                lease.address,
                lease.pool,
                _pod(lease),
                lease.interface,
                lease.node,
                lease.state,
                lease.generation,
                *([lease.pod_uid, lease.container_id] if wide else []),
            ]
            for lease in found
        ],
        names=[f"lease/{lease.address}" for lease in found],
    )


def lease_item(lease: LeaseView) -> Json:
    """One item of `get leases`: these members and no others."""
    return {
        "address": lease.address,
        "pool": lease.pool,
        "interface": lease.interface,
        "podNamespace": lease.pod_namespace,
        "podName": lease.pod_name,
        "podUID": lease.pod_uid,
        "containerID": lease.container_id,
        "node": lease.node,
        "generation": lease.generation,
        "state": lease.state,
    }


async def attachments(system: System, wanted: Filter, wide: bool) -> Found:
    await system.meet_nodes()
    by_node = await question.attachments(system, wanted.node)
    found = [one for answer in by_node.values() if isinstance(answer, tuple) for one in answer]
    found = [
        one
        for one in found
        if wanted.pod_namespace in ("", one.pod_namespace)
        and wanted.pod_name in ("", one.pod_name)
        and (one.container_id.startswith(wanted.name) or one.pod_name == wanted.name)
    ]
    silent = sorted(name for name, answer in by_node.items() if not isinstance(answer, tuple))
    return Found(
        items=[msgspec.to_builtins(one) for one in found],
        header=[
            "POD",
            "INTERFACE",
            "NODE",
            "STATE",
            "ADDRESSES",
            "PARENT",
            *(["MAC", "CONTAINER", "TRACE"] if wide else []),
        ],
        rows=[
            [
                _pod(one),
                one.interface,
                one.node,
                one.state,
                list(one.addresses),
                one.parent,
                *([one.mac, one.container_id, one.trace_id] if wide else []),
            ]
            for one in found
        ],
        names=[f"attachment/{one.container_id}/{one.interface}" for one in found],
        complaint=f"the agent of {', '.join(silent)} does not answer: its attachments are not shown"
        if silent
        else "",
    )


async def events(system: System, wanted: Filter, wide: bool) -> Found:
    items = [event.event(seq, happened) for seq, happened in await question.events(system, wanted.node)]
    items = [
        item
        for item in items
        if wanted.pod_namespace in ("", item["involvedObject"].get("namespace", ""))
        and wanted.pod_name in ("", item["involvedObject"]["name"])
        and wanted.name in ("", item["metadata"]["name"], item["involvedObject"]["name"])
    ]
    now = datetime.now(UTC)
    return Found(
        items=items,
        header=["AGE", "TYPE", "REASON", "OBJECT", "NODE", "MESSAGE", *(["TRACE"] if wide else [])],
        rows=[
            [
                columns.age(item["time"], now),
                item["type"],
                item["reason"],
                _involved(item),
                item["node"],
                item["message"],
                *([item.get("traceID", "")] if wide else []),
            ]
            for item in items
        ],
        names=[f"event/{item['metadata']['name']}" for item in items],
        prose=not wide,
    )


def _pod(one: LeaseView | AttachmentView) -> str:
    return f"{one.pod_namespace}/{one.pod_name}" if one.pod_name else f"container {one.container_id[:12]}"


def _involved(item: Json) -> str:
    involved = item["involvedObject"]
    if not involved["name"]:
        return f"container {item.get('containerID', '')[:12]}"
    parts = (involved["kind"].lower(), involved.get("namespace", ""), involved["name"])
    return "/".join(part for part in parts if part)


def _canonical(address: str) -> str:
    try:
        family, value = parse_address(address)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return format_address(value, family)
