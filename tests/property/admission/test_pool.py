"""What holds for every pool."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.admission.rules import admit, mutate, validate
from shared.admission.view import Objects
from shared.net.ranges import IntervalSet
from tests.property.admission.strategies import valid_pool

Json = dict[str, Any]


def addresses(raw: Json, key: str) -> IntervalSet:
    return IntervalSet.parse(
        raw["spec"].get(key, ()), raw["spec"].get("ipVersion") or (6 if ":" in raw["spec"]["subnet"] else 4)
    )


@given(valid_pool())
def test_a_valid_pool_is_valid_and_stays_so(raw: Json) -> None:
    view = Objects()
    stored, verdict = admit(raw, None, view)
    assert verdict.valid, verdict.errors
    view.put(stored)
    again, verdict = admit(raw, stored, view)
    assert verdict.valid, verdict.errors
    assert again == stored


@given(valid_pool())
def test_defaulting_twice_changes_nothing_more(raw: Json) -> None:
    once = mutate(raw, Objects())
    assert mutate(once, Objects()) == once


@given(valid_pool())
def test_the_canonical_form_means_the_same_addresses(raw: Json) -> None:
    once = mutate(raw, Objects())
    for key in ("ips", "excludeIPs"):
        assert addresses(once, key) == addresses(raw, key)
        if len(raw["spec"][key]) > 1:
            assert once["spec"][key] == addresses(raw, key).texts(once["spec"]["ipVersion"])


@given(valid_pool(), valid_pool("b"), st.booleans())
def test_two_pools_are_both_in_force_only_without_a_common_address(
    one: Json, other: Json, same_subnet: bool
) -> None:
    if same_subnet:
        other["spec"]["subnet"] = one["spec"]["subnet"]
        other["spec"]["ips"] = one["spec"]["ips"][:2]
        other["spec"].pop("gateway", None)
        other["spec"].pop("ipVersion", None)
        other["spec"]["excludeIPs"] = []
    view = Objects([mutate(one, Objects())])
    stored, verdict = admit(other, None, view)
    if verdict.valid and one["spec"]["subnet"] == stored["spec"]["subnet"]:
        mine = addresses(stored, "ips").subtract(addresses(stored, "excludeIPs"))
        theirs = addresses(one, "ips").subtract(addresses(one, "excludeIPs"))
        assert not mine.intersect(theirs)
    assert verdict.valid == validate("CREATE", stored, None, view).valid


@given(valid_pool(), st.data())
def test_no_update_takes_a_leased_address(raw: Json, data: st.DataObject) -> None:
    stored = mutate(raw, Objects())
    total = addresses(stored, "ips").subtract(addresses(stored, "excludeIPs"))
    if not total:
        return
    leased = total.firsts[0]
    family = stored["spec"]["ipVersion"]
    from shared.net.ranges import format_address

    view = Objects([stored], leases={"a": {format_address(leased, family): "x/p"}})
    texts = data.draw(st.lists(st.sampled_from(stored["spec"]["ips"]), unique=True))
    changed = {**stored, "spec": {**stored["spec"], "ips": texts}}
    _, verdict = admit(changed, stored, view)
    if verdict.valid:
        assert leased in addresses(changed, "ips").subtract(addresses(changed, "excludeIPs"))
