"""`orbweaver doctor`: looks at everything, and shows what the audit finds.

Owns the collecting. Must not judge: services.cli.audit does.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from services.cli import cluster, output, question
from services.cli.audit import Finding, Seen, Service, audit, lasting
from services.cli.option import DEFAULT_STATE, DocumentOption, State
from services.cli.system import System, ask
from services.standalone.app import describe
from services.standalone.observer import Observer
from shared.bus import BusError
from shared.contracts.codec import encode
from shared.contracts.facts import SYNC_ANSWER, AskSync, SourceProblem
from shared.contracts.query import AllocatorView, LeaseView, QueryLeases
from shared.subjects import ASK_SYNC, LEASES

Json = dict[str, Any]
SECOND_LOOK_AFTER_S = 1.5
_ASK_TIMEOUT_S = 5.0
_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def doctor(*, form: DocumentOption = "table", state: State = DEFAULT_STATE) -> int:
    findings = ask(state, _examine)
    failed = any(f.result == "fail" for f in findings)
    if form != "table":
        output.document({"ok": not failed, "findings": findings}, form)
    else:
        for finding in findings:
            output.say(f"{_MARKS[finding.result]}  {finding.check + ':':<12} {finding.sentence}")
            if finding.way_out:
                output.say(f"{'':>19}→ {finding.way_out}")
        output.say(_conclusion(findings))
    return 1 if failed else 0


def _conclusion(findings: list[Finding]) -> str:
    counts = {result: sum(f.result == result for f in findings) for result in ("fail", "warn")}
    if not any(counts.values()):
        return "all is well"
    return f"{counts['fail']} to mend, {counts['warn']} to watch"


async def _examine(system: System) -> list[Finding]:
    first = audit(await _look(system))
    if all(f.result == "ok" for f in first):
        return first
    # What is under way looks wrong for a moment: only what stays is told.
    await asyncio.sleep(SECOND_LOOK_AFTER_S)
    return lasting(first, audit(await _look(system)))


async def _look(system: System) -> Seen:
    await system.meet_nodes()
    services, (leader, before, after), problems = await asyncio.gather(
        _services(system), _leader(system), _problems(system)
    )
    by_node = await question.journals_and_kernels(system)
    pages = {node: page for node, page in by_node.items() if not isinstance(page, BusError)}
    return Seen(
        services=services,
        leader=leader,
        log_before=before,
        log_after=after,
        leases=await _leases(system),
        attachments={node: pages[node].attachments if node in pages else None for node in by_node},
        strays={node: page.strays for node, page in pages.items()},
        pools=tuple(f.object for f in await question.facts(system, "SpiderIPPool")),
        problems=problems,
        # of a cluster's nodes only one has this process
        gc_thresh3={} if system.in_cluster else _gc_thresh3(),
    )


async def _services(system: System) -> tuple[Service, ...]:
    if system.in_cluster:
        heard = await cluster.look(system)
        return (
            *(Service(instance=one.instance, node=one.node, reason=one.reason) for one in heard.instances),
            *(Service(instance="the cluster", reason=sentence) for sentence in cluster.lacks(heard)),
        )
    observer = Observer(system.file, system.credentials)
    try:
        seen = describe(system.file, await observer.look(system.file.services))
    finally:
        await observer.close()
    return tuple(
        Service(
            instance=s["instance"],
            node=s["node"],
            reason="" if s["ready"] else s["reason"],
            restarts=s["restarts"],
            log=s["log"],
        )
        for s in cast("list[Json]", seen["services"])
    )


async def _leader(system: System) -> tuple[AllocatorView | None, int, int]:
    """The leader, with the end of its log before and after it answered: the log grows meanwhile."""
    try:
        before = (await system.bus.stream_state(LEASES.name)).last_sequence
        view = await question.allocator(system, audit=True)
        after = (await system.bus.stream_state(LEASES.name)).last_sequence
    except BusError:
        return None, 0, 0
    return view, before, after


async def _leases(system: System) -> tuple[LeaseView, ...]:
    try:
        return tuple(await question.leases(system, QueryLeases()))
    except BusError:
        return ()  # the missing leader is a finding of its own


async def _problems(system: System) -> tuple[SourceProblem, ...]:
    try:
        answer = await system.bus.request(ASK_SYNC, encode(AskSync()), _ASK_TIMEOUT_S)
    except BusError:
        return ()  # so is the silent controller
    return SYNC_ANSWER.decode(answer.data).problems


def _gc_thresh3() -> dict[str, int]:
    """Only the first network namespace has these; elsewhere the kernel's one table is not ours to see."""
    found: dict[str, int] = {}
    for family in ("ipv4", "ipv6"):
        path = Path(f"/proc/sys/net/{family}/neigh/default/gc_thresh3")
        if path.exists():
            found[family] = int(path.read_text())
    return found
