"""JSON Patch: applied by a literal reading of RFC 6902, the difference of any two values turns one into the other."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.webhook.patch import diff

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", "a/b", "~", "~1", ""]),
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b/c", "~d", "e"]), below, max_size=4)
    ),
    max_leaves=20,
)


def apply(document: Any, operations: list[dict[str, Any]]) -> Any:
    root = {"": copy.deepcopy(document)}
    for operation in operations:
        steps = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")]
        target: Any = root
        for step in steps[:-1]:
            target = target[int(step)] if isinstance(target, list) else target[step]
        last = steps[-1]
        value = copy.deepcopy(operation.get("value"))
        if isinstance(target, list):
            match operation["op"]:
                case "add":
                    target.insert(len(target) if last == "-" else int(last), value)
                case "remove":
                    del target[int(last)]
                case _:
                    target[int(last)] = value
        elif operation["op"] == "remove":
            del target[last]
        else:
            assert operation["op"] == "add" or last in target
            target[last] = value
    return root[""]


def same(one: Any, other: Any) -> bool:
    """Equality of JSON: true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(VALUES, VALUES)
def test_the_difference_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    kept = copy.deepcopy(before)
    assert same(apply(before, diff(before, after)), after)
    assert same(before, kept)


@given(VALUES)
def test_equal_values_need_nothing(value: Any) -> None:
    assert diff(value, copy.deepcopy(value)) == []
