"""Does a JSON value have the shape of a type? All that does not fit, at once, with paths.

Owns the comparison of values with msgspec types, and decoding (null members count as absent, as the API server has them).
msgspec's own decoder stops at the first mistake. Must not know any kind or rule.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect

from shared.manifests.meta import ObjectMeta, Part
from shared.manifests.problem import FieldError, Invalid, entry, invalid, member

HINTS_MAX = 20
"""Unknown members that are compared with all known ones: the comparison is slow, and nobody reads more."""

T = TypeVar("T", bound=msgspec.Struct)


class Misfits(msgspec.Struct, frozen=True, kw_only=True):
    """`errors` are values of a wrong type; `unknown` are members that the type does not have."""

    errors: tuple[FieldError, ...]
    unknown: tuple[FieldError, ...]


def misfits(type_: type[msgspec.Struct], value: object, path: str = "", *, whole: bool = False) -> Misfits:
    """Everything about `value` that does not fit `type_`. Never raises. Only a `whole` type has unknown members: of the kinds of
    Kubernetes itself we have parts."""
    errors: list[FieldError] = []
    unknown: list[FieldError] | None = [] if whole else None
    _walk(_info(type_), value, path, errors, unknown)
    return Misfits(errors=tuple(errors), unknown=tuple(unknown or ()))


def decode(type_: type[T], value: object, path: str = "") -> T | Invalid:
    """The typed object, or all that keeps `value` from being one. Unknown members are ignored."""
    try:
        return msgspec.convert(without_nulls(value), type_)
    except (msgspec.ValidationError, RecursionError):
        errors = misfits(type_, value, path).errors
        return Invalid(
            errors=errors or (invalid(path, f"the object does not fit {type_.__name__}", "TypeInvalid"),)
        )


def lenient(type_: type[T], value: object, path: str = "") -> tuple[T | Invalid, tuple[FieldError, ...]]:
    """What of `value` fits `type_`, and all that does not: a member of a wrong type is absent, an element or entry of a wrong type is
    empty, so that the others keep their places. `Invalid` where nothing of it fits."""
    found = decode(type_, value, path)
    if not isinstance(found, Invalid):
        return found, ()
    fitting = _fitting(_info(type_), without_nulls(value))
    return decode(type_, fitting, path), found.errors


def besides(errors: Iterable[FieldError], said: Iterable[FieldError]) -> list[FieldError]:
    """The errors about fields of which nothing is said yet: what a rule says of a member that could not be read is noise."""
    fields = [error.field for error in said]
    return [
        error
        for error in errors
        if not any(
            error.field == field or not field or error.field.startswith((f"{field}.", f"{field}["))
            for field in fields
        )
    ]


def _fitting(info: inspect.Type, value: Any) -> Any:
    """`value` without what does not fit; UNSET where it does not fit itself."""
    if isinstance(info, inspect.UnionType):
        info = next(one for one in info.types if not isinstance(one, inspect.NoneType))
    match info:
        case inspect.StructType():
            if not isinstance(value, dict):
                return msgspec.UNSET
            types = {field.encode_name: field.type for field in info.fields}
            members = {
                key: _fitting(types[key], item) if key in types else item
                for key, item in cast("dict[str, Any]", value).items()
            }
            return {key: item for key, item in members.items() if item is not msgspec.UNSET}
        case inspect.VarTupleType() | inspect.ListType():
            if not isinstance(value, list):
                return msgspec.UNSET
            return [_fitting_or_empty(info.item_type, item) for item in cast("list[Any]", value)]
        case inspect.DictType():
            if not isinstance(value, dict):
                return msgspec.UNSET
            entries = cast("dict[str, Any]", value)
            return {key: _fitting_or_empty(info.value_type, item) for key, item in entries.items()}
        case _:
            errors: list[FieldError] = []
            _walk(info, value, "", errors, None)
            return msgspec.UNSET if errors else value


def _fitting_or_empty(info: inspect.Type, value: Any) -> Any:
    found = _fitting(info, value)
    if found is not msgspec.UNSET:
        return found
    match info:
        case inspect.StructType() | inspect.DictType():
            return {}
        case inspect.VarTupleType() | inspect.ListType():
            return []
        case inspect.IntType():
            return 0
        case inspect.BoolType():
            return False
        case _:
            return ""


def without_nulls(value: object) -> Any:
    """A copy in which members that are null are absent."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return {key: without_nulls(item) for key, item in members.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in cast("list[object]", value)]
    return value


@cache
def _info(type_: type[msgspec.Struct]) -> inspect.Type:
    return inspect.type_info(type_)


def _walk(
    info: inspect.Type, value: object, path: str, errors: list[FieldError], unknown: list[FieldError] | None
) -> None:
    if isinstance(info, inspect.UnionType):
        kinds = [one for one in info.types if not isinstance(one, inspect.NoneType)]
        if value is None:
            return
        info = kinds[0]
    match info:
        case inspect.StructType():
            if isinstance(value, dict):
                _walk_members(info, cast("dict[str, object]", value), path, errors, unknown)
                return
            wanted = "an object"
        case inspect.VarTupleType() | inspect.ListType():
            if isinstance(value, list | tuple):
                for i, item in enumerate(cast("list[object]", value)):
                    _walk(info.item_type, item, entry(path, i), errors, unknown)
                return
            wanted = "a list"
        case inspect.DictType():
            if isinstance(value, dict):
                for key, item in cast("dict[str, object]", value).items():
                    if item is not None:
                        _walk(info.value_type, item, entry(path, key), errors, unknown)
                return
            wanted = "a map"
        case inspect.StrType():
            if isinstance(value, str):
                return
            quote = isinstance(value, bool | int | float)
            wanted = "a string (quote the value)" if quote else "a string"
        case inspect.BoolType():
            if isinstance(value, bool):
                return
            wanted = "true or false"
        case inspect.IntType():
            if isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < (1 << 63):
                return
            wanted = "an integer of 64 bits" if type(value) is int else "an integer"
        case _:
            return
    errors.append(invalid(path, f"must be {wanted}, not {_describe(value)}", "TypeInvalid"))


def _walk_members(
    info: inspect.StructType,
    value: dict[str, object],
    path: str,
    errors: list[FieldError],
    unknown: list[FieldError] | None,
) -> None:
    fields = {field.encode_name: field for field in info.fields}
    for key, item in value.items():
        field = fields.get(key)
        if field is not None:
            if item is not None:
                _walk(field.type, item, member(path, key), errors, unknown)
        elif unknown is not None and issubclass(info.cls, Part) and info.cls is not ObjectMeta:
            near = (
                difflib.get_close_matches(key, fields, n=1)
                if len(unknown) < HINTS_MAX and len(key) < 64
                else []
            )
            hint = f"; did you mean {near[0]}?" if near else ""
            unknown.append(invalid(member(path, key), f"unknown field, it has no effect{hint}", "Unknown"))


def _describe(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {'true' if value else 'false'}"
    if isinstance(value, int | float):
        return f"the number {value}" if abs(value) < 1e18 else "a number"
    if isinstance(value, str):
        return f"the string {value[:64]!r}"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"
