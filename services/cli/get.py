"""`orbweaver get`: what is asked for, and by whom it is found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from cyclopts import Parameter

from services.cli.attachment import attachments, events, leases
from services.cli.failure import UsageError
from services.cli.found import Filter, Found, show
from services.cli.objects import objects
from services.cli.option import DEFAULT_STATE, AllNamespaces, Namespace, OutputOption, State
from services.cli.system import System, ask
from services.cli.trace import show_traces

Find = Callable[[System, Filter, bool], Awaitable[Found]]
OURS: dict[str, Find] = {
    "leases": leases,
    "lease": leases,
    "attachments": attachments,
    "attachment": attachments,
    "events": events,
    "event": events,
    "ev": events,
}


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
        return show_traces(state, wanted, form)
    find = OURS.get(kind.lower())
    if find is None and (pod or node or pool):
        raise UsageError("--pod, --node and --pool choose among leases, attachments and events only")
    wide = form == "wide"
    nothing = _nothing(kind, wanted)
    if find is None:
        found = ask(state, lambda system: objects(system, kind, wanted, wide))
        return show(found, form, single=bool(name), nothing=nothing)

    async def run(system: System) -> Found:
        return await find(system, wanted, wide)

    return show(ask(state, run), form, single=False, nothing=nothing)


def _nothing(kind: str, wanted: Filter) -> str:
    place = f" in namespace {wanted.namespace}" if wanted.namespace else ""
    if wanted.name:
        return f"there is no {kind} {wanted.name}{place}"
    return f"no {kind}{place}"
