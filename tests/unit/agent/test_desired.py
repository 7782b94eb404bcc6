"""From grants to the interface and the result."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent import desired as wish
from services.agent.config import Macvlan
from services.agent.result import ResultRoute
from services.agent.state import DesiredAddress, Route
from shared.contracts import ipam
from shared.contracts.ipam import Allocated, Grant, Mark
from shared.errors import OrbweaverError

V4 = Grant(
    ifname="eth0",
    family=4,
    address="10.6.0.9/16",
    pool="v4",
    generation=3,
    gateway="10.6.0.1",
    routes=(ipam.Route(dst="10.9.0.0/16", gw="10.6.0.2"),),
)
ROUTES = (Route(dst="10.9.0.0/16", gw="10.6.0.2"),)
V6 = Grant(ifname="eth0", family=6, address="fd00:6::9/64", pool="v6", generation=3, gateway="fd00:6::1")


@given(st.binary(min_size=6, max_size=6))
def test_a_mac_is_locally_administered_and_unicast(random: bytes) -> None:
    mac = wish.mac_of(random)
    first = int(mac[:2], 16)
    assert first & 3 == 2
    assert len(bytes.fromhex(mac.replace(":", ""))) == 6
    assert mac[3:] == ":".join(f"{byte:02x}" for byte in random[1:])


def test_grants_of_other_interfaces_are_not_ours() -> None:
    other = Grant(ifname="net1", family=4, address="10.7.0.9/16", pool="x", generation=3)
    reply = Allocated(attempt="a", pod_uid="u", grants=(other, V4), mark=Mark(), term=1)
    assert wish.own_grants(reply, "eth0") == (V4,)
    with pytest.raises(OrbweaverError, match="eth1"):
        wish.own_grants(reply, "eth1")


def test_default_route_goes_where_it_is_wanted() -> None:
    assert wish.default_gateways((V4, V6), "eth0", "") == ("10.6.0.1", "fd00:6::1")
    assert wish.default_gateways((V4, V6), "eth0", "eth0") == ("10.6.0.1", "fd00:6::1")
    assert wish.default_gateways((V4, V6), "eth0", "net1") == ("", "")
    clean = Grant(
        ifname="eth0",
        family=4,
        address="10.6.0.9/16",
        pool="v4",
        generation=3,
        gateway="10.6.0.1",
        clean_gateway=True,
    )
    assert wish.default_gateways((clean, V6), "eth0", "") == ("", "fd00:6::1")


def test_interface_and_result() -> None:
    gateways = wish.default_gateways((V4, V6), "eth0", "")
    made = wish.interface(
        "eth0", Macvlan(parent="eth1", mtu_bytes=1400), "02:00:00:00:00:01", (V4, V6), gateways, ROUTES
    )
    assert made.addresses == (
        DesiredAddress(address="10.6.0.9/16", gateway="10.6.0.1"),
        DesiredAddress(address="fd00:6::9/64", gateway="fd00:6::1"),
    )
    assert (made.parent, made.mtu_bytes, made.default_route) == ("eth1", 1400, True)
    assert made.routes == ROUTES
    told = wish.result((V4, V6), gateways, ROUTES)
    assert told.routes == (
        ResultRoute(dst="0.0.0.0/0", gw="10.6.0.1"),
        ResultRoute(dst="::/0", gw="fd00:6::1"),
        ResultRoute(dst="10.9.0.0/16", gw="10.6.0.2"),
    )


def test_a_family_that_has_its_default_route_elsewhere() -> None:
    gateways = wish.default_gateways((V4, V6), "eth0", "")
    made = wish.interface("eth0", Macvlan(parent="eth1"), "02:00:00:00:00:01", (V4, V6), gateways, ROUTES)
    less = wish.without_route(made, "0.0.0.0/0")
    assert tuple(address.gateway for address in less.addresses) == ("", "fd00:6::1")
    assert less.default_route
    none = wish.without_route(less, "::/0")
    assert not none.default_route
    assert none.routes == ROUTES
    # the gateway is told even where no route goes by it (CNI spec 1.1, "Result")
    told = wish.result((V4, V6), tuple(address.gateway for address in none.addresses), none.routes)
    assert [address.gateway for address in told.addresses] == ["10.6.0.1", "fd00:6::1"]
    assert told.routes == (ResultRoute(dst="10.9.0.0/16", gw="10.6.0.2"),)


def test_a_destination_that_is_reached_elsewhere() -> None:
    made = wish.interface("eth0", Macvlan(parent="eth1"), "02:00:00:00:00:01", (V4,), ("",), ROUTES)
    assert wish.without_route(made, "10.9.0.0/16").routes == ()
    assert wish.without_route(made, "10.9.0.0/24") == made


def _second(*routes: tuple[str, str]) -> wish.Share:
    grant = Grant(
        ifname="net1",
        family=4,
        address="10.7.0.9/16",
        pool="x",
        generation=3,
        gateway="10.7.0.1",
        routes=tuple(ipam.Route(dst=dst, gw=gw) for dst, gw in routes),
    )
    return wish.Share("net1", "kube-system/x", (grant,))


def test_one_way_to_each_destination() -> None:
    """Of an interface the first that is named, of a pod the first interface's."""
    shares = (
        wish.Share("eth0", "", (V4, V6)),
        _second(("10.9.0.0/16", "10.7.0.2"), ("10.8.0.0/16", "10.7.0.2"), ("10.8.3.0/16", "10.7.0.3")),
    )
    assert wish.routes_of(shares) == (ROUTES, (Route(dst="10.8.0.0/16", gw="10.7.0.2"),))


def test_a_way_to_everywhere_that_the_pod_names_itself() -> None:
    shares = (wish.Share("eth0", "", (V4, V6)), _second(("0.0.0.0/0", "10.7.0.2")))
    assert wish.gateways_of(shares, "") == (("", "fd00:6::1"), ("",))
    assert wish.routes_of(shares)[1] == (Route(dst="0.0.0.0/0", gw="10.7.0.2"),)
