"""`orbweaver explain pod NS/NAME`: what would be decided for a pod now, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from services.cli import columns, event, output, question
from services.cli.attachment import lease_item
from services.cli.failure import UsageError
from services.cli.option import DEFAULT_STATE, DocumentOption, State
from services.cli.system import System, ask
from shared.contracts.codec import encode
from shared.contracts.query import EXPLAINED, Explain, Explained
from shared.errors import ERRORS
from shared.subjects import IPAM_EXPLAIN

Json = dict[str, Any]
_EVENTS = 5


def explain(
    what: Annotated[Literal["pod"], Parameter(help="What to explain.")],
    pod: Annotated[str, Parameter(help="NAMESPACE/NAME of the pod.")],
    /,
    *,
    interface: Annotated[
        str,
        Parameter(help="Only this interface; without it, eth0 and all networks of the pod's annotations."),
    ] = "",
    network: Annotated[
        str, Parameter(help="A SpiderMultusConfig, NAMESPACE/NAME, as the network of the interface.")
    ] = "",
    ipv4: Annotated[
        tuple[str, ...], Parameter(help="IPv4 pools as the CNI configuration would name them.")
    ] = (),
    ipv6: Annotated[
        tuple[str, ...], Parameter(help="IPv6 pools as the CNI configuration would name them.")
    ] = (),
    form: DocumentOption = "table",
    state: State = DEFAULT_STATE,
) -> int:
    namespace, slash, name = pod.partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise UsageError(f"{pod!r} is not NAMESPACE/NAME")
    asked = Explain(
        pod_namespace=namespace,
        pod_name=name,
        ifname=interface or "eth0",
        ipv4=ipv4,
        ipv6=ipv6,
        network=network,
        further_networks=not interface,
    )
    explained, events = ask(state, lambda system: _explain(system, asked))
    if form != "table":
        leases = [lease_item(lease) for lease in explained.leases]
        members = {f: getattr(explained, f) for f in explained.__struct_fields__}
        output.document({**msgspec.to_builtins(members), "leases": leases, "events": events}, form)
    else:
        _show(explained, events)
    return 1 if explained.error else 0


async def _explain(system: System, asked: Explain) -> tuple[Explained, list[Json]]:
    answer = await question.leader(system, IPAM_EXPLAIN, encode(asked))
    events = [
        event.event(sequence, happened)
        for sequence, happened in await question.events(system)
        if event.is_about(happened, asked.pod_namespace, asked.pod_name)
    ]
    return EXPLAINED.decode(answer), events[-_EVENTS:]


def _show(explained: Explained, events: list[Json]) -> None:
    output.say(explained.outcome)
    if explained.error and (known := ERRORS.get(explained.error)):
        output.say(f"error {known.code} {known.name}: {known.hint}")
    for warning in explained.warnings:
        output.say(f"warning: {warning}")
    if explained.source:
        output.say(f"pools come from: {explained.source}")
    if explained.verdicts:
        output.say("")
        output.table(
            ["INTERFACE", "FAMILY", "POOL", "TAKEN", "FREE", "WHY"],
            [
                [v.ifname, f"IPv{v.family}", v.pool, "yes" if v.chosen else "no", v.free, v.reason]
                for v in explained.verdicts
            ],
            prose=True,
        )
    if explained.leases:
        output.say("\nleases that it has:")
        output.table(
            ["ADDRESS", "POOL", "INTERFACE", "NODE", "STATE", "GENERATION"],
            [[v.address, v.pool, v.interface, v.node, v.state, v.generation] for v in explained.leases],
        )
    if events:
        output.say("\nlast events:")
        now = datetime.now(UTC)
        output.table(
            ["AGE", "TYPE", "REASON", "MESSAGE"],
            [[columns.age(e["time"], now), e["type"], e["reason"], e["message"]] for e in events],
            prose=True,
        )
