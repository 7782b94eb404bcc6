"""Subject tokens: one-to-one, safe for NATS, and never outside the permissions made from the same table."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared import subjects
from shared.subjects import token, untoken

names = st.text(max_size=60) | st.from_regex(r"[a-z0-9.-]{1,40}", fullmatch=True)


@given(names)
@example("")
@example("_")
@example("=5F")
@example("a.b")
@example("*")
@example(">")
@example("n1 n2\t\r\n\x00")
def test_a_token_comes_back(text: str) -> None:
    assert untoken(token(text)) == text


@given(names)
def test_a_token_is_one_plain_nats_token(text: str) -> None:
    encoded = token(text)
    assert encoded and encoded.isascii() and encoded.isprintable()
    assert not set(encoded) & set(" .*>\t\r\n\x00")


@given(names, names)
def test_two_texts_never_share_a_token(one: str, other: str) -> None:
    assert (token(one) == token(other)) == (one == other)


@pytest.mark.parametrize("text", ["n1", "node-1", "rack_1", "A9"])
def test_plain_names_stay_as_they_are(text: str) -> None:
    assert token(text) == text


@given(st.text(alphabet="=0123456789abcdefABCDEF_-.é* ", max_size=12))
@example("=5f")
@example("=4")
@example("=41")
@example("a=")
@example("= 1")
@example("a.b")
@example("=FF")
def test_untoken_takes_only_what_token_makes(encoded: str) -> None:
    try:
        text = untoken(encoded)
    except ValueError:
        return
    assert token(text) == encoded


def matches(pattern: str, subject: str) -> bool:
    """NATS subject matching: `*` is one token, `>` one or more at the end."""
    wanted, given_tokens = pattern.split("."), subject.split(".")
    for i, part in enumerate(wanted):
        if part == ">":
            return len(given_tokens) > i
        if i >= len(given_tokens) or part not in ("*", given_tokens[i]):
            return False
    return len(wanted) == len(given_tokens)


@given(names, names, names)
def test_every_built_subject_is_in_its_stream(kind: str, namespace: str, name: str) -> None:
    built = {
        "FACTS": subjects.facts(kind, namespace, name),
        "LEASES": subjects.lease(name, 3),
        "SNAPSHOTS": subjects.snapshot(name, 5, "manifest"),
        "LEAD": subjects.lead(name),
        "RELEASES": subjects.release(name),
        "ATTACH": subjects.attach(name),
        "SPANS": subjects.span(kind, name),
        "INVENTORY": subjects.inventory(name),
        "DISAGREEMENTS": subjects.disagreement(name),
    }
    for stream in subjects.STREAMS:
        for other, subject in built.items():
            assert any(matches(p, subject) for p in stream.subjects) == (other == stream.name)


@given(st.tuples(names, names, names), st.tuples(names, names, names))
def test_two_objects_never_share_a_subject(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (subjects.facts(*one) == subjects.facts(*other)) == (one == other)


def test_the_synced_mark_is_no_objects_subject() -> None:
    # kinds begin with a capital, and no object is without a name
    assert subjects.facts("synced", "", "") == subjects.FACTS_SYNCED


@given(names, names)
def test_a_node_may_not_speak_for_another(node: str, other: str) -> None:
    allowed = subjects.leaf_link(node)
    spoken = [
        subjects.allocate(other),
        subjects.release(other),
        subjects.attach(other),
        subjects.witness(other),
        subjects.inventory(other),
        subjects.span("agent", other),
    ]
    for subject in spoken:
        assert any(matches(p, subject) for p in allowed.publish) == (node == other)
    for subject in (f"{subjects.node_inbox(other)}.x", subjects.ask_agent(other)):
        assert any(matches(p, subject) for p in allowed.subscribe) == (node == other)


@given(names)
def test_no_node_gets_at_the_log_or_the_facts(node: str) -> None:
    forbidden = [
        subjects.lease("i", 1),
        subjects.snapshot("i", 1, "1"),
        subjects.lead("allocator"),
        subjects.facts("Pod", "a", "b"),
        subjects.FACTS_SYNCED,
        "$JS.API.STREAM.PURGE.LEASES",
        "$JS.API.STREAM.CREATE.FACTS",
    ]
    for permissions in (subjects.leaf_link(node), *subjects.node_identities(node).values()):
        for subject in forbidden:
            assert not any(matches(p, subject) for p in permissions.publish)


@given(names)
def test_the_shims_subjects_never_leave_the_node(node: str) -> None:
    link = subjects.leaf_link(node)
    for subject in (subjects.cni(node), f"{subjects.inbox('shim')}.x"):
        assert not any(matches(p, subject) for p in (*link.publish, *link.subscribe))
        assert any(matches(p, subject) for p in subjects.LEAF_DENY)


@given(names, st.sampled_from(sorted(subjects.HUB_IDENTITIES)))
def test_no_inbox_of_a_node_is_a_services(node: str, identity: str) -> None:
    subject = f"{subjects.inbox(identity)}.abc.1"
    assert not any(matches(p, subject) for p in subjects.leaf_link(node).subscribe)
