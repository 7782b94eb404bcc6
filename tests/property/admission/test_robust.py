"""No input raises, whatever it is, and a refusal always says where and why."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.webhook import review
from shared.admission.judge import judge_files, report
from shared.admission.rules import admit, asks_leases, mutate, validate
from shared.admission.view import Objects, key_of
from shared.manifests import annotations as notes
from shared.manifests import document, settings, wildcard
from shared.manifests.networks import default_network, networks
from shared.manifests.problem import Invalid, segments
from shared.manifests.yamltree import load
from tests.property.admission.strategies import VALUES, anything, valid_pool

Json = dict[str, Any]
YAML_TEXT = st.text(
    st.sampled_from("abkind:-[]{}'\"#&*!|>%?,\n\t 0x1.~<@=\\/yesno\r"), max_size=60
) | st.text(max_size=40)
JSONISH = VALUES.map(json.dumps) | st.text(max_size=40) | YAML_TEXT


@given(anything(), anything())
def test_defaulting_and_judging_never_raise(raw: Json, old: Json) -> None:
    before = copy.deepcopy(raw)
    view = Objects([old])
    once = mutate(raw, view)
    assert raw == before
    assert mutate(once, view) == once
    admit(raw, None, view)
    for operation in ("CREATE", "UPDATE", "DELETE"):
        verdict = validate(operation, once, old, view)
        assert verdict.valid == (verdict.status == 200)
        assert all(error.message for error in verdict.errors)
        asks_leases(operation, once, old, view)


@given(st.lists(anything(), max_size=4), valid_pool())
def test_the_others_never_make_it_raise(others: list[Json], raw: Json) -> None:
    view = Objects(others)
    admit(raw, None, view)
    view.put(raw)
    view.remove(key_of(raw))


@given(st.lists(anything() | VALUES, max_size=3))
def test_sets_of_manifests_are_judged_whatever_they_hold(objects: list[Any]) -> None:
    file = document.parse("\n---\n".join(json.dumps(one) for one in objects), "f.yaml")
    judgements = judge_files([file], Objects())
    json.dumps(report(judgements))
    for judgement in judgements:
        assert judgement.valid == (judgement.admitted is not None)


@given(YAML_TEXT)
def test_any_text_is_read_as_yaml_or_refused(text: str) -> None:
    for tree in load(text):
        for error, line in tree.errors:
            assert error.message
            assert 1 <= line <= 2 + sum(character in "\n\r\x85\u2028\u2029" for character in text)
    file = document.parse(text, "f.yaml")
    json.dumps([one.raw for one in file.documents])
    for problem in file.problems:
        assert str(problem)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    document.parse(content, "f.yaml")


@given(VALUES)
def test_json_is_yaml(value: Any) -> None:
    (tree,) = load(json.dumps({"a": value}))
    assert json.dumps(tree.value) == json.dumps(_whole({"a": value}))


def _whole(value: Any) -> Any:
    """Numbers as Go prints them: 1.0 is 1."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {key: _whole(item) for key, item in value.items()} if isinstance(value, dict) else value


@given(JSONISH)
def test_annotations_are_read_or_refused(text: str) -> None:
    for parser in (
        notes.ippool,
        notes.ippools,
        notes.subnet,
        notes.subnets,
        notes.routes,
        notes.default_route_nic,
        notes.ip_number,
        notes.reclaim,
        lambda one: notes.default_pools(one, notes.DEFAULT_IPV4_IPPOOL),
        lambda one: networks(one, "x"),
        lambda one: default_network(one, "x"),
    ):
        value = parser(text)
        if isinstance(value, Invalid):
            assert value.errors
            assert all(
                error.field.startswith("metadata.annotations[") and error.message for error in value.errors
            )


@given(st.text(st.sampled_from("ab*?[]^-\\/"), max_size=12), st.text(st.sampled_from("ab-/^]"), max_size=8))
def test_patterns_fit_or_are_refused(pattern: str, name: str) -> None:
    if wildcard.pattern_error(pattern):
        assert not wildcard.matches(pattern, name)
    else:
        assert wildcard.matches(pattern, name) == _go_match(pattern, name)


def _go_match(pattern: str, name: str) -> bool:
    """path.Match by definition: tries everything."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return _go_match(pattern[1:], name) or (name[:1] not in ("", "/") and _go_match(pattern, name[1:]))
    if not name:
        return False
    if pattern[0] == "?":
        return name[0] != "/" and _go_match(pattern[1:], name[1:])
    if pattern[0] == "[":
        i, negated, hit = 1, False, False
        if pattern[1] == "^":
            i, negated = 2, True
        seen = False
        while pattern[i] != "]" or not seen:
            seen = True
            low, i = _character(pattern, i)
            high = low
            if pattern[i] == "-":
                high, i = _character(pattern, i + 1)
            hit = hit or low <= name[0] <= high
        return hit is not negated and _go_match(pattern[i + 1 :], name[1:])
    character, i = _character(pattern, 0)
    return character == name[0] and _go_match(pattern[i:], name[1:])


def _character(pattern: str, i: int) -> tuple[str, int]:
    return (pattern[i + 1], i + 2) if pattern[i] == "\\" else (pattern[i], i + 1)


@given(YAML_TEXT | VALUES.map(json.dumps))
def test_settings_are_read_or_refused(text: str) -> None:
    found = settings.parse(text)
    if isinstance(found, Invalid):
        assert all(error.field.startswith("data[conf.yml]") for error in found.errors)


@given(st.text(st.sampled_from("ab.[]/"), max_size=12))
def test_paths_are_cut_whatever_they_are(text: str) -> None:
    segments(text)


@given(anything() | VALUES, st.sampled_from(["CREATE", "UPDATE", "DELETE", "CONNECT", ""]), anything())
def test_reviews_are_answered_or_refused(raw: Any, operation: str, old: Json) -> None:
    request = {
        "uid": "1",
        "kind": {"kind": "SpiderIPPool"},
        "operation": operation,
        "object": raw,
        "oldObject": old,
    }
    body = json.dumps(
        {"apiVersion": review.API_VERSION, "kind": "AdmissionReview", "request": request}
    ).encode()
    try:
        decoded = review.decode(body)
    except ValueError:
        return
    for verb, kind in review.PATHS.values():
        answer = review.answer(verb, kind, decoded, Objects([old]))["response"]
        assert answer["uid"] == "1"
        assert answer["allowed"] or answer["status"]["message"]
        json.dumps(answer)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_review_are_refused(body: bytes) -> None:
    try:
        review.decode(body)
    except ValueError as error:
        assert str(error)
