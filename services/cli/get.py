"""`orbweaver get`: objects in Kubernetes form, and our own leases, attachments, events and traces.

Owns the choice and the filters. Must not know how anything is asked or drawn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from services.cli import columns, event, output, question, status
from services.cli.failure import CommandError, UsageError
from services.cli.option import DEFAULT_STATE, AllNamespaces, Namespace, Output, OutputOption, State
from services.cli.system import System, ask
from shared.contracts.query import AttachmentView, LeaseView, QueryLeases
from shared.contracts.span import SpanRecord
from shared.manifests.kinds import KINDS, Kind, lookup
from shared.net.ranges import format_address, parse_address
from shared.telemetry.waterfall import summaries, traces, waterfall

Json = dict[str, Any]
TRACE_PATIENCE_S = 2.0
"""Spans are published every 200 ms: who asks right after an attach waits a moment for them."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Empty members fit everything."""

    name: str = ""
    namespace: str = ""
    pod: str = ""
    node: str = ""
    pool: str = ""

    @property
    def pod_namespace(self) -> str:
        return self.pod.partition("/")[0] or self.namespace

    @property
    def pod_name(self) -> str:
        return self.pod.partition("/")[2]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """`items` for programs, each with its row for people; `complaint` says what could not be asked."""

    items: list[Json]
    header: list[str]
    rows: list[list[object]]
    names: list[str]
    prose: bool = False
    complaint: str = ""


def get(
    kind: Annotated[
        str, Parameter(help="Kind, plural or short name; or leases, attachments, events, traces.")
    ],
    name: Annotated[str, Parameter(help="One object's name; a trace's id.")] = "",
    /,
    *,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    form: OutputOption = "table",
    pod: Annotated[
        str, Parameter(help="leases, attachments, events: of this pod only, NAMESPACE/NAME.")
    ] = "",
    node: Annotated[str, Parameter(help="leases, attachments, events: of this node only.")] = "",
    pool: Annotated[str, Parameter(help="leases: of this pool only.")] = "",
    state: State = DEFAULT_STATE,
) -> int:
    if pod and "/" not in pod:
        raise UsageError(f"--pod {pod} is not NAMESPACE/NAME")
    wanted = Filter(name=name, namespace="" if all_namespaces else namespace, pod=pod, node=node, pool=pool)
    if kind.lower() in ("traces", "trace"):
        return _traces(state, wanted, form)
    ours: dict[str, Callable[[System, Filter, bool], Any]] = {
        "leases": _leases,
        "lease": _leases,
        "attachments": _attachments,
        "attachment": _attachments,
        "events": _events,
        "event": _events,
        "ev": _events,
    }
    find = ours.get(kind.lower())
    if find is None and (pod or node or pool):
        raise UsageError("--pod, --node and --pool choose among leases, attachments and events only")
    wide = form == "wide"
    if find is None:
        found = ask(state, lambda system: _objects(system, kind, wanted, wide))
        return _show(found, form, single=bool(name), nothing=_nothing(kind, wanted))
    found = ask(state, lambda system: find(system, wanted, wide))
    return _show(found, form, single=False, nothing=_nothing(kind, wanted))


def _nothing(kind: str, wanted: Filter) -> str:
    place = f" in namespace {wanted.namespace}" if wanted.namespace else ""
    if wanted.name:
        return f"there is no {kind} {wanted.name}{place}"
    return f"no {kind}{place}"


def _show(found: Found, form: Output, *, single: bool, nothing: str) -> int:
    if found.complaint:
        output.complain(found.complaint)
    if single and not found.items:
        output.complain(nothing)
        return 1
    match form:
        case "json" | "yaml":
            items = found.items
            several: Json = {
                "apiVersion": "v1",
                "kind": "List",
                "metadata": {"resourceVersion": ""},
                "items": items,
            }
            output.document(items[0] if single and len(items) == 1 else several, form)
        case "name":
            for name in found.names:
                output.say(name)
        case "table" | "wide":
            if found.items:
                output.table(found.header, found.rows, prose=found.prose)
            else:
                output.complain(nothing)
    return 1 if found.complaint else 0


async def _objects(system: System, name: str, wanted: Filter, wide: bool) -> Found:
    row = lookup(name) or await _unknown_kind(system, name)
    if wanted.namespace and not row.namespaced:
        wanted = msgspec.structs.replace(wanted, namespace="")
    raws = await _raw(system, row, wanted)
    raws = [raw for raw in raws if not wanted.name or raw["metadata"]["name"] == wanted.name]
    now = datetime.now(UTC)
    group = f".{row.group}" if row.group else ""
    return Found(
        items=raws,
        header=columns.header(row.kind, row.namespaced, wide),
        rows=[columns.row(row.kind, raw, row.namespaced, wide, now) for raw in raws],
        names=[f"{row.singular}{group}/{raw['metadata']['name']}" for raw in raws],
    )


async def _raw(system: System, row: Kind, wanted: Filter) -> list[Json]:
    """The objects of one kind as they are shown, status included."""
    match row.kind:
        case "SpiderIPPool":
            pools = [f.object for f in await question.facts(system, row.kind, name=wanted.name)]
            held = await question.leases(system, QueryLeases(pool=wanted.name))
            return [status.with_pool_status(pool, held) for pool in pools]
        case "SpiderSubnet":
            subnets = [f.object for f in await question.facts(system, row.kind, name=wanted.name)]
            pools = [f.object for f in await question.facts(system, "SpiderIPPool")] if subnets else []
            return [status.with_subnet_status(subnet, pools) for subnet in subnets]
        case "SpiderEndpoint":
            query = QueryLeases(pod_namespace=wanted.namespace, pod_name=wanted.name)
            return await _endpoints(system, await question.leases(system, query))
        case _:
            return [f.object for f in await question.facts(system, row.kind, wanted.namespace, wanted.name)]


async def _endpoints(system: System, held: list[LeaseView]) -> list[Json]:
    objects = await question.facts(system) if held else []
    return status.endpoints(
        held,
        {f.name: f.object for f in objects if f.kind == "SpiderIPPool"},
        {(f.namespace, f.name): f.object for f in objects if f.kind == "Pod"},
        {(f.kind, f.namespace, f.name): f.object for f in objects},
    )


async def _unknown_kind(system: System, name: str) -> Kind:
    """A kind that the spec does not name, found among the objects in force. Raises CommandError."""
    word = name.lower()
    for fact in await question.facts(system):
        singular = fact.kind.lower()
        if word in (singular, f"{singular}s", f"{singular}es", f"{singular[:-1]}ies"):
            return Kind(
                kind=fact.kind,
                api_version=fact.api_version,
                plural=f"{singular}s",
                namespaced=bool(fact.namespace),
            )
    known = ", ".join(k.short or k.plural for k in KINDS if k.ours)
    raise CommandError(
        f"nothing is called {name!r}: no object of such a kind is in force; ours are leases, attachments, events, traces, {known}"
    )


async def _leases(system: System, wanted: Filter, wide: bool) -> Found:
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


async def _attachments(system: System, wanted: Filter, wide: bool) -> Found:
    by_node = await question.attachments(system, wanted.node)
    if wanted.node and not by_node:
        raise CommandError(f"the system has no node {wanted.node!r}; `orbweaver status` lists them")
    found = [one for answer in by_node.values() if isinstance(answer, tuple) for one in answer]
    found = [
        one
        for one in found
        if wanted.pod_namespace in ("", one.pod_namespace)
        and wanted.pod_name in ("", one.pod_name)
        and one.container_id.startswith(wanted.name)
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


async def _events(system: System, wanted: Filter, wide: bool) -> Found:
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


def _traces(state: Path, wanted: Filter, form: Output) -> int:
    spans = ask(state, lambda system: _spans(system, wanted.name))
    if wanted.name:
        ids = [trace_id for trace_id in traces(spans) if trace_id.startswith(wanted.name.lower())]
        if len(ids) != 1:
            raise CommandError(
                f"no trace {wanted.name} of the last hour is kept"
                if not ids
                else f"{wanted.name} begins {len(ids)} trace ids"
            )
        one = traces(spans)[ids[0]]
        if form in ("json", "yaml"):
            output.document({"traceID": ids[0], "spans": one}, "yaml" if form == "yaml" else "json")
        else:
            for line in waterfall(one, min(output.columns(), 140)):
                output.say(line)
        return 0
    found = summaries(spans)
    now = datetime.now(UTC)
    return _show(
        Found(
            items=[
                {
                    "traceID": one.trace_id,
                    "root": one.root,
                    "services": one.services,
                    "spans": one.spans,
                    "start": event.timestamp(one.start_ns),
                    "durationMs": one.duration_ms,
                    "error": one.error,
                }
                for one in found
            ],
            header=["TRACE", "ROOT", "SERVICES", "SPANS", "AGE", "MS", "ERROR"],
            rows=[
                [
                    one.trace_id,
                    one.root,
                    one.services,
                    one.spans,
                    columns.age(event.timestamp(one.start_ns), now),
                    f"{one.duration_ms:.2f}",
                    one.error,
                ]
                for one in found
            ],
            names=[one.trace_id for one in found],
        ),
        form,
        single=False,
        nothing="no traces in the last hour",
    )


async def _spans(system: System, trace_id: str) -> list[SpanRecord]:
    deadline = time.monotonic() + TRACE_PATIENCE_S
    known = -1
    while True:
        spans = await question.spans(system)
        count = sum(span.trace_id.startswith(trace_id.lower()) for span in spans)
        # A trace is whole when nothing was added to it over more than one interval of publishing.
        if not trace_id or (count and count == known) or time.monotonic() > deadline:
            return spans
        known = count
        await asyncio.sleep(0.3)


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
