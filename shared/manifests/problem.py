"""What is wrong with a manifest, as data: one error per field, with the place where a person can mend it.

Owns the shape of an error and the codes it may carry. Must not know any kind, any rule or any file system.
Codes are those of a Kubernetes StatusCause without the `FieldValue` prefix, plus `AlreadyExists`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Code = Literal[
    "Invalid",
    "Required",
    "NotSupported",
    "Duplicate",
    "Forbidden",
    "AlreadyExists",
    "TypeInvalid",
    "Unreadable",
    "Unknown",
]
"""`Unreadable` is text that is not YAML or not an object; `Unknown` is what a later object may cure or a field we do not have."""


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong: `field` is the path inside the object (`spec.ips[1]`, `metadata.annotations[key]`), "" for the whole."""

    field: str
    code: Code
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A FieldError at its place: `line` counts from 1, 0 where no line is known; `object` is `Kind/ns/name` or empty."""

    file: str
    line: int
    object: str
    field: str
    code: Code
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        what = " ".join(part for part in (self.object, self.field) if part)
        return f"{place}: {what}: {self.message}" if what else f"{place}: {self.message}"


class Invalid(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a parser whose text is wrong: all that is wrong with it, never empty."""

    errors: tuple[FieldError, ...]

    @property
    def message(self) -> str:
        """All errors in one sentence, as an event or a CNI error shows them."""
        return "; ".join(f"{error.field}: {error.message}" for error in self.errors)


MESSAGE_MAX = 1000
"""A sentence quotes what was written: it goes into events, logs and answers of the bus, so it has an end."""


def invalid(field: str, message: str, code: Code = "Invalid") -> FieldError:
    shown = message if len(message) <= MESSAGE_MAX else f"{message[: MESSAGE_MAX - 3]}..."
    return FieldError(field=field, code=code, message=shown)


def member(path: str, key: str) -> str:
    """The path of a member of an object, as Kubernetes writes it: `spec.ips`."""
    return f"{path}.{key}" if path else key


def entry(path: str, key: str | int) -> str:
    """The path of an element of a list or an entry of a map: `spec.ips[1]`, `metadata.labels[app]`."""
    return f"{path}[{key}]"


def segments(field: str) -> tuple[str, ...]:
    """The steps of a path, member and entry alike: `a.b[x.y/z].c` → ("a", "b", "x.y/z", "c")."""
    out: list[str] = []
    start, i, size = 0, 0, len(field)
    while i < size:
        mark = field[i]
        if mark == ".":
            if i > start:
                out.append(field[start:i])
            i += 1
            start = i
        elif mark == "[":
            if i > start:
                out.append(field[start:i])
            end = field.find("]", i)
            end = size if end < 0 else end
            out.append(field[i + 1 : end])
            i = end + 1
            start = i
        else:
            i += 1
    if start < size:
        out.append(field[start:])
    return tuple(out)
