"""`orbweaver get`: what is asked for, and by whom it is found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from cyclopts import Parameter

from services.cli import question
from services.cli.attachment import attachments, events, leases
from services.cli.failure import CommandError, UsageError
from services.cli.found import Filter, Found, Group, show
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
TRACES = ("traces", "trace")


def get(
    kind: Annotated[
        str,
        Parameter(
            help="Kind, plural or short name; or leases, attachments, events, traces. Several with commas; or KIND/NAME."
        ),
    ],
    /,
    *names: Annotated[str, Parameter(help="Objects' names; a trace's id.")],
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    form: OutputOption = "table",
    pod: Annotated[
        str, Parameter(help="leases, attachments, events, traces: of this pod only, NAMESPACE/NAME.")
    ] = "",
    node: Annotated[str, Parameter(help="leases, attachments, events, traces: of this node only.")] = "",
    pool: Annotated[str, Parameter(help="leases: of this pool only.")] = "",
    state: State = DEFAULT_STATE,
) -> int:
    namespace = "" if all_namespaces else namespace
    if pod and not all(pod.partition("/")):
        raise UsageError(f"--pod {pod} is not NAMESPACE/NAME")
    if pod and namespace not in ("", pod.partition("/")[0]):
        raise UsageError(f"--pod {pod} is not in namespace {namespace}")
    requests = _requests((kind, *names))
    wanted = Filter(namespace=namespace, pod=pod, node=node, pool=pool)
    for word, _ in requests:
        if word.lower() not in (*OURS, *TRACES) and (pod or node or pool):
            raise UsageError(
                "--pod, --node and --pool choose among leases, attachments, events and traces only"
            )
        if pool and OURS.get(word.lower()) is not leases:
            raise UsageError("--pool chooses among leases only")
    if any(word.lower() in TRACES for word, _ in requests):
        if len(requests) > 1:
            raise UsageError("traces are shown alone: all, or one by its id")
        return show_traces(state, msgspec.structs.replace(wanted, name=requests[0][1]), form)

    async def run(system: System) -> list[Group]:
        return [
            await _find(system, word, wanted, found, form == "wide") for word, found in _by_kind(requests)
        ]

    single = len(requests) == 1 and bool(requests[0][1]) and requests[0][0].lower() not in OURS
    return show(ask(state, run), form, single=single)


def _requests(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Kinds and names as kubectl reads them: `KIND[,KIND…] [NAME…]`, or `KIND/NAME…`. An empty name is all."""
    if any("/" in word for word in words):
        pairs = [word.split("/") for word in words]
        if not all(len(pair) == 2 and all(pair) for pair in pairs):
            raise UsageError("write KIND NAME…, or KIND/NAME for each; -n names the namespace")
        return [(kind, name) for kind, name in pairs]
    kinds = words[0].split(",")
    if not all(kinds) or not all(words):
        raise UsageError("a kind or a name is empty")
    return [(kind, name) for kind in dict.fromkeys(kinds) for name in words[1:] or ("",)]


def _by_kind(requests: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    out: dict[str, list[str]] = {}
    for kind, name in requests:
        names = out.setdefault(kind, [])
        if name not in names:
            names.append(name)
    return list(out.items())


async def _find(system: System, kind: str, wanted: Filter, names: list[str], wide: bool) -> Group:
    """All of one kind that were asked for. Raises CommandError where the filter names what does not exist."""
    found: list[Found] = []
    missing: list[str] = []
    for name in names:
        one = msgspec.structs.replace(wanted, name=name)
        find = OURS.get(kind.lower())
        part = await objects(system, kind, one, wide) if find is None else await find(system, one, wide)
        if not part.items:
            await _refuse_nothing(system, wanted)
            if name:
                missing.append(_nothing(kind, one))
        found.append(part)
    whole = msgspec.structs.replace(
        found[0],
        items=[item for part in found for item in part.items],
        rows=[row for part in found for row in part.rows],
        names=[name for part in found for name in part.names],
    )
    return Group(found=whole, missing=missing, nothing=_nothing(kind, wanted))


async def _refuse_nothing(system: System, wanted: Filter) -> None:
    """Nothing was found: because there is nothing (any more), or because the filter names what there never was?"""
    if wanted.pool and not await question.was_known(system, "SpiderIPPool", "", wanted.pool):
        raise CommandError(f"there is no SpiderIPPool {wanted.pool}")
    if wanted.pod and not await question.was_known(system, "Pod", wanted.pod_namespace, wanted.pod_name):
        raise CommandError(f"there is no Pod {wanted.pod}")
    await system.meet_nodes()
    if wanted.node and wanted.node not in [node.name for node in system.file.nodes]:
        raise CommandError(f"the system has no node {wanted.node!r}; `orbweaver status` lists them")


def _nothing(kind: str, wanted: Filter) -> str:
    place = f" in namespace {wanted.namespace}" if wanted.namespace else ""
    if wanted.name:
        return f"there is no {kind} {wanted.name}{place}"
    return f"no {kind}{place}"
