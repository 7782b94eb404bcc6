"""What `orbweaver get` found, whatever it looked for: chosen by a Filter, shown in the form that was asked for.

Owns the forms. Must not know where anything comes from.
"""

from __future__ import annotations

from typing import Any

import msgspec

from services.cli import output
from services.cli.option import Output

Json = dict[str, Any]


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Empty members fit everything."""

    name: str = ""
    namespace: str = ""
    pod: str = ""
    node: str = ""
    pool: str = ""

    @property
    def pod_namespace(self) -> str:
        return self.pod.partition("/")[0] or self.namespace

    @property
    def pod_name(self) -> str:
        return self.pod.partition("/")[2]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """`items` for programs, each with its row for people; `complaint` says what could not be asked."""

    items: list[Json]
    header: list[str]
    rows: list[list[object]]
    names: list[str]
    prose: bool = False
    complaint: str = ""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one kind. `missing` says of each name that there is none, `nothing` what an empty list is."""

    found: Found
    missing: list[str] = []
    nothing: str


def show(groups: list[Group], form: Output, *, single: bool) -> int:
    """Prints what was found, kind by kind; `single` is one object by its name. Answers the exit code."""
    for group in groups:
        for sentence in (group.found.complaint, *group.missing):
            if sentence:
                output.complain(sentence)
    failed = any(group.found.complaint or group.missing for group in groups)
    items = [item for group in groups for item in group.found.items]
    if failed and not items and any(group.missing for group in groups):
        return 1
    match form:
        case "json" | "yaml":
            several: Json = {
                "apiVersion": "v1",
                "kind": "List",
                "metadata": {"resourceVersion": ""},
                "items": items,
            }
            output.document(items[0] if single and len(items) == 1 else several, form)
        case "name":
            for group in groups:
                for name in group.found.names:
                    output.say(name)
        case "table" | "wide":
            _tables(groups)
    return 1 if failed else 0


def _tables(groups: list[Group]) -> None:
    shown = [group.found for group in groups if group.found.items]
    for i, found in enumerate(shown):
        if i:
            output.say("")
        rows = found.rows
        if len(shown) > 1 and "NAME" in found.header:
            # as kubectl has it: among several kinds a name tells which
            at = found.header.index("NAME")
            rows = [[*row[:at], name, *row[at + 1 :]] for row, name in zip(rows, found.names, strict=True)]
        output.table(found.header, rows, prose=found.prose)
    for group in groups:
        if not group.found.items and not group.found.complaint and not group.missing:
            output.complain(group.nothing)
