"""JSON inside annotations, decoded as Go's encoding/json does: unknown keys ignored, keys in any case, null is absent.

Owns the reading of members with their types; mistakes are collected, not raised. Must not know which annotation it reads.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from shared.manifests.problem import FieldError, entry, invalid, member

TEXT_MAX_BYTES = 256 * 1024
"""All annotations of an object together may not exceed this (apimachinery, TotalAnnotationSizeLimitB)."""


class Reader:
    """Collects the errors of one annotation while its members are read."""

    def __init__(self, field: str) -> None:
        self.field = field
        self.errors: list[FieldError] = []

    def wrong(self, message: str, path: str = "") -> None:
        where = f"{path}: " if path else ""
        self.errors.append(invalid(self.field, f"{where}{message}"))

    def json(self, text: str) -> Any:
        """The JSON value of the text; None and an error if it is none."""
        if not text.strip():
            self.wrong("the value is empty; it must be JSON")
            return None
        if len(text) > TEXT_MAX_BYTES:
            self.wrong(f"the value is longer than {TEXT_MAX_BYTES} bytes")
            return None
        try:
            value = msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            self.wrong(f"the value is not JSON: {error}")
            return None
        if value is None:
            self.wrong("the value must not be null")
        return value

    def object(self, value: object, path: str = "") -> dict[str, Any]:
        """The members of an object under their names in lower case; the exact spelling wins, else the last."""
        if not isinstance(value, dict):
            if value is not None:
                self.wrong("must be a JSON object", path)
            return {}
        members = cast("dict[str, Any]", value)
        out = {key.lower(): item for key, item in members.items()}
        out.update({key: item for key, item in members.items() if key.islower()})
        return out

    def objects(self, value: object) -> list[tuple[str, dict[str, Any]]]:
        """The elements of an array of objects, each with its path."""
        if not isinstance(value, list):
            if value is not None:
                self.wrong("must be a JSON array of objects")
            return []
        return [
            (entry("", i), self.object(item, entry("", i)))
            for i, item in enumerate(cast("list[object]", value))
        ]

    def text(self, members: dict[str, Any], key: str, path: str = "") -> str:
        value = members.get(key)
        if isinstance(value, str):
            return value
        if value is not None:
            self.wrong("must be a string", member(path, key))
        return ""

    def flag(self, members: dict[str, Any], key: str, path: str = "") -> bool:
        value = members.get(key)
        if isinstance(value, bool):
            return value
        if value is not None:
            self.wrong("must be true or false", member(path, key))
        return False

    def texts(self, value: object, path: str = "") -> tuple[str, ...]:
        """A list of strings; absent is empty."""
        if value is None:
            return ()
        if not isinstance(value, list):
            self.wrong("must be a list of strings", path)
            return ()
        out: list[str] = []
        for i, item in enumerate(cast("list[object]", value)):
            if isinstance(item, str):
                out.append(item)
            else:
                self.wrong("must be a string", entry(path, i))
        return tuple(out)
