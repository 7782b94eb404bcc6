"""The generated manifests are fresh, and the API server's part of the rules covers every member."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.generate import HERE, files
from shared.manifests.crd.definition import RULES, definitions, network_attachment_definition
from shared.manifests.crd.schema import schema_of
from shared.manifests.ipam import Route

GENERATED = files()


@pytest.mark.parametrize("path", GENERATED, ids=str)
def test_what_is_generated_is_fresh(path: Path) -> None:
    assert (HERE / path).read_text() == GENERATED[path], "run `python -m deploy.generate`"


def test_nothing_else_stands_among_the_crds() -> None:
    found = {path.relative_to(HERE) for path in (HERE / "crds").rglob("*") if path.is_file()}
    assert found == {path for path in GENERATED if path.parts[0] == "crds"}


def _walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, member in schema.get("properties", {}).items():
        yield from _walk(member, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from _walk(schema[key], f"{path}{mark}")


SCHEMAS = [
    (path, schema)
    for one in (*definitions().values(), network_attachment_definition())
    for path, schema in _walk(
        one["spec"]["versions"][0]["schema"]["openAPIV3Schema"], one["spec"]["names"]["kind"]
    )
]


@pytest.mark.parametrize(("path", "schema"), SCHEMAS, ids=[path for path, _ in SCHEMAS])
def test_every_member_is_described_and_every_integer_has_its_width(path: str, schema: dict[str, Any]) -> None:
    assert schema["type"] in ("object", "array", "string", "integer", "boolean")
    if schema["type"] == "integer":
        assert schema["format"] in ("int32", "int64")
    name = path.rpartition(".")[2]
    if name not in ("apiVersion", "kind", "metadata", "spec", "status") and not name.endswith(("[]", "{}")):
        assert schema.get("description"), path


def test_a_rule_for_a_member_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="Route has no member via"):
        schema_of(Route, {Route: {"via": {"description": "x"}}})


def test_every_rule_is_of_a_type_that_is_used() -> None:
    used: set[type] = set()

    def look(type_: Any) -> None:
        info = msgspec.inspect.type_info(type_)
        stack = [info]
        while stack:
            one = stack.pop()
            if isinstance(one, msgspec.inspect.StructType):
                used.update(one.cls.__mro__)
                stack += [field.type for field in one.fields]
            elif isinstance(one, msgspec.inspect.UnionType):
                stack += list(one.types)
            elif isinstance(one, msgspec.inspect.VarTupleType):
                stack.append(one.item_type)

    from shared.manifests.kinds import KINDS

    for kind in KINDS:
        if kind.ours or kind.kind == "NetworkAttachmentDefinition":
            look(kind.type)
    assert set(RULES) <= used
