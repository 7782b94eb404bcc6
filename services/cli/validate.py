"""`orbweaver validate`: an object as the admission webhook would judge it, before anybody applies it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from services.cli import output, question
from services.cli.failure import CommandError, UsageError
from services.cli.option import DEFAULT_STATE
from services.cli.system import System, ask, is_running
from shared.admission.judge import Judgement, judge_deletion, judge_files
from shared.admission.view import Objects
from shared.contracts.query import QueryLeases
from shared.manifests.document import DEFAULT_NAMESPACE, ManifestFile, ObjectKey, parse
from shared.manifests.kinds import lookup

STDIN = "-"


def validate(
    *,
    file: Annotated[
        tuple[str, ...],
        Parameter(
            name=("--file", "-f"),
            allow_leading_hyphen=True,
            help="A file of objects, or - for stdin; repeatable.",
        ),
    ] = (),
    delete: Annotated[str, Parameter(help="Judge the deletion of KIND/NAME or KIND/NAMESPACE/NAME.")] = "",
    form: Annotated[Literal["json", "yaml"], Parameter(name=("--output", "-o"))] = "json",
    state: Annotated[
        Path | None,
        Parameter(
            name="--state",
            env_var="ORBWEAVER_STATE",
            help="State directory of a running system, whose objects are then known; by default the usual one, if it runs.",
        ),
    ] = None,
) -> int:
    if bool(file) == bool(delete):
        raise UsageError("say what to judge: either -f FILE or --delete KIND/NAME")
    key = _key(delete) if delete else None
    files = [_read(name) for name in file]
    # A state that was named must run: to judge against nothing would be another answer than the one asked for.
    stored = ask(state or DEFAULT_STATE, _stored) if state or is_running(DEFAULT_STATE) else Objects()
    judgements = [judge_deletion(key, stored)] if key else judge_files(files, stored)
    shown = [_shown(judgement) for judgement in judgements]
    output.document(shown[0] if len(shown) == 1 else shown, form)
    return 0 if all(judgement.valid for judgement in judgements) else 1


def _shown(judgement: Judgement) -> dict[str, Any]:
    return {**judgement.to_json(), "operation": judgement.operation, "admitted": judgement.admitted}


def _read(name: str) -> ManifestFile:
    if name == STDIN:
        return parse(sys.stdin.buffer.read(), "stdin")
    try:
        return parse(Path(name).read_bytes(), name)
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from None


def _key(text: str) -> ObjectKey:
    kind_text, *rest = text.split("/")
    kind = lookup(kind_text)
    if kind is None:
        raise UsageError(f"{kind_text!r} is no kind that we know; write KIND/NAME, such as SpiderIPPool/v4")
    if not all(rest) or len(rest) not in ((1, 2) if kind.namespaced else (1,)):
        raise UsageError(f"{text!r} is not {kind.kind}/{'[NAMESPACE/]' if kind.namespaced else ''}NAME")
    namespace = (rest[0] if len(rest) == 2 else DEFAULT_NAMESPACE) if kind.namespaced else ""
    return ObjectKey(kind.kind, namespace, rest[-1])


async def _stored(system: System) -> Objects:
    leases: dict[str, dict[str, str]] = {}
    for lease in await question.leases(system, QueryLeases()):
        if lease.state != "resting":
            leases.setdefault(lease.pool, {})[lease.address] = f"{lease.pod_namespace}/{lease.pod_name}"
    return Objects((fact.object for fact in await question.facts(system)), leases)
