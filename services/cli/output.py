"""What goes to stdout and stderr: tables for people, documents for programs, complaints beside both.

Owns the look. Must not know what is shown. stdout carries the answer only, so that it can be piped; all else is on stderr.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import msgspec
from rich.cells import cell_len
from rich.console import Console

PIPED_COLUMNS = 100
"""The width of pictures where no terminal tells one."""
GAP_COLUMNS = 2
PROSE_COLUMNS = 40
"""What a last column of sentences gets at least."""


class Terminal(Console):
    """rich's console, but a reader that went away is `main`'s to judge: rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def columns() -> int:
    """COLUMNS, else the width of the terminal that stdout is, else PIPED_COLUMNS; at least 80."""
    return max(80, shutil.get_terminal_size((PIPED_COLUMNS, 24)).columns)


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
    too long is the terminal's to wrap. Only the last column folds between words, where it is `prose`.

    rich's own tables cost 0.5 ms a row, which ten thousand leases make seconds; so only its measure of text is used."""
    cells = [[_cell(value) for value in row] for row in rows]
    last = len(headers) - 1
    widths = [max(map(cell_len, column)) for column in zip(headers, *cells, strict=True)]
    numeric = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(headers))]
    on_terminal = sys.stdout.isatty()
    if prose and on_terminal:
        before = sum(widths[:last]) + GAP_COLUMNS * last
        widths[last] = min(widths[last], max(columns() - before, PROSE_COLUMNS))
    for number, row in enumerate([list(headers), *cells]):
        folded = textwrap.wrap(row[last], max(widths[last], 1)) if prose and number else [row[last]]
        for line, text in enumerate(folded or [""]):
            shown = [*row[:last], text] if not line else [*[""] * last, text]
            aligned = (
                (" " * GAP_COLUMNS)
                .join(
                    _aligned(cell, width, right)
                    for cell, width, right in zip(shown, widths, numeric, strict=True)
                )
                .rstrip()
            )
            say(f"\x1b[1m{aligned}\x1b[0m" if on_terminal and not number else aligned)


def _aligned(text: str, width: int, right: bool) -> str:
    padding = " " * (width - cell_len(text))
    return padding + text if right else text + padding


def _is_number(text: str) -> bool:
    return not text or text.replace(".", "", 1).isdigit()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(_cell(one) for one in cast("list[object]", value))
    return "".join(c if c.isprintable() else "?" for c in str(value))
