"""What goes to stdout and stderr: tables for people, documents for programs, complaints beside both.

Owns the look. Must not know what is shown. stdout carries the answer only, so that it can be piped; all else is on stderr.
"""

from __future__ import annotations

import io
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
PIPED_MAX_COLUMNS = 10_000
PROSE_COLUMNS = 40
"""What a last column of sentences gets at least."""


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


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, prose: bool = False) -> None:
    """Prints aligned columns, numbers to the right. A cell is never broken, since people copy addresses and names: a line that is
    too long is the terminal's to wrap. Only the last column folds between words, where it is `prose`."""
    cells = [[_cell(value) for value in row] for row in rows]
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    natural = 0
    for index, header in enumerate(headers):
        column = [row[index] for row in cells]
        numeric = any(column) and all(cell.replace(".", "", 1).isdigit() or not cell for cell in column)
        folds = prose and index == len(headers) - 1
        natural += PROSE_COLUMNS if folds else max(len(text) for text in (header, *column)) + 2
        drawn.add_column(
            header,
            justify="right" if numeric else "left",
            no_wrap=not folds,
            overflow="fold" if folds else "crop",
        )
    for row in cells:
        # Text, not str: what users wrote may look like rich's markup.
        drawn.add_row(*(Text(cell) for cell in row))
    on_terminal = sys.stdout.isatty()
    width = max(columns(), natural) if on_terminal else PIPED_MAX_COLUMNS
    terminal = Terminal(highlight=False, width=width, force_terminal=on_terminal, file=io.StringIO())
    terminal.print(drawn)
    for line in cast("io.StringIO", terminal.file).getvalue().splitlines():
        say(line.rstrip())


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(_cell(one) for one in cast("list[object]", value))
    return "".join(c if c.isprintable() else "?" for c in str(value))
