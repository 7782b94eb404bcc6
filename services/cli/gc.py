"""`orbweaver gc`: what becomes of each lease, and why; without `--dry-run` it is done now.

Owns how that is shown. Must not judge: the leading allocator does.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from cyclopts import Parameter

from services.cli import output, question
from services.cli.option import DEFAULT_STATE, DocumentOption, State
from services.cli.system import System, ask
from shared.contracts.codec import encode
from shared.contracts.collect import VERDICTS, Action, Collect, LeaseVerdict
from shared.subjects import IPAM_COLLECT

HEADERS = ("ADDRESS", "POD", "INTERFACE", "NODE", "VERDICT", "DUE", "REASON")
_DONE: dict[Action, str] = {
    "keep": "kept",
    "release": "released",
    "detach": "asked of their nodes",
    "quarantine": "released, and kept from others until their nodes tell",
}


class Judged(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All pages together. `held_back` says why nothing is collected now."""

    dry_run: bool
    counts: dict[str, int]
    verdicts: tuple[LeaseVerdict, ...]
    held_back: str = ""


def gc(
    *,
    dry_run: Annotated[
        bool, Parameter(name="--dry-run", help="Only tell what would become of each lease.")
    ] = False,
    form: DocumentOption = "table",
    state: State = DEFAULT_STATE,
) -> int:
    judged = ask(state, lambda system: _judged(system, dry_run))
    if form != "table":
        output.document(judged, form)
    else:
        if judged.verdicts:
            output.table(HEADERS, [_row(one) for one in judged.verdicts], prose=True)
        output.say(summary(judged))
    return 1 if judged.held_back and not dry_run else 0


async def _judged(system: System, dry_run: bool) -> Judged:
    """Every lease where nothing is to be done, only those that do not stay where it is."""
    verdicts: list[LeaseVerdict] = []
    counts: dict[str, int] = {}
    query = Collect(dry_run=dry_run, kept=dry_run)
    while True:
        page = VERDICTS.decode(await question.leader(system, IPAM_COLLECT, encode(query)))
        verdicts += page.verdicts
        for action, count in page.counts.items():
            counts[action] = counts.get(action, 0) + count
        if not page.next_after:
            return Judged(dry_run=dry_run, counts=counts, verdicts=tuple(verdicts), held_back=page.held_back)
        query = msgspec.structs.replace(query, after=page.next_after)


def _row(one: LeaseVerdict) -> tuple[object, ...]:
    pod = f"{one.pod_namespace}/{one.pod_name}" if one.pod_name else f"container {one.container_id[:12]}"
    due = (
        datetime.fromtimestamp(one.due_ns / 1e9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        if one.due_ns
        else ""
    )
    return (one.address, pod, one.interface, one.node, one.action, due, one.reason)


def summary(judged: Judged) -> str:
    """One line for people."""
    if judged.held_back:
        return f"nothing is collected now: {judged.held_back}"
    counted = [(judged.counts.get(action, 0), action, told) for action, told in _DONE.items()]
    if judged.dry_run:
        return ", ".join(f"{count} {action}" for count, action, _ in counted)
    return ", ".join(f"{count} {told}" for count, _, told in counted if count) or "no leases"
