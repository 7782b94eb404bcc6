"""The columns of `orbweaver get KIND` for people: those that `kubectl get` prints for the same kinds. Pure.

Owns which member stands in which column. Must not know how a table is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

Json = dict[str, Any]
Value = Callable[[Json], object]


class Column(msgspec.Struct, frozen=True):
    """`wide` columns show with `-o wide` only."""

    header: str
    value: Value
    wide: bool = False


def at(path: str) -> Value:
    """The member at a dotted path; an all-digit step is an index; the last may be a key in brackets: `labels[a.b/c]`."""
    steps = _steps(path)

    def value(raw: Json) -> object:
        current: Any = raw
        for step in steps:
            current = _member(current, step)
        return current

    return value


def _member(current: Any, step: str) -> Any:
    if isinstance(current, dict):
        return cast("Json", current).get(step)
    if isinstance(current, list) and step.isdigit():
        return dict(enumerate(cast("list[Any]", current))).get(int(step))
    return None


def _steps(path: str) -> list[str]:
    before, _, rest = path.partition("[")
    key, _, _ = rest.partition("]")
    return [*before.split("."), *([key] if key else [])]


def _conditions_ready(raw: Json) -> str:
    conditions = cast("list[Json]", at("status.conditions")(raw) or [])
    ready = next((c.get("status") for c in conditions if c.get("type") == "Ready"), None)
    return {"True": "Ready", None: ""}.get(cast("str | None", ready), "NotReady")


def _pod_status(raw: Json) -> object:
    return "Terminating" if at("metadata.deletionTimestamp")(raw) else at("status.phase")(raw)


def _ready_of(raw: Json) -> str:
    wanted = at("spec.replicas")(raw)
    return f"{at('status.readyReplicas')(raw) or 0}/{1 if wanted is None else wanted}"


_POOL_COUNTS = (
    Column("VERSION", at("spec.ipVersion")),
    Column("SUBNET", at("spec.subnet")),
    Column("ALLOCATED-IP-COUNT", at("status.allocatedIPCount")),
    Column("TOTAL-IP-COUNT", at("status.totalIPCount")),
)
_FIRST = "status.current.ips.0"
_REPLICAS = (Column("READY", _ready_of),)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "SpiderIPPool": (
        *_POOL_COUNTS,
        Column("DEFAULT", at("spec.default")),
        Column("DISABLE", at("spec.disable"), wide=True),
        Column("NODENAME", at("spec.nodeName"), wide=True),
        Column("MULTUSNAME", at("spec.multusName"), wide=True),
        Column(
            "APP-NAMESPACE", at("spec.podAffinity.matchLabels[ipam.spidernet.io/app-namespace]"), wide=True
        ),
    ),
    "SpiderSubnet": _POOL_COUNTS,
    "SpiderReservedIP": (Column("VERSION", at("spec.ipVersion")), Column("IPS", at("spec.ips"), wide=True)),
    "SpiderEndpoint": (
        Column("INTERFACE", at(f"{_FIRST}.interface")),
        Column("IPV4POOL", at(f"{_FIRST}.ipv4Pool")),
        Column("IPV4", at(f"{_FIRST}.ipv4")),
        Column("IPV6POOL", at(f"{_FIRST}.ipv6Pool")),
        Column("IPV6", at(f"{_FIRST}.ipv6")),
        Column("NODE", at("status.current.node")),
    ),
    "SpiderMultusConfig": (Column("CNITYPE", at("spec.cniType"), wide=True),),
    "SpiderCoordinator": (
        Column("MODE", at("spec.mode"), wide=True),
        Column("PHASE", at("status.phase"), wide=True),
    ),
    "Pod": (
        Column("STATUS", _pod_status),
        Column("NODE", at("spec.nodeName")),
        Column("IP", at("status.podIP"), wide=True),
        Column("UID", at("metadata.uid"), wide=True),
    ),
    "Namespace": (Column("STATUS", at("status.phase")),),
    "Node": (Column("STATUS", _conditions_ready),),
    "Deployment": _REPLICAS,
    "ReplicaSet": _REPLICAS,
    "StatefulSet": _REPLICAS,
}


def header(kind: str, namespaced: bool, wide: bool) -> list[str]:
    """The header of a kind's table; a kind that is not in COLUMNS has name and age."""
    return [*(["NAMESPACE"] if namespaced else []), "NAME", *(c.header for c in _columns(kind, wide)), "AGE"]


def row(kind: str, raw: Json, namespaced: bool, wide: bool, now: datetime) -> list[object]:
    meta = cast("Json", raw.get("metadata") or {})
    cells: list[object] = [meta.get("namespace", "")] if namespaced else []
    cells.append(meta.get("name"))
    cells += [column.value(raw) for column in _columns(kind, wide)]
    return [*cells, age(str(meta.get("creationTimestamp") or ""), now)]


def age(timestamp: str, now: datetime) -> str:
    """How long ago an RFC 3339 time was, in one or two units as kubectl does; empty for one that is none."""
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return ""
    return duration((now - then.astimezone(UTC)).total_seconds())


def duration(seconds: float) -> str:
    """A time span in one or two units; a negative one is none."""
    whole = max(0, int(seconds))
    for limit_s, unit_s, unit, below_s, below in (
        (120, 1, "s", 0, ""),
        (600, 60, "m", 1, "s"),
        (3 * 3600, 60, "m", 0, ""),
        (8 * 3600, 3600, "h", 60, "m"),
        (48 * 3600, 3600, "h", 0, ""),
        (8 * 86400, 86400, "d", 3600, "h"),
    ):
        if whole < limit_s:
            rest = whole % unit_s // below_s if below_s else 0
            return f"{whole // unit_s}{unit}" + (f"{rest}{below}" if rest else "")
    return f"{whole // 86400}d"


def _columns(kind: str, wide: bool) -> Sequence[Column]:
    return [c for c in COLUMNS.get(kind, ()) if wide or not c.wide]
