"""Leadership by a Lease: when it is free, what is written, when the store has forgotten."""

from __future__ import annotations

import msgspec

from services.controller.lease import DURATION_S, Lease, Observer, body, is_before, read


def lease(holder: str, now_s: float, before: Lease | None = None, version: str = "1") -> Lease:
    written = body("kube-system", "l", holder, before, now_s)
    written["metadata"]["resourceVersion"] = version
    return read(msgspec.json.encode(written))


def test_a_lease_is_free_when_it_did_not_change_for_its_duration_by_our_own_clock() -> None:
    observer = Observer()
    first = lease("a", 1_000_000.0)
    assert not observer.is_free(first, 10.0)
    assert not observer.is_free(first, 10.0 + DURATION_S - 1)
    renewed = lease("a", 5.0, first)
    assert not observer.is_free(renewed, 10.0 + DURATION_S + 5), "whatever time the holder's clock shows"
    assert observer.is_free(renewed, 10.0 + 2 * DURATION_S + 5)


def test_one_that_was_given_back_is_free_at_once() -> None:
    assert Observer().is_free(lease("", 5.0, lease("a", 1.0)), 0.0)


def test_a_new_holder_counts_as_a_transition_and_a_renewal_does_not() -> None:
    first = lease("a", 1.0)
    renewed = lease("a", 2.0, first)
    taken = lease("b", 3.0, renewed)
    assert [one.spec.lease_transitions for one in (first, renewed, taken)] == [0, 0, 1]
    assert renewed.spec.acquire_time == first.spec.acquire_time != taken.spec.acquire_time
    assert body("kube-system", "l", "b", renewed, 3.0)["metadata"]["resourceVersion"] == "1"


def test_a_store_that_was_put_back_shows_an_older_lease() -> None:
    before = lease("a", 10.0)
    written = lease("a", 14.0, before)
    assert is_before(before, written)
    assert is_before(None, written)
    assert not is_before(written, written)
    assert not is_before(lease("a", 18.0, written), written), "ours, whose answer was lost"
