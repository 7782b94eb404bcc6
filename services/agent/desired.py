"""From the allocator's grants to the interfaces that shall be, and from that to the runtime's result. Pure.

Owns which grants are whose, where the default route goes, and the MACs' form. Must not know how a grant was asked
for or an interface is built.
"""

from __future__ import annotations

import msgspec

from services.agent.config import Macvlan
from services.agent.result import Result, ResultAddress, ResultInterface, ResultRoute
from services.agent.state import DesiredAddress, DesiredInterface, Route
from shared.contracts.ipam import Allocated, Grant
from shared.errors import OrbweaverError
from shared.net.ranges import Network, parse_cidr

MAC_BYTES = 6


class Share(msgspec.Struct, frozen=True):
    """What one interface is granted. `network` is `ns/name`, empty where the caller's configuration describes the link."""

    ifname: str
    network: str
    grants: tuple[Grant, ...]


def mac_of(random: bytes) -> str:
    """A locally administered unicast MAC (IEEE 802, bits 0 and 1 of the first byte) of six random bytes."""
    first = (random[0] | 0x02) & 0xFE
    return ":".join(f"{byte:02x}" for byte in (first, *random[1:MAC_BYTES]))


def mac_at(mac: str, position: int) -> str:
    """The MAC of the interface at `position` below `limits.INTERFACES_PER_POD_MAX`; that at 0 is `mac` itself.

    One MAC in the journal thus names all links that an attach may have made, before anybody knows how many they are.
    """
    return f"{mac[:-2]}{int(mac[-2:], 16) ^ position:02x}"


def shares(allocated: Allocated, ifname: str, *, further_networks: bool) -> tuple[Share, ...]:
    """Of all interfaces that the attach is about, the caller's first. Raises OrbweaverError: `no_pool` where one has no address,
    `try_later` where the allocator does not know of several networks in one attach."""
    if not further_networks:
        return (Share(ifname, "", own_grants(allocated, ifname)),)
    if not allocated.interfaces:
        raise OrbweaverError(
            "try_later", "the allocator is of a version that knows no further networks of a pod"
        )
    return tuple(
        Share(one.ifname, one.network, own_grants(allocated, one.ifname)) for one in allocated.interfaces
    )


def own_grants(allocated: Allocated, ifname: str) -> tuple[Grant, ...]:
    """Those of the calling interface; others belong to the pod's later ADDs. Raises OrbweaverError where there are none."""
    grants = tuple(grant for grant in allocated.grants if grant.ifname == ifname)
    if not grants:
        raise OrbweaverError("no_pool", f"the allocator's answer has no address for interface {ifname!r}")
    return grants


def default_gateways(grants: tuple[Grant, ...], ifname: str, default_route_nic: str) -> tuple[str, ...]:
    """The gateway of each grant where the default route goes by it, else empty."""
    elsewhere = default_route_nic not in ("", ifname)
    return tuple("" if elsewhere or grant.clean_gateway else grant.gateway for grant in grants)


def gateways_of(of: tuple[Share, ...], default_route_nic: str) -> tuple[tuple[str, ...], ...]:
    """For each share, `default_gateways`; the first with a gateway of a family has the default route of that family, unless the pod
    itself names another way to everywhere."""
    out: list[tuple[str, ...]] = []
    given = {
        ":" in route.dst
        for share in of
        for grant in share.grants
        for route in grant.routes
        if parse_cidr(route.dst).prefix_len == 0
    }
    for share in of:
        wanted = default_gateways(share.grants, share.ifname, default_route_nic)
        out.append(tuple("" if (":" in gateway) in given else gateway for gateway in wanted))
        given |= {":" in gateway for gateway in wanted if gateway}
    return tuple(out)


def routes_of(of: tuple[Share, ...]) -> tuple[tuple[Route, ...], ...]:
    """For each share, its routes beside that to its gateway. The kernel takes one way to a destination: that of the first interface
    which has one."""
    out: list[tuple[Route, ...]] = []
    given: set[Network] = set()
    for share in of:
        mine: dict[Network, Route] = {}
        for grant in share.grants:
            for route in grant.routes:
                mine.setdefault(parse_cidr(route.dst), Route(dst=route.dst, gw=route.gw))
        out.append(tuple(route for dst, route in mine.items() if dst not in given))
        given |= mine.keys()
    return tuple(out)


def interface(
    ifname: str,
    link: Macvlan,
    mac: str,
    grants: tuple[Grant, ...],
    gateways: tuple[str, ...],
    routes: tuple[Route, ...],
) -> DesiredInterface:
    return DesiredInterface(
        ifname=ifname,
        parent=link.parent,
        mac=mac,
        mtu_bytes=link.mtu_bytes,
        addresses=tuple(
            DesiredAddress(address=grant.address, gateway=gateway)
            for grant, gateway in zip(grants, gateways, strict=True)
        ),
        default_route=any(gateways),
        routes=routes,
    )


def without_route(desired: DesiredInterface, to: str) -> DesiredInterface:
    """The pod has a route to this destination by another link already, which keeps it."""
    gone = parse_cidr(to)
    addresses = tuple(
        msgspec.structs.replace(entry, gateway="")
        if gone.prefix_len == 0 and (":" in entry.address) == (gone.family == 6)
        else entry
        for entry in desired.addresses
    )
    return msgspec.structs.replace(
        desired,
        addresses=addresses,
        default_route=any(entry.gateway for entry in addresses),
        routes=tuple(route for route in desired.routes if parse_cidr(route.dst) != gone),
    )


def result(
    grants: tuple[Grant, ...],
    gateways: tuple[str, ...],
    routes: tuple[Route, ...],
    link: ResultInterface | None = None,
) -> Result:
    """`gateways` are those that default routes go by, `routes` all others; every grant's own gateway is told beside its address."""
    defaults = [
        ResultRoute(dst="::/0" if ":" in gateway else "0.0.0.0/0", gw=gateway)
        for gateway in gateways
        if gateway
    ]
    others = [ResultRoute(dst=route.dst, gw=route.gw) for route in routes]
    return Result(
        interface=link,
        addresses=tuple(ResultAddress(address=grant.address, gateway=grant.gateway) for grant in grants),
        routes=tuple(dict.fromkeys((*defaults, *others))),
    )
