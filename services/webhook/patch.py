"""JSON Patch (RFC 6902) from one JSON value to another.

Owns the difference. Must not know what the values are. Lists are compared by position, since order matters in all of ours.
"""

from __future__ import annotations

from typing import Any, cast


def diff(before: object, after: object, path: str = "") -> list[dict[str, Any]]:
    """The operations that turn `before` into `after`, none if they are equal. Applied in order (RFC 6902 §5)."""
    same_type = type(before) is type(after)
    if isinstance(before, dict) and isinstance(after, dict):
        return _members(cast("dict[str, object]", before), cast("dict[str, object]", after), path)
    if isinstance(before, list) and isinstance(after, list):
        return _elements(cast("list[object]", before), cast("list[object]", after), path)
    if same_type and before == after:
        return []  # of scalars only: false is 0 to Python, also inside lists and maps
    return [{"op": "replace", "path": path, "value": after}]


def _members(before: dict[str, object], after: dict[str, object], path: str) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for key, value in after.items():
        here = f"{path}/{_pointer(key)}"
        if key in before:
            out += diff(before[key], value, here)
        else:
            out.append({"op": "add", "path": here, "value": value})
    out += [{"op": "remove", "path": f"{path}/{_pointer(key)}"} for key in before if key not in after]
    return out


def _elements(before: list[object], after: list[object], path: str) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for i, value in enumerate(after):
        if i < len(before):
            out += diff(before[i], value, f"{path}/{i}")
        else:
            out.append({"op": "add", "path": f"{path}/-", "value": value})
    # From the end, so that the positions of those that remain stay true.
    out += [{"op": "remove", "path": f"{path}/{i}"} for i in range(len(before) - 1, len(after) - 1, -1)]
    return out


def _pointer(key: str) -> str:
    """A key as a reference token (RFC 6901 §3)."""
    return key.replace("~", "~0").replace("/", "~1")
