"""YAML as Kubernetes reads it. Expectations are those of sigs.k8s.io/yaml (go-yaml v2 resolve.go, then JSON)."""

from __future__ import annotations

from typing import Any

import pytest

from shared.manifests.scalar import resolve
from shared.manifests.yamltree import NODES_MAX, load


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("On", True),
        ("y", True),
        ("no", False),
        ("OFF", False),
        ("n", False),
        ("yEs", "yEs"),
        ("~", None),
        ("", None),
        ("Null", None),
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b101", 5),
        ("-0b101", -5),
        ("08", 8),
        ("1_000", 1000),
        ("+1", 1),
        ("++1", "++1"),
        ("+", "+"),
        ("1e3", 1000),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1),
        ("12:30", "12:30"),
        ("01:10", "01:10"),
        ("190:20:30", "190:20:30"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("10.6.0.1", "10.6.0.1"),
        ("18446744073709551615", (1 << 64) - 1),
        ("99999999999999999999", 100000000000000000000),
        ("fd00::1", "fd00::1"),
        ("1.0.0", "1.0.0"),
        ("<<", "<<"),
    ],
)
def test_plain_scalars(text: str, value: Any) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_quoted_scalars_and_tags_stay_strings() -> None:
    (tree,) = load("- \"yes\"\n- '010'\n- !!str 5\n- |\n  on\n")
    assert tree.value == ["yes", "010", "5", "on\n"]
    assert not tree.errors


def test_keys_become_strings_and_are_compared_as_such() -> None:
    (tree,) = load("on: 1\n5: a\n1.5: b\ntrue: 2\n")
    assert tree.value == {"true": 1, "5": "a", "1.5": "b"}
    assert [(error.field, error.code, line) for error, line in tree.errors] == [("true", "Duplicate", 4)]


def test_lines_of_members_items_and_flow() -> None:
    (tree,) = load("a:\n  b:\n  - x\n  - {c: 1,\n     d: 2}\n")
    assert tree.lines[("a",)] == 1
    assert tree.lines[("a", "b")] == 2
    assert tree.lines[("a", "b", "1")] == 4
    assert tree.lines[("a", "b", "1", "d")] == 5
    assert tree.line_of(("a", "b", "1", "nothing", "there")) == 4
    assert tree.line_of(("elsewhere",)) == 1


def test_documents_are_apart_and_one_that_is_broken_hides_no_other() -> None:
    trees = load("a: 1\n---\nb: [\n--- # a comment\nc: 3\n---\n---\n")
    assert [tree.value for tree in trees] == [{"a": 1}, None, {"c": 3}]
    error, line = trees[1].errors[0]
    assert error.code == "Unreadable"
    assert line == 3 or line == 4
    assert trees[2].line == 5


def test_a_tab_is_named_with_its_line() -> None:
    (tree,) = load("a: 1\nb:\n\tc: 1\n")
    error, line = tree.errors[0]
    assert line == 3
    assert "tab" in error.message


def test_comments_before_the_first_document_and_directives() -> None:
    assert [tree.value for tree in load("# a licence\n---\na: 1\n")] == [{"a": 1}]
    assert [tree.value for tree in load("%YAML 1.1\n---\na: 1\n")] == [{"a": 1}]
    assert load("") == []
    assert load("---\n---\n# nothing\n") == []


def test_a_block_scalar_may_hold_lines_of_dashes_when_indented() -> None:
    (tree,) = load("a: |\n  ---\n  b\n")
    assert tree.value == {"a": "---\nb\n"}


def test_merges_and_aliases() -> None:
    (tree,) = load("base: &b {x: 1, w: 2}\none: {<<: *b, w: 3}\nmany: {<<: [*b, {x: 9, z: 4}]}\n")
    assert tree.value["one"] == {"x": 1, "w": 3}
    assert tree.value["many"] == {"x": 1, "w": 2, "z": 4}
    (wrong,) = load("a: {<<: 5}\n")
    assert "<< takes a map" in wrong.errors[0][0].message


def test_json_and_a_byte_order_mark() -> None:
    assert load('\ufeff{"a": [1, {"b": null}]}')[0].value == {"a": [1, {"b": None}]}


def test_json_that_is_no_yaml() -> None:
    assert load('{\n\t"a": 1.0,\n\t"b": [\n\t\t"c"\n\t]\n}\n')[0].value == {"a": 1, "b": ["c"]}
    assert load('{"a": "\\ud83d\\ude00"}')[0].value == {"a": "\U0001f600"}
    assert load('{"a": "\\ud83d"}')[0].errors


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        "{a: " * 50_000,
        "- " * 50_000,
        "? " * 50_000,
        "a: *b",
        "a: &a [*a]",
        "? [a]\n: 1",
        "a: .inf",
        "{~: 1}",
    ],
)
def test_what_has_no_meaning_is_an_error_and_never_raises(text: str) -> None:
    assert any(tree.errors for tree in load(text))


def test_a_bomb_of_aliases_ends() -> None:
    levels = [f"l{i}: &l{i} [{','.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 10)]
    (tree,) = load("\n".join(["l0: &l0 [x]", *levels]))
    assert any(str(NODES_MAX) in error.message for error, _ in tree.errors)


def test_numbers_that_json_has_not() -> None:
    (tree,) = load("a: .nan\nb: 1\n")
    assert tree.errors[0][0].field == "a"
    assert tree.errors[0][1] == 1
