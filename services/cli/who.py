"""`orbweaver who IP`: who has an address, or why nobody has it."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from services.cli import event, output, question
from services.cli.attachment import lease_item
from services.cli.failure import UsageError
from services.cli.option import DEFAULT_STATE, DocumentOption, State
from services.cli.standing import standings
from services.cli.system import System, ask
from shared.contracts.attach import AttachCompleted
from shared.contracts.query import LeaseView, QueryLeases
from shared.net.ranges import format_address, parse_address

Json = dict[str, Any]
_STATES = {
    "held": "is held by",
    "detached": "is kept for (its sandbox is gone, the pod lives)",
    "ahead": "is taken ahead for",
    "adopted": "was given by another IPAM, and is kept for",
}


def who(
    ip: Annotated[str, Parameter(help="An IPv4 or IPv6 address, without prefix length.")],
    /,
    *,
    form: DocumentOption = "table",
    state: State = DEFAULT_STATE,
) -> int:
    try:
        family, value = parse_address(ip.partition("/")[0])
    except ValueError as error:
        raise UsageError(str(error)) from None
    address = format_address(value, family)
    answer = ask(state, lambda system: _who(system, address))
    holders: list[Json] = answer["holders"]
    has = any(holder["state"] != "resting" for holder in holders)
    if form != "table":
        output.document(answer, form)
        return 0 if has else 1
    for holder in holders:
        for line in _sentences(address, holder):
            output.say(line)
    for one in answer["standings"]:
        output.say(f"{address} is {one['sentence']}")
    if not holders and not answer["standings"]:
        output.say(f"{address} is in no pool: nothing here has it or will give it")
    return 0 if has else 1


async def _who(system: System, address: str) -> Json:
    held = await question.leases(system, QueryLeases(address=address))
    happened = await question.events(system) if held else []
    completed = [one for _, one in happened if isinstance(one, AttachCompleted)]
    holders = [_holder(lease, completed) for lease in held]
    said: list[Json] = []
    if not any(lease.state != "resting" for lease in held):
        pools = [f.object for f in await question.facts(system, "SpiderIPPool")]
        reserved = [f.object for f in await question.facts(system, "SpiderReservedIP")]
        said = [
            {"word": one.word, "by": one.by, "sentence": one.sentence}
            for one in standings(address, pools, reserved)
            if not (held and one.word == "free")
        ]
    return {"address": address, "holders": holders, "standings": said}


def _holder(lease: LeaseView, completed: list[AttachCompleted]) -> Json:
    """The lease, with when and in which trace it was attached, where an event of the last day tells."""
    mine = [
        one
        for one in completed
        if one.container_id == lease.container_id
        and any(a.partition("/")[0] == lease.address for a in one.addresses)
    ]
    told: Json = {"since": "", "traceID": ""}
    if mine:
        told = {"since": event.timestamp(mine[-1].at_ns), "traceID": mine[-1].trace_id}
    return {**lease_item(lease), **told}


def _sentences(address: str, holder: Json) -> list[str]:
    if holder["state"] == "resting":
        return [
            f"{address} of pool {holder['pool']} rests after its release: it is given again when nothing else is free"
        ]
    pod = f"pod {holder['podNamespace']}/{holder['podName']}" if holder["podName"] else "a container"
    first = f"{address} {_STATES.get(holder['state'], 'is ' + holder['state'] + ' by')} {pod} on node {holder['node']}"
    rows = [
        ("interface", holder["interface"]),
        ("container", holder["containerID"]),
        ("pod uid", holder["podUID"]),
        ("pool", holder["pool"]),
        ("generation", str(holder["generation"])),
        ("since", holder["since"]),
        (
            "trace",
            f"{holder['traceID']}  (orbweaver get traces {holder['traceID'][:8]})"
            if holder["traceID"]
            else "",
        ),
    ]
    return [first, *(f"  {label:<10}  {text}" for label, text in rows if text)]
