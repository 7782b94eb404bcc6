"""IntervalSet and the parsers against plain sets, ipaddress and netaddr."""

from __future__ import annotations

import ipaddress
import itertools

import netaddr
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from shared.net.ranges import (
    WIDTH_BITS,
    IntervalSet,
    Network,
    format_address,
    parse_address,
    parse_cidr,
    parse_range,
)

SMALL = 64
interval = st.tuples(st.integers(0, SMALL), st.integers(0, SMALL)).map(lambda ends: (min(ends), max(ends)))
intervals = st.lists(interval, max_size=8)
families = st.sampled_from((4, 6))


def members(pairs: list[tuple[int, int]]) -> set[int]:
    return {value for first, last in pairs for value in range(first, last + 1)}


def listed(of: IntervalSet) -> set[int]:
    return members(list(of))


def assert_normal(of: IntervalSet) -> None:
    pairs = list(of)
    for first, last in pairs:
        assert first <= last
    for (_, last), (first, _) in itertools.pairwise(pairs):
        assert first > last + 1, "sorted, disjoint and not adjacent"


@given(intervals)
def test_a_set_holds_what_was_put_in(pairs: list[tuple[int, int]]) -> None:
    made, oracle = IntervalSet(pairs), members(pairs)
    assert_normal(made)
    assert listed(made) == oracle
    assert made.size() == len(oracle)
    assert bool(made) == bool(oracle)
    assert [value in made for value in range(-1, SMALL + 2)] == [
        value in oracle for value in range(-1, SMALL + 2)
    ]


@given(intervals, intervals)
def test_set_operations_are_those_of_sets(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    a, b = IntervalSet(left), IntervalSet(right)
    for made, oracle in (
        (a.union(b), members(left) | members(right)),
        (a.subtract(b), members(left) - members(right)),
        (a.intersect(b), members(left) & members(right)),
    ):
        assert_normal(made)
        assert listed(made) == oracle
    assert (a == b) == (members(left) == members(right))


@given(intervals, intervals, intervals)
def test_laws_that_admission_relies_on(
    x: list[tuple[int, int]], y: list[tuple[int, int]], z: list[tuple[int, int]]
) -> None:
    a, b, c = IntervalSet(x), IntervalSet(y), IntervalSet(z)
    assert a.subtract(b).intersect(b) == IntervalSet()
    assert a.subtract(b).union(a.intersect(b)) == a
    assert a.subtract(b).subtract(c) == a.subtract(b.union(c))
    assert a.intersect(b) == b.intersect(a)


@given(st.lists(st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1)), max_size=6), st.data())
def test_a_huge_set_costs_what_a_small_one_does(ends: list[tuple[int, int]], data: st.DataObject) -> None:
    pairs = [(min(pair), max(pair)) for pair in ends]
    made = IntervalSet(pairs)
    oracle = netaddr.IPSet(
        cidr
        for first, last in pairs
        for cidr in netaddr.iprange_to_cidrs(netaddr.IPAddress(first, 6), netaddr.IPAddress(last, 6))
    )
    assert made.size() == oracle.size
    for first, last in pairs:
        probe = data.draw(st.integers(first, last))
        assert probe in made
    assert list(made) == [(int(r.first), int(r.last)) for r in oracle.iter_ipranges()]


@given(families, st.data())
def test_ranges_written_come_back_merged(family: int, data: st.DataObject) -> None:
    top = 2 ** WIDTH_BITS[family] - 1
    ends = data.draw(st.lists(st.tuples(st.integers(0, top), st.integers(0, top)), max_size=5))
    made = IntervalSet((min(pair), max(pair)) for pair in ends)
    texts = made.texts(family)
    assert IntervalSet.parse(texts, family) == made
    assert IntervalSet.parse(texts, family).texts(family) == texts


@given(families, st.data())
def test_addresses_come_back(family: int, data: st.DataObject) -> None:
    value = data.draw(st.integers(0, 2 ** WIDTH_BITS[family] - 1))
    text = format_address(value, family)
    assert parse_address(text) == (family, value)
    assert text == str(ipaddress.IPv4Address(value) if family == 4 else ipaddress.IPv6Address(value))


@given(families, st.data())
def test_networks_agree_with_ipaddress(family: int, data: st.DataObject) -> None:
    width = WIDTH_BITS[family]
    value, prefix_len = data.draw(st.integers(0, 2**width - 1)), data.draw(st.integers(0, width))
    text = f"{format_address(value, family)}/{prefix_len}"
    made, oracle = parse_cidr(text), ipaddress.ip_network(text, strict=False)
    assert (made.first, made.last) == (int(oracle.network_address), int(oracle.broadcast_address))
    assert str(made) == str(oracle)
    assert made.first in made and made.last in made
    assert made.first - 1 not in made and made.last + 1 not in made


@given(families, st.data())
def test_overlap_agrees_with_ipaddress(family: int, data: st.DataObject) -> None:
    width = WIDTH_BITS[family]
    near = st.integers(0, 2**12 - 1).map(lambda bits: bits << (width - 12))
    pair = [
        parse_cidr(f"{format_address(data.draw(near), family)}/{data.draw(st.integers(0, 14))}")
        for _ in range(2)
    ]
    oracle = [ipaddress.ip_network(str(one)) for one in pair]
    assert pair[0].overlaps(pair[1]) == oracle[0].overlaps(oracle[1])  # type: ignore[arg-type]


def test_families_never_overlap() -> None:
    assert not Network(4, 0, 0).overlaps(Network(6, 0, 0))


texts = st.text(alphabet="0123456789abcdef:.-/% ", max_size=30) | st.text(max_size=12)


@given(texts, families)
@example("10.0.0.9-10.0.0.1", 4)
@example("10.0.0.1-fd00::1", 4)
@example("10.0.0.1 - 10.0.0.2", 4)
@example("10.0.0.1-10.0.0.2-10.0.0.3", 4)
@example("10.0.0.0/24", 4)
@example("fe80::1%eth0", 6)
@example("", 4)
@example("-", 6)
@example("010.0.0.1", 4)
@example("::ffff:10.0.0.1", 6)
def test_a_text_is_a_range_or_a_value_error(text: str, family: int) -> None:
    try:
        first, last = parse_range(text, family)
    except ValueError as error:
        assert str(error)
        return
    assert 0 <= first <= last < 2 ** WIDTH_BITS[family]
    ends = text.split("-")
    assert len(ends) <= 2 and text == text.strip() and "/" not in text
    for end in ends:
        assert ipaddress.ip_address(end).version == family


@given(texts)
@example("10.0.0.0/33")
@example("10.0.0.0/-1")
@example("10.0.0.0/ 8")
@example("10.0.0.0/٣")
@example("10.0.0.0/255.0.0.0")
@example("10.0.0.0/" + "9" * 10_000)
@example("::/129")
@example("fe80::%1/64")
def test_a_text_is_a_cidr_or_a_value_error(text: str) -> None:
    try:
        made = parse_cidr(text)
    except ValueError as error:
        assert str(error)
        return
    assert str(parse_cidr(str(made))) == str(made)


@pytest.mark.parametrize(
    "text", ["10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "fd00::1", "10.0.0.0/24", " 10.0.0.1"]
)
def test_these_are_no_ipv4_ranges(text: str) -> None:
    with pytest.raises(ValueError, match="range"):
        parse_range(text, 4)


@given(intervals)
def test_an_interval_set_is_not_hashable_but_equal(pairs: list[tuple[int, int]]) -> None:
    assume(pairs)
    with pytest.raises(TypeError):
        hash(IntervalSet(pairs))
    assert IntervalSet(reversed(pairs)) == IntervalSet(pairs)
