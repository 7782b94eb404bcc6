"""What goes to stdout and stderr: tables for people, documents for programs, complaints beside both.

Owns the look. Must not know what is shown. stdout carries the answer only, so that it can be piped; all else is on stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_COLUMNS = 100
"""The width of pictures where no terminal tells one."""


class Terminal(Console):
    """rich's console, but a reader that went away is `main`'s to judge: rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def columns() -> int:
    """The width of the terminal that stdout is, or PIPED_COLUMNS."""
    try:
        return max(80, os.get_terminal_size(sys.stdout.fileno()).columns)
    except OSError:
        return PIPED_COLUMNS


def say(line: str) -> None:
    print(line, flush=True)


def complain(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def document(value: Any, form: Literal["json", "yaml"]) -> None:
    """Prints plain data (or Structs) as one JSON or YAML document."""
    if form == "yaml":
        import yaml  # 20 ms that only this form pays

        # libyaml's emitter writes what it is given: aliases for repeated objects would surprise a reader.
        class Plain(yaml.SafeDumper):
            def ignore_aliases(self, data: Any) -> bool:
                return True

        say(
            yaml.dump(
                msgspec.to_builtins(value), Dumper=Plain, sort_keys=False, allow_unicode=True, width=120
            ).rstrip()
        )
    else:
        say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints aligned columns, numbers to the right. On a terminal the widest columns fold rather than lose text."""
    cells = [[_cell(value) for value in row] for row in rows]
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, header in enumerate(headers):
        numeric = bool(cells) and all(
            row[index].lstrip("-").replace(".", "", 1).isdigit() or not row[index] for row in cells
        )
        drawn.add_column(header, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        # Text, not str: what users wrote may look like rich's markup.
        drawn.add_row(*(Text(cell) for cell in row))
    if sys.stdout.isatty():
        Terminal(highlight=False).print(drawn)
    else:
        Terminal(highlight=False, width=10_000, no_color=True).print(drawn)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(_cell(one) for one in cast("list[object]", value))
    return "".join(c if c.isprintable() else "?" for c in str(value))
