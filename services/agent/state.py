"""What a pod's interfaces shall be, and what the kernel shows them to be, as data.

Owns both vocabularies, so that desired and observed can be compared term by term. Pure. Must not know netlink,
ops or how a fact was obtained.
"""

from __future__ import annotations

from typing import Literal

import msgspec

MacvlanMode = Literal["bridge", "private", "vepa", "passthru"]


class DesiredAddress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`address` with its prefix length (`10.6.0.9/16`); `gateway` without, empty where there is none."""

    address: str
    gateway: str = ""


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`dst` in CIDR form; without `gw` the destination is on the link itself."""

    dst: str
    gw: str = ""


class DesiredInterface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One interface of a pod, as the agent wants it. `mtu_bytes` 0 is the parent's; `mac` is chosen by the agent.

    With `default_route` each gateway of `addresses` becomes the default route of its family.
    """

    ifname: str
    parent: str
    mac: str
    addresses: tuple[DesiredAddress, ...] = ()
    default_route: bool = True
    routes: tuple[Route, ...] = ()
    kind: Literal["macvlan"] = "macvlan"
    mode: MacvlanMode = "bridge"
    mtu_bytes: int = 0


class OwnedLink(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A link that we made: the name it had then, and the MAC that proves it ours."""

    ifname: str
    mac: str


class ParentLink(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A link of the node. `lower_ifindex` is what the kernel stacks on: macvlans on macvlans share the lowest."""

    ifname: str
    ifindex: int
    lower_ifindex: int
    mtu_bytes: int
    up: bool
    kind: str = ""
    mac: str = ""


class ObservedLink(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A link of the pod. `parent_ifindex` is 0 unless the parent is in the node's namespace."""

    ifname: str
    ifindex: int
    kind: str
    mac: str
    mtu_bytes: int
    up: bool
    parent_ifindex: int = 0
    mode: str = ""


class ObservedAddress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`settled`: permanent, and past duplicate address detection."""

    ifname: str
    address: str
    settled: bool = True
    link_local: bool = False


class ObservedRoute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    ifname: str
    dst: str
    gateway: str = ""


class Observed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Facts of one moment. `ipv6_disabled` holds names of links; `default` stands for links yet to be made."""

    parents: tuple[ParentLink, ...] = ()
    links: tuple[ObservedLink, ...] = ()
    addresses: tuple[ObservedAddress, ...] = ()
    routes: tuple[ObservedRoute, ...] = ()
    ipv6_disabled: frozenset[str] = frozenset()
