"""Kubernetes objects in force, with the status that leases give them: `orbweaver get sp`, `get pods` and the like."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from services.cli import columns, question, status
from services.cli.failure import CommandError
from services.cli.found import Filter, Found
from services.cli.system import System
from shared.contracts.query import LeaseView, QueryLeases
from shared.manifests.kinds import KINDS, Kind, lookup

Json = dict[str, Any]


async def objects(system: System, name: str, wanted: Filter, wide: bool) -> Found:
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
            composed = await _endpoints(system, await question.leases(system, query))
            known = {_key(raw) for raw in composed}
            written = [
                f.object for f in await question.facts(system, row.kind, wanted.namespace, wanted.name)
            ]
            # One that a user keeps in the folder is shown until leases tell of that pod.
            return sorted([*composed, *(raw for raw in written if _key(raw) not in known)], key=_key)
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


def _key(raw: Json) -> tuple[str, str]:
    return raw["metadata"].get("namespace", ""), raw["metadata"]["name"]
