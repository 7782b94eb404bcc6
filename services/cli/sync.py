"""`orbweaver sync`: returns when the folder of manifests, as it is now, is in force everywhere that decides."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Annotated

from cyclopts import Parameter

from services.cli import cluster, output, question
from services.cli.failure import CommandError
from services.cli.option import DEFAULT_STATE, DocumentOption, State
from services.cli.system import System, ask
from shared.bus import BusError, BusTimeout
from shared.contracts.codec import encode
from shared.contracts.facts import SYNC_ANSWER, AskSync, SourceProblem, SyncAnswer
from shared.contracts.query import SERVICE_VIEW, QueryService
from shared.subjects import ASK_SYNC, ask_service, token

_POLL_S = 0.05


def sync(
    *,
    timeout: Annotated[float, Parameter(help="Seconds to wait.")] = 30.0,
    form: DocumentOption = "table",
    state: State = DEFAULT_STATE,
) -> int:
    answer = ask(state, lambda system: _sync(system, timeout))
    if form == "table":
        output.say(f"{answer.objects} objects in force")
        for problem in answer.problems:
            output.complain(_line(problem))
        for warning in answer.warnings:
            output.complain(f"warning: {_line(warning)}")
        if answer.problems:
            output.complain("what a file above last said rightly stays in force")
    else:
        told = {"objects": answer.objects, "problems": answer.problems, "warnings": answer.warnings}
        output.document(told, form)
    return 1 if answer.problems else 0


def _line(problem: SourceProblem) -> str:
    place = f"{problem.file}:{problem.line}" if problem.line else problem.file
    what = " ".join(part for part in (problem.object, problem.field) if part)
    return f"{place}: {what + ': ' if what else ''}{problem.message}"


async def _sync(system: System, timeout_s: float) -> SyncAnswer:
    deadline = time.monotonic() + timeout_s
    # A large folder takes its time, so one answer may take all of it.
    try:
        data = await question.leader(system, ASK_SYNC, encode(AskSync()), timeout_s, try_timeout_s=timeout_s)
    except BusTimeout:
        reason = await _controller_stuck(system)
        if reason:
            raise CommandError(f"{reason}; `orbweaver status` tells more") from None
        raise
    answer = SYNC_ANSWER.decode(data)
    await asyncio.gather(
        _allocator_has(system, answer.facts_sequence, deadline),
        _webhooks_have(system, answer.facts_sequence, deadline),
    )
    return answer


async def _controller_stuck(system: System) -> str:
    """Why the controller does not answer, if it tells."""
    for entry in system.file.services:
        if entry.service == "controller":
            with contextlib.suppress(BusError):
                subject = f"{ask_service('controller')}.{token(entry.asks)}"
                reply = await system.bus.request(subject, encode(QueryService()), 1.0)
                view = SERVICE_VIEW.decode(reply.data)
                if not view.ready:
                    return f"{entry.instance} is not ready: {view.reason}"
    return ""


async def _allocator_has(system: System, sequence: int, deadline: float) -> None:
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise CommandError(
                f"the leading allocator has not read the facts up to {sequence} in time; try a longer --timeout"
            )
        try:
            view = await question.allocator(system, sequence, left_s)
        except BusTimeout:
            continue
        if view.facts_sequence >= sequence:
            return
        await asyncio.sleep(_POLL_S)


async def _webhooks_have(system: System, sequence: int, deadline: float) -> None:
    """Every replica: any of them may answer the next admission. In a cluster those that are heard."""
    while system.in_cluster and (behind := await cluster.webhooks_behind(system, sequence)):
        if time.monotonic() > deadline:
            raise CommandError(f"{', '.join(behind)}: not all facts are read; `orbweaver status` tells more")
    for entry in system.file.services:
        if entry.service != "webhook":
            continue
        subject = f"{ask_service('webhook')}.{token(entry.asks)}"
        while True:
            reason = "does not answer"
            try:
                reply = await system.bus.request(subject, encode(QueryService()), 1.0)
                has = SERVICE_VIEW.decode(reply.data).facts.get("facts_sequence", "")
                if has.isdigit() and int(has) >= sequence:
                    break
                reason = f"has read the facts up to {has or 'nothing'} of {sequence}"
            except BusError as error:
                reason = f"does not answer: {error}"
            if time.monotonic() > deadline:
                raise CommandError(f"{entry.instance} {reason}; `orbweaver status` tells more")
            await asyncio.sleep(_POLL_S)
