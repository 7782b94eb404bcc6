"""`orbweaver status` of a cluster: what was heard, for people and programs.

Owns the look. Must not ask anything (cluster.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from services.cli import output
from services.cli.cluster import ON_NODES, Heard, Instance, Stream, look, reasons, servers
from services.cli.option import Document
from services.cli.system import ask

Json = dict[str, Any]
NODES_LISTED = 20
"""On more nodes only those services are listed that are not ready."""
REASONS_SAID = 10


def show(state: Path, form: Document) -> int:
    heard = ask(state, look)
    why = reasons(heard)
    if form != "table":
        output.document(_document(heard, why), form)
    else:
        _table(heard, why)
    return 1 if why else 0


def _document(heard: Heard, why: list[str]) -> Json:
    return {
        "ready": not why,
        "reasons": why,
        "nodes": [{"name": name} for name in heard.nodes],
        "services": [
            {
                "service": one.service,
                "instance": one.instance,
                "node": one.node,
                "ready": not one.reason,
                "reason": one.reason,
                "facts": one.facts,
            }
            for one in heard.instances
        ],
        "allocator": None if isinstance(heard.leader, str) else msgspec.to_builtins(heard.leader),
        "hub": {
            "servers": servers(heard),
            "streams": [
                {
                    "name": stream.name,
                    "messages": stream.state.messages,
                    "bytes": stream.state.bytes,
                    "leader": stream.cluster.leader if stream.cluster is not None else "",
                    "replicas": [
                        {"name": copy.name, "current": copy.current, "offline": copy.offline, "lag": copy.lag}
                        for copy in (stream.cluster.replicas if stream.cluster is not None else ())
                    ],
                }
                for stream in heard.streams
            ],
        },
    }


def _table(heard: Heard, why: list[str]) -> None:
    more = [f"and {len(why) - REASONS_SAID} more"] if len(why) > REASONS_SAID else []
    output.say("not ready: " + "; ".join([*why[:REASONS_SAID], *more]) if why else "ready")
    output.say(f"  nodes     {len(heard.nodes)}")
    for service in ON_NODES:
        mine = [one for one in heard.instances if one.service == service]
        ready = sum(not one.reason for one in mine)
        output.say(f"  {service:<10}{ready} of {len(mine)} ready")
    listed = [
        one for one in heard.instances if not one.node or one.reason or len(heard.nodes) <= NODES_LISTED
    ]
    output.say("")
    output.table(["INSTANCE", "READY", "FACTS"], [_row(one) for one in listed], prose=True)
    output.say("")
    output.table(["STREAM", "MESSAGES", "LEADER", "COPIES"], [_stream_row(one) for one in heard.streams])


def _row(one: Instance) -> list[object]:
    told = " ".join(f"{key}={text}" for key, text in one.facts.items())
    return [one.instance, f"no: {one.reason}" if one.reason else "yes", told]


def _stream_row(stream: Stream) -> list[object]:
    if stream.cluster is None:
        return [stream.name, stream.state.messages, "the one server", ""]
    copies = [
        copy.name + ("" if copy.current and not copy.offline else " (not current)")
        for copy in stream.cluster.replicas
    ]
    return [stream.name, stream.state.messages, stream.cluster.leader or "none", copies]
