"""Edits of an object's JSON for defaulting: each leaves alone what does not have the expected shape.

Owns small, total operations on JSON, so that a mutation never fails on garbage; validation reports that afterwards. Must not
know any kind.
"""

from __future__ import annotations

import copy
from typing import Any, cast

from shared.manifests.meta import Json
from shared.manifests.selector import value_error


def draft_of(raw: Json) -> Json:
    return copy.deepcopy(raw)


def section(parent: Json, key: str) -> Json | None:
    """The object under `key`, made if absent; None where something else stands there."""
    if parent.get(key) is None:
        parent[key] = {}
    value = parent[key]
    return cast("Json", value) if isinstance(value, dict) else None


def existing(parent: Json, key: str) -> Json | None:
    """The object under `key` if there is one."""
    value = parent.get(key)
    return cast("Json", value) if isinstance(value, dict) else None


def default(parent: Json, **members: Any) -> None:
    """Gives each absent (or null) member its value."""
    for key, value in members.items():
        if parent.get(key) is None:
            parent[key] = copy.deepcopy(value)


def texts(parent: Json, key: str) -> list[str] | None:
    """The list of strings under `key`; None where there is none."""
    value = parent.get(key)
    if not isinstance(value, list):
        return None
    items = cast("list[object]", value)
    return cast("list[str]", items) if all(isinstance(item, str) for item in items) else None


def text(parent: Json, key: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) else ""


def terminating(raw: Json) -> bool:
    meta = existing(raw, "metadata")
    return meta is not None and bool(meta.get("deletionTimestamp"))


def finalize(meta: Json, finalizer: str) -> None:
    """Adds the finalizer if it is missing."""
    default(meta, finalizers=[])
    found = texts(meta, "finalizers")
    if found is not None and finalizer not in found:
        found.append(finalizer)


def label(meta: Json, key: str, value: str) -> None:
    labels = section(meta, "labels")
    if labels is not None:
        labels[key] = value


def label_of(meta: Json, key: str) -> str:
    labels = existing(meta, "labels")
    return text(labels, key) if labels is not None else ""


def label_cidr(meta: Json, key: str, cidr: str) -> None:
    """Labels an object with its CIDR: `172.18.40.0/24` → `172-18-40-0-24`. A CIDR below `::` makes no label value: none then."""
    value = cidr.replace(".", "-", 3).replace(":", "-", 7).replace("/", "-", 1)
    if value_error(value) is None:
        label(meta, key, value)
