"""Properties of the plan: it reaches what is desired, it needs no second one, and its undo is its mirror."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_interface, ip_network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.op import (
    AddAddress,
    AddRoute,
    CreateMacvlan,
    DeleteLink,
    EnableIpv6,
    Op,
    SetMtu,
    SetUp,
    describe,
    inverse,
    undo,
)
from services.agent.plan import Plan, Refused, announcements, plan
from services.agent.state import (
    DesiredAddress,
    DesiredInterface,
    Observed,
    ObservedAddress,
    ObservedLink,
    ObservedRoute,
    OwnedLink,
    ParentLink,
    Route,
)

PARENTS = (
    ParentLink(ifname="eth1", ifindex=2, lower_ifindex=2, mtu_bytes=1500, up=True),
    ParentLink(ifname="eth2", ifindex=3, lower_ifindex=3, mtu_bytes=9000, up=True),
)
LO = ObservedLink(ifname="lo", ifindex=1, kind="", mac="00:00:00:00:00:00", mtu_bytes=65536, up=False)
EMPTY = Observed(parents=PARENTS, links=(LO,))


def addresses(number: int) -> st.SearchStrategy[tuple[DesiredAddress, ...]]:
    """Either family or both, some gateways outside the subnet; distinct per `number`."""
    ipv4 = st.builds(
        lambda host, gateway: DesiredAddress(address=f"10.{number}.0.{host}/24", gateway=gateway),
        st.integers(2, 254),
        st.sampled_from(["", f"10.{number}.0.1", "10.250.0.1"]),
    )
    ipv6 = st.builds(
        lambda host, gateway: DesiredAddress(address=f"FD00:{number}:0::{host:x}/64", gateway=gateway),
        st.integers(2, 0xFFFF),
        st.sampled_from(["", f"fd00:{number}::1", "fd00:fa::1", "fe80::1"]),
    )
    return st.one_of(st.just(()), ipv4.map(lambda a: (a,)), ipv6.map(lambda a: (a,)), st.tuples(ipv4, ipv6))


def interfaces(number: int) -> st.SearchStrategy[DesiredInterface]:
    route = st.sampled_from(
        [Route(dst=f"192.0.{number}.77/24"), Route(dst="198.51.100.0/24", gw=f"10.{number}.0.1")]
    )
    return st.builds(
        DesiredInterface,
        ifname=st.just(f"net{number}"),
        parent=st.sampled_from(["eth1", "eth2"]),
        mac=st.just(f"02:00:00:00:00:{number:02x}"),
        addresses=addresses(number),
        default_route=st.booleans(),
        routes=st.lists(route, unique=True, max_size=2).map(tuple),
        mode=st.sampled_from(["bridge", "private"]),
        mtu_bytes=st.sampled_from([0, 1400, 1500]),
    )


DESIRED = st.integers(0, 3).flatmap(lambda count: st.tuples(*(interfaces(n) for n in range(1, count + 1))))
IPV6_OFF = st.sampled_from([frozenset(), frozenset({"default"}), frozenset({"default", "lo"})])


def apply(observed: Observed, ops: tuple[Op, ...]) -> Observed:
    """What the kernel would show afterwards: a model of it, for as much as plans rely on."""
    links = {link.ifname: link for link in observed.links}
    on_links, routes, off = [*observed.addresses], [*observed.routes], set(observed.ipv6_disabled)
    for op in ops:
        match op:
            case CreateMacvlan():
                assert op.ifname not in links
                parent = next(parent for parent in observed.parents if parent.ifindex == op.parent_ifindex)
                links[op.ifname] = ObservedLink(
                    ifname=op.ifname,
                    ifindex=max(link.ifindex for link in links.values()) + 1,
                    kind="macvlan",
                    mac=op.mac,
                    mtu_bytes=op.mtu_bytes or parent.mtu_bytes,
                    up=True,
                    parent_ifindex=parent.lower_ifindex,
                    mode=op.mode,
                )
                if "default" in off:
                    off.add(op.ifname)
            case DeleteLink():
                del links[op.ifname]
                on_links = [entry for entry in on_links if entry.ifname != op.ifname]
                routes = [entry for entry in routes if entry.ifname != op.ifname]
                off.discard(op.ifname)
            case SetUp():
                links[op.ifname] = msgspec.structs.replace(links[op.ifname], up=True)
            case SetMtu():
                assert links[op.ifname].mtu_bytes == op.was_bytes
                links[op.ifname] = msgspec.structs.replace(links[op.ifname], mtu_bytes=op.mtu_bytes)
            case EnableIpv6():
                off.remove(op.ifname)
            case AddAddress():
                assert op.ifname in links
                assert ":" not in op.address or op.ifname not in off
                assert str(ip_interface(op.address)) == op.address
                on_links.append(ObservedAddress(ifname=op.ifname, address=op.address))
            case AddRoute():
                assert op.ifname in links
                assert str(ip_network(op.dst)) == op.dst
                reachable = op.on_link or not op.gateway or op.gateway.startswith("fe80")
                assert reachable or any(
                    ip_interface(op.gateway).ip in ip_interface(entry.address).network
                    for entry in on_links
                    if entry.ifname == op.ifname
                )
                routes.append(ObservedRoute(ifname=op.ifname, dst=op.dst, gateway=op.gateway))
            case _:
                raise AssertionError(op)
    return Observed(
        parents=observed.parents,
        links=tuple(links.values()),
        addresses=tuple(on_links),
        routes=tuple(routes),
        ipv6_disabled=frozenset(off),
    )


def ops_of(desired: tuple[DesiredInterface, ...], observed: Observed, **options: object) -> tuple[Op, ...]:
    planned = plan(desired, observed, **options)  # pyright: ignore
    assert isinstance(planned, Plan), planned
    return planned.ops


@given(DESIRED, IPV6_OFF)
def test_a_plan_that_was_carried_out_leaves_nothing_to_plan(
    desired: tuple[DesiredInterface, ...], off: frozenset[str]
) -> None:
    start = msgspec.structs.replace(EMPTY, ipv6_disabled=off)
    after = apply(start, ops_of(desired, start))
    assert ops_of(desired, after) == ()
    assert ops_of(desired, after, spare_extra=True) == ()
    assert {entry.address for entry in after.addresses} == {
        str(ip_interface(entry.address)) for interface in desired for entry in interface.addresses
    }


@given(DESIRED, IPV6_OFF, st.data())
def test_a_plan_cut_short_is_finished_by_the_next(
    desired: tuple[DesiredInterface, ...], off: frozenset[str], data: st.DataObject
) -> None:
    start = msgspec.structs.replace(EMPTY, ipv6_disabled=off)
    ops = ops_of(desired, start)
    half = apply(start, ops[: data.draw(st.integers(0, len(ops)))])
    rest = ops_of(desired, half)
    assert not any(isinstance(op, DeleteLink) for op in rest)
    assert ops_of(desired, apply(half, rest)) == ()


@given(DESIRED, DESIRED)
def test_whatever_of_ours_is_there_becomes_what_is_desired(
    before: tuple[DesiredInterface, ...], desired: tuple[DesiredInterface, ...]
) -> None:
    there = apply(EMPTY, ops_of(before, EMPTY))
    owned = [OwnedLink(ifname=interface.ifname, mac=interface.mac) for interface in before]
    after = apply(there, ops_of(desired, there, owned=owned))
    assert ops_of(desired, after, owned=owned) == ()
    assert {link.ifname for link in after.links} == {"lo", *(interface.ifname for interface in desired)}
    assert {entry.address for entry in after.addresses} == {
        str(ip_interface(entry.address)) for interface in desired for entry in interface.addresses
    }


@given(DESIRED, IPV6_OFF)
def test_links_come_before_addresses_before_routes(
    desired: tuple[DesiredInterface, ...], off: frozenset[str]
) -> None:
    rank = {DeleteLink: 0, CreateMacvlan: 1, SetUp: 2, SetMtu: 2, EnableIpv6: 2, AddAddress: 3, AddRoute: 4}
    ranks = [rank[type(op)] for op in ops_of(desired, msgspec.structs.replace(EMPTY, ipv6_disabled=off))]
    assert ranks == sorted(ranks)


@given(DESIRED, IPV6_OFF)
def test_undo_is_the_mirror_of_what_was_done(
    desired: tuple[DesiredInterface, ...], off: frozenset[str]
) -> None:
    ops = ops_of(desired, msgspec.structs.replace(EMPTY, ipv6_disabled=off))
    back = undo(ops)
    assert len(back) == len(ops)
    assert [op.ifname for op in back] == [op.ifname for op in reversed(ops)]
    # All but the creation of a link can be done again by undoing the undo.
    again = [inverse(op) for op in reversed(back)]
    assert [op for op in again if op] == [op for op in ops if not isinstance(op, CreateMacvlan)]


@given(DESIRED)
def test_a_plan_prints_and_travels(desired: tuple[DesiredInterface, ...]) -> None:
    planned = Plan(ops=(*ops_of(desired, EMPTY), *announcements(desired)))
    assert msgspec.json.decode(msgspec.json.encode(planned), type=Plan) == planned
    assert all(op.ifname in describe(op) for op in planned.ops)


@given(DESIRED)
def test_nothing_desired_deletes_only_what_is_ours(desired: tuple[DesiredInterface, ...]) -> None:
    foreign = (
        ObservedLink(
            ifname="eth0", ifindex=90, kind="veth", mac="02:00:00:00:00:01", mtu_bytes=1500, up=True
        ),
        ObservedLink(
            ifname="mv0", ifindex=91, kind="macvlan", mac="02:99:00:00:00:01", mtu_bytes=1500, up=True
        ),
    )
    start = msgspec.structs.replace(EMPTY, links=(LO, *foreign))
    there = apply(start, ops_of(desired, start))
    owned = [OwnedLink(ifname=interface.ifname, mac=interface.mac) for interface in desired]
    ops = ops_of((), there, owned=owned)
    assert all(isinstance(op, DeleteLink) for op in ops)
    assert {op.ifname for op in ops} == {interface.ifname for interface in desired}
    assert ops_of((), apply(there, ops), owned=owned) == ()
    assert ops_of((), there) == ()


@given(DESIRED)
def test_every_address_is_announced_once(desired: tuple[DesiredInterface, ...]) -> None:
    told = [(op.ifname, op.mac, op.address) for op in announcements(desired)]
    assert told == [
        (interface.ifname, interface.mac, str(ip_interface(entry.address).ip))
        for interface in desired
        for entry in interface.addresses
    ]


PLAIN = DesiredInterface(
    ifname="net1",
    parent="eth1",
    mac="02:00:00:00:00:01",
    addresses=(DesiredAddress(address="10.1.0.2/24"), DesiredAddress(address="fd00:1::2/64")),
)


@pytest.mark.parametrize(
    ("change", "observed", "name", "words"),
    [
        ({"parent": "eth9"}, EMPTY, "parent_missing", "its links: eth1, eth2"),
        ({"mtu_bytes": 1501}, EMPTY, "config_invalid", "above 1500"),
        ({"mtu_bytes": 1279}, EMPTY, "config_invalid", "the least for IPv6"),
        (
            {},
            msgspec.structs.replace(EMPTY, parents=(msgspec.structs.replace(PARENTS[0], up=False),)),
            "parent_missing",
            "is down",
        ),
        (
            {},
            msgspec.structs.replace(
                EMPTY,
                links=(
                    LO,
                    ObservedLink(ifname="net1", ifindex=5, kind="", mac="", mtu_bytes=1500, up=True),
                ),
            ),
            "link_exists",
            "(device, no MAC) that is not ours",
        ),
    ],
)
def test_a_refusal_says_what_was_found(
    change: dict[str, object], observed: Observed, name: str, words: str
) -> None:
    refused = plan((msgspec.structs.replace(PLAIN, **change),), observed)
    assert isinstance(refused, Refused)
    assert refused.name == name
    assert words in refused.sentence


@pytest.mark.parametrize(
    "found",
    [
        ObservedAddress(ifname="net1", address="fd00:1::2/64", settled=False),
        ObservedAddress(ifname="net1", address="10.9.9.9/24"),
    ],
)
def test_a_link_with_a_spoiled_address_is_rebuilt(found: ObservedAddress) -> None:
    link = apply(EMPTY, ops_of((PLAIN,), EMPTY)).links[1]
    there = msgspec.structs.replace(EMPTY, links=(LO, link), addresses=(found,))
    ops = ops_of((PLAIN,), there)
    assert [type(op) for op in ops[:2]] == [DeleteLink, CreateMacvlan]
    assert ops_of((PLAIN,), apply(there, ops)) == ()


def test_a_link_where_another_route_is_in_our_place_is_rebuilt_but_not_for_a_check() -> None:
    wanted = (
        msgspec.structs.replace(
            PLAIN, addresses=(DesiredAddress(address="fd00:1::2/64", gateway="fd00:1::1"),)
        ),
    )
    there = apply(EMPTY, ops_of(wanted, EMPTY))
    taken = msgspec.structs.replace(
        there, routes=(ObservedRoute(ifname="net1", dst="::/0", gateway="fe80::1"),)
    )
    ops = ops_of(wanted, taken)
    assert [type(op) for op in ops[:2]] == [DeleteLink, CreateMacvlan]
    assert ops_of(wanted, apply(taken, ops)) == ()
    assert [type(op) for op in ops_of(wanted, taken, spare_extra=True)] == [AddRoute]
    beside = msgspec.structs.replace(there, routes=(*there.routes, *taken.routes))
    assert ops_of(wanted, beside) == ()


def test_addresses_that_come_by_themselves_are_left() -> None:
    there = apply(EMPTY, ops_of((PLAIN,), EMPTY))
    link_local = ObservedAddress(
        ifname="net1", address=f"{IPv6Address('fe80::1')}/64", settled=False, link_local=True
    )
    advertised = ObservedAddress(ifname="net1", address="2001:db8::1/64", settled=False)
    there = msgspec.structs.replace(there, addresses=(*there.addresses, link_local, advertised))
    assert ops_of((PLAIN,), there) == ()


def test_a_parent_that_is_a_macvlan_stands_on_the_lowest() -> None:
    stacked = ParentLink(ifname="mv1", ifindex=7, lower_ifindex=2, mtu_bytes=1500, up=True, kind="macvlan")
    start = msgspec.structs.replace(EMPTY, parents=(*PARENTS, stacked))
    wanted = (msgspec.structs.replace(PLAIN, parent="mv1"),)
    assert ops_of(wanted, apply(start, ops_of(wanted, start))) == ()
