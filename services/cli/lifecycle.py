"""`orbweaver up`, `down`, `status`, `demo`, `version`: the system as a whole.

Owns how they look to a user. Must not know how a system is put together (services.standalone).
"""

from __future__ import annotations

import asyncio
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from services.cli import columns, output
from services.cli.failure import CommandError, UsageError
from services.cli.option import DEFAULT_STATE, DocumentOption, State
from services.cli.system import of_cluster, without_logs
from services.standalone import app
from services.standalone.detach import up_detached
from services.standalone.node_netns import flaw_of_node
from services.standalone.state import StandaloneError

Json = dict[str, Any]


def up(
    *,
    manifests: Annotated[Path, Parameter(help="Folder of YAML or JSON objects; watched from then on.")],
    node: Annotated[
        tuple[str, ...],
        Parameter(
            help="A node of the system, NAME or NAME=NETNS (a path); repeatable. Without it, this machine.",
            negative="",
        ),
    ] = (),
    state: State = DEFAULT_STATE,
    detach: Annotated[bool, Parameter(help="Return when it is ready, and leave it running.")] = False,
) -> int:
    names = [one.partition("=")[0] for one in node]
    if not all(names):
        raise UsageError("a node has no name; write --node NAME or --node NAME=NETNS")
    for one in node:
        if flaw := flaw_of_node(one):
            raise UsageError(flaw)
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--node {name} is given twice")
    request = app.UpRequest(manifests=str(manifests.absolute()), state=str(state.absolute()), nodes=node)
    ready = f"ready: `orbweaver status` shows it, `orbweaver down` stops it{_other(state)}"
    try:
        if detach:
            up_detached(request, output.say)
            output.say(ready)
        else:
            app.run(request, output.say, lambda: output.say(f"{ready}, and so does Ctrl-C"))
    except StandaloneError as error:
        raise CommandError(error.message, error.detail) from None
    return 0


def down(
    *,
    state: State = DEFAULT_STATE,
    purge: Annotated[
        bool, Parameter(help="Also remove the state directory: leases, journals, logs.")
    ] = False,
) -> int:
    try:
        app.down(state.absolute(), output.say, purge=purge)
    except StandaloneError as error:
        raise CommandError(error.message, error.detail) from None
    return 0


def status(*, form: DocumentOption = "table", state: State = DEFAULT_STATE) -> int:
    without_logs()
    if of_cluster():
        from services.cli import cluster_status  # it brings the bus along

        return cluster_status.show(state, form)
    try:
        found = asyncio.run(app.status(state.absolute()))
    except StandaloneError as error:
        raise CommandError(error.message, error.detail) from None
    if form != "table":
        output.document(found, form)
    else:
        _show(found)
    return 0 if found["ready"] else 1


def demo() -> int:
    from services.standalone import demo as whole  # it brings the lab's machinery along

    return whole.run()


def version() -> int:
    output.say(f"orbweaver {metadata.version('orbweaver')}")
    return 0


def _show(found: Json) -> None:
    output.say("ready" if found["ready"] else "not ready: " + "; ".join(found["reasons"]))
    nodes = ", ".join(n["name"] + (f" in {n['netns']}" if n["netns"] else "") for n in found["nodes"])
    for label, text in (
        ("state", found["state"]),
        ("manifests", found["manifests"]),
        ("nodes", nodes),
        ("nats", found["nats"]["hub"]),
        ("leaves", ", ".join(f"{node} {url}" for node, url in found["nats"]["leaves"].items())),
        ("webhook", found["webhook"]["url"]),
        ("ca", found["ca"]),
    ):
        output.say(f"  {label:<10}{text}")
    if found["services"]:
        output.say("")
        output.table(
            ["INSTANCE", "READY", "PID", "UPTIME", "RESTARTS", "METRICS", "FACTS"],
            [
                [
                    s["instance"],
                    "yes" if s["ready"] else f"no: {s['reason']}",
                    s["pid"],
                    columns.duration(s["uptime_s"]),
                    s["restarts"],
                    s["http"].removeprefix("http://"),
                    " ".join(f"{k}={v}" for k, v in s["facts"].items()),
                ]
                for s in found["services"]
            ],
            prose=True,
        )


def _other(state: Path) -> str:
    return "" if state == DEFAULT_STATE else f" (with --state {state})"
