"""Wildcards in lists of pool names.

Owns the shell-glob syntax of Go's path.Match: `*` any run but `/`, `?` one character, `[a-c]` and `[^a-c]` a class, `\\` escapes.
Must not know pools. Matching is linear in the name: each run of fixed characters between stars is taken at its first place and
never tried again (as CPython's fnmatch does), so that no annotation can make it slow.
"""

from __future__ import annotations

import re
from functools import lru_cache


def is_pattern(name: str) -> bool:
    """Whether a listed name is taken as a pattern: it has `*`, `?`, or both `[` and `]`."""
    return "*" in name or "?" in name or ("[" in name and "]" in name)


@lru_cache(maxsize=4096)
def pattern_error(pattern: str) -> str | None:
    """Why a pattern cannot be read, or None."""
    try:
        _runs(pattern)
    except ValueError as error:
        return f"syntax error in pattern {pattern[:80]!r}: {error}"
    return None


def matches(pattern: str, name: str) -> bool:
    """Whether the whole name fits. A pattern with a syntax error fits nothing."""
    compiled = _compiled(pattern)
    return compiled is not None and compiled.fullmatch(name) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        first, *rest = _runs(pattern)
    except ValueError:
        return None
    if not rest:
        return re.compile(first, re.DOTALL)
    middle = "".join(f"(?>[^/]*?{run})" for run in rest[:-1] if run)
    return re.compile(f"{first}{middle}[^/]*{rest[-1]}", re.DOTALL)


def _runs(pattern: str) -> list[str]:
    """The regular expressions between the stars."""
    runs: list[str] = [""]
    i = 0
    while i < len(pattern):
        mark = pattern[i]
        i += 1
        if mark == "*":
            runs.append("")
        elif mark == "?":
            runs[-1] += "[^/]"
        elif mark == "[":
            expression, i = _class(pattern, i)
            runs[-1] += expression
        elif mark == "\\":
            if i == len(pattern):
                raise ValueError("it ends in an escape")
            runs[-1] += re.escape(pattern[i])
            i += 1
        else:
            runs[-1] += re.escape(mark)
    return runs


def _class(pattern: str, i: int) -> tuple[str, int]:
    """The class that begins after `[`, and where it ends."""
    negated = pattern[i : i + 1] == "^"
    i += negated
    ranges: list[str] = []
    while True:
        if pattern[i : i + 1] == "]" and ranges:
            # A class matches no `/` only because path.Match is used on names, which have none.
            return f"[{'^' if negated else ''}{''.join(ranges)}]", i + 1
        low, i = _class_character(pattern, i)
        high = low
        if pattern[i : i + 1] == "-":
            high, i = _class_character(pattern, i + 1)
        # A reversed range is legal and matches nothing; an impossible character stands for it.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "\\x00")


def _class_character(pattern: str, i: int) -> tuple[str, int]:
    if i >= len(pattern):
        raise ValueError("a '[' has no ']'")
    if pattern[i] in "-]":
        raise ValueError(f"{pattern[i]!r} stands where a character of a class must")
    if pattern[i] == "\\":
        i += 1
        if i >= len(pattern):
            raise ValueError("it ends in an escape")
    if i + 1 >= len(pattern):
        raise ValueError("a '[' has no ']'")
    return pattern[i], i + 1
