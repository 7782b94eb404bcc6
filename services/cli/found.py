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


def show(found: Found, form: Output, *, single: bool, nothing: str) -> int:
    if found.complaint:
        output.complain(found.complaint)
    if single and not found.items:
        output.complain(nothing)
        return 1
    match form:
        case "json" | "yaml":
            items = found.items
            several: Json = {
                "apiVersion": "v1",
                "kind": "List",
                "metadata": {"resourceVersion": ""},
                "items": items,
            }
            output.document(items[0] if single and len(items) == 1 else several, form)
        case "name":
            for name in found.names:
                output.say(name)
        case "table" | "wide":
            if found.items:
                output.table(found.header, found.rows, prose=found.prose)
            elif not found.complaint:
                output.complain(nothing)
    return 1 if found.complaint else 0
