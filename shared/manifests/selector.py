"""Label selectors: are they valid, and do they match?

Owns the semantics of metav1.LabelSelector (apimachinery, labels/selector.go): an empty selector matches everything, `NotIn` and
`DoesNotExist` match where the label is absent. Must not know what carries the labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shared.manifests.meta import LabelSelector, Requirement
from shared.manifests.problem import FieldError, entry, invalid, member

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether every requirement holds. An operator that does not exist matches nothing."""
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _holds(requirement, labels) for requirement in selector.match_expressions
    )


def _holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False


def is_empty(selector: LabelSelector) -> bool:
    return not selector.match_labels and not selector.match_expressions


def key_error(key: str) -> str | None:
    """Why `key` is not a label or annotation key (`[dns-subdomain/]name`), or None."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not _PREFIX.fullmatch(prefix) or len(prefix) > 253):
        return f"the prefix of {key[:80]!r} must be a DNS-1123 subdomain"
    if not _NAME.fullmatch(name):
        return f"{key[:80]!r} must be at most 63 letters, digits, '-', '_' and '.', with an optional prefix and '/'"
    return None


def value_error(value: str) -> str | None:
    """Why `value` is not a label value, or None."""
    if value and not _NAME.fullmatch(value):
        return (
            f"{value[:80]!r} must be empty or at most 63 letters, digits, '-', '_' and '.', ends alphanumeric"
        )
    return None


def label_errors(labels: Mapping[str, str], path: str) -> list[FieldError]:
    """All keys and values that the API server refuses as labels."""
    out: list[FieldError] = []
    for key, value in labels.items():
        sentence = key_error(key) or value_error(value)
        if sentence:
            out.append(invalid(entry(path, key), sentence))
    return out


def selector_errors(selector: LabelSelector, path: str) -> list[FieldError]:
    """All that makes a selector invalid (apimachinery, metav1/validation)."""
    out = label_errors(selector.match_labels, member(path, "matchLabels"))
    for i, requirement in enumerate(selector.match_expressions):
        here = entry(member(path, "matchExpressions"), i)
        sentence = key_error(requirement.key)
        if sentence:
            out.append(invalid(member(here, "key"), sentence))
        match requirement.operator:
            case "In" | "NotIn":
                if not requirement.values:
                    out.append(
                        invalid(
                            member(here, "values"), f"must be given for {requirement.operator}", "Required"
                        )
                    )
                for j, value in enumerate(requirement.values):
                    wrong = value_error(value)
                    if wrong:
                        out.append(invalid(entry(member(here, "values"), j), wrong))
            case "Exists" | "DoesNotExist":
                if requirement.values:
                    out.append(
                        invalid(
                            member(here, "values"),
                            f"may not be given for {requirement.operator}",
                            "Forbidden",
                        )
                    )
            case other:
                out.append(
                    invalid(
                        member(here, "operator"),
                        f"{other!r} is not one of {', '.join(OPERATORS)}",
                        "NotSupported",
                    )
                )
    return out
