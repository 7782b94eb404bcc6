"""A structural OpenAPI v3 schema from a manifest type and what is known of its members beyond their types.

Owns the walk over msgspec types. `Rules` are keyed by type and member; a member `x[]` is about the items of list `x`, the member
"" about the object itself. Must not know any kind or rule: rule.py modules have them, so that decoding an object stays as
lenient as it is (a constraint in the type would make msgspec refuse the whole object at the first mistake).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import msgspec
from msgspec import inspect

from shared.manifests.meta import Json, ObjectMeta

Rules = Mapping[type[msgspec.Struct], Mapping[str, Json]]
Validation = dict[str, str]


def cel(
    rule: str, message: str = "", *, expression: str = "", reason: str = "", field: str = ""
) -> Validation:
    """One entry of x-kubernetes-validations. `expression` is CEL for the sentence; `message` then stands in where it fails."""
    out = {"rule": rule}
    if message:
        out["message"] = message
    if expression:
        out["messageExpression"] = expression
    if reason:
        out["reason"] = reason
    if field:
        out["fieldPath"] = field
    return out


def valid(*validations: Validation) -> Json:
    return {"x-kubernetes-validations": list(validations)}


def schema_of(type_: type[msgspec.Struct], rules: Rules) -> Json:
    """The schema of an object of this type. Raises ValueError for a rule of a member that the type does not have."""
    return _struct(cast("inspect.StructType", inspect.type_info(type_)), rules)


def _struct(info: inspect.StructType, rules: Rules) -> Json:
    if info.cls is ObjectMeta:
        return {"type": "object"}
    known = _rules_of(info.cls, rules)
    names = {field.encode_name for field in info.fields}
    for name in known:
        if name.removesuffix("[]") not in names and name:
            raise ValueError(f"{info.cls.__name__} has no member {name}")
    properties: Json = {}
    required: list[str] = []
    for field in info.fields:
        rule = copy.deepcopy(known.get(field.encode_name, {}))
        if rule.get("required") is True:
            # as in a table of members one reads it; OpenAPI has it at the object, as a list
            del rule["required"]
            required.append(field.encode_name)
        properties[field.encode_name] = _merged(
            _schema(field.type, rules, known.get(f"{field.encode_name}[]", {})), rule
        )
    out: Json = {"type": "object", "properties": dict(sorted(properties.items()))}
    if required:
        out["required"] = sorted(required)
    return _merged(out, known.get("", {}))


def _rules_of(cls: type[msgspec.Struct], rules: Rules) -> dict[str, Json]:
    """Those of the type and of what it inherits from; the object's own validations add up."""
    out: dict[str, Json] = {}
    for base in reversed(cls.__mro__):
        for name, rule in rules.get(base, {}).items():
            out[name] = _merged(out.get(name, {}), rule)
    return out


def _merged(schema: Json, rule: Json) -> Json:
    """`rule` over `schema`; lists of validations are joined."""
    out = {**schema, **copy.deepcopy(rule)}
    key = "x-kubernetes-validations"
    if key in schema and key in rule:
        out[key] = [*schema[key], *rule[key]]
    return out


def _schema(info: inspect.Type, rules: Rules, item_rule: Json) -> Json:
    if isinstance(info, inspect.UnionType):
        info = next(one for one in info.types if not isinstance(one, inspect.NoneType))
    match info:
        case inspect.StructType():
            return _struct(info, rules)
        case inspect.VarTupleType():
            items = _merged(_schema(info.item_type, rules, {}), item_rule)
            return {"type": "array", "items": items}
        case inspect.DictType():
            return {"type": "object", "additionalProperties": _schema(info.value_type, rules, {})}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            return {"type": "integer"}
        case inspect.StrType():
            return {"type": "string"}
        case _:
            raise ValueError(f"no schema for {info}")
