"""Label selectors, by the table of apimachinery's own semantics."""

from __future__ import annotations

import pytest

from shared.manifests.meta import LabelSelector, Requirement
from shared.manifests.selector import is_empty, key_error, label_errors, matches, selector_errors, value_error


def require(key: str, operator: str, *values: str) -> LabelSelector:
    return LabelSelector(match_expressions=(Requirement(key=key, operator=operator, values=values),))


@pytest.mark.parametrize(
    ("selector", "labels", "wanted"),
    [
        (LabelSelector(), {}, True),
        (LabelSelector(match_labels={"a": "1"}), {"a": "1", "b": "2"}, True),
        (LabelSelector(match_labels={"a": "1"}), {"a": "2"}, False),
        (LabelSelector(match_labels={"a": ""}), {}, False),
        (require("a", "In", "1", "2"), {"a": "2"}, True),
        (require("a", "In", "1"), {}, False),
        (require("a", "NotIn", "1"), {"a": "2"}, True),
        (require("a", "NotIn", "1"), {}, True),
        (require("a", "NotIn", "1"), {"a": "1"}, False),
        (require("a", "Exists"), {"a": ""}, True),
        (require("a", "Exists"), {}, False),
        (require("a", "DoesNotExist"), {}, True),
        (require("a", "DoesNotExist"), {"a": ""}, False),
        (require("a", "Gt", "1"), {"a": "2"}, False),
    ],
)
def test_matching(selector: LabelSelector, labels: dict[str, str], wanted: bool) -> None:
    assert matches(selector, labels) is wanted


def test_validity_with_paths() -> None:
    selector = LabelSelector(
        match_labels={"bad key": "x", "a": "not ok!"},
        match_expressions=(
            Requirement(key="a", operator="In"),
            Requirement(key="a", operator="Exists", values=("1",)),
            Requirement(key="-", operator="Near", values=()),
            Requirement(key="a", operator="NotIn", values=("ok", "-bad")),
        ),
    )
    assert [(one.field, one.code) for one in selector_errors(selector, "s")] == [
        ("s.matchLabels[bad key]", "Invalid"),
        ("s.matchLabels[a]", "Invalid"),
        ("s.matchExpressions[0].values", "Required"),
        ("s.matchExpressions[1].values", "Forbidden"),
        ("s.matchExpressions[2].key", "Invalid"),
        ("s.matchExpressions[2].operator", "NotSupported"),
        ("s.matchExpressions[3].values[1]", "Invalid"),
    ]


def test_keys_and_values() -> None:
    for good in ("a", "ipam.spidernet.io/app-name", "A_b.c-d", "x" * 63):
        assert key_error(good) is None
    for bad in ("", "/a", "a/", "x" * 64, "-a", "A.B/c", "a b", f"{'x' * 254}/a", "ä"):
        assert key_error(bad) is not None
    assert value_error("") is None
    assert value_error("x" * 64) is not None
    assert label_errors({"a": "b"}, "p") == []
    assert is_empty(LabelSelector())
    assert not is_empty(LabelSelector(match_labels={"a": ""}))
