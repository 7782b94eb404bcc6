"""The steps a plan is made of: each is data, knows its inverse, and reads as one line.

Owns the vocabulary of changes inside a pod's namespace. Pure. Must not know when an op is needed (plan) or how it is
carried out (execute).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from services.agent.state import MacvlanMode


class _Op(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    ifname: str


class CreateMacvlan(_Op, frozen=True, kw_only=True, tag="create_macvlan"):
    parent: str
    parent_ifindex: int
    mac: str
    mtu_bytes: int
    mode: MacvlanMode


class DeleteLink(_Op, frozen=True, kw_only=True, tag="delete_link"):
    mac: str


class SetUp(_Op, frozen=True, kw_only=True, tag="set_up"):
    pass


class SetDown(_Op, frozen=True, kw_only=True, tag="set_down"):
    pass


class SetMtu(_Op, frozen=True, kw_only=True, tag="set_mtu"):
    mtu_bytes: int
    was_bytes: int


class EnableIpv6(_Op, frozen=True, kw_only=True, tag="enable_ipv6"):
    pass


class DisableIpv6(_Op, frozen=True, kw_only=True, tag="disable_ipv6"):
    pass


class AddAddress(_Op, frozen=True, kw_only=True, tag="add_address"):
    address: str


class DeleteAddress(_Op, frozen=True, kw_only=True, tag="delete_address"):
    address: str


class AddRoute(_Op, frozen=True, kw_only=True, tag="add_route"):
    dst: str
    gateway: str = ""
    on_link: bool = False


class DeleteRoute(_Op, frozen=True, kw_only=True, tag="delete_route"):
    dst: str
    gateway: str = ""
    on_link: bool = False


class Announce(_Op, frozen=True, kw_only=True, tag="announce"):
    """Tells the neighbours that `address` is now at `mac`."""

    mac: str
    address: str


Op = (
    CreateMacvlan
    | DeleteLink
    | SetUp
    | SetDown
    | SetMtu
    | EnableIpv6
    | DisableIpv6
    | AddAddress
    | DeleteAddress
    | AddRoute
    | DeleteRoute
    | Announce
)


def inverse(op: Op) -> Op | None:
    """The op that undoes `op`; None where nothing can (a deletion) or need (an announcement)."""
    match op:
        case CreateMacvlan():
            return DeleteLink(ifname=op.ifname, mac=op.mac)
        case SetUp():
            return SetDown(ifname=op.ifname)
        case SetDown():
            return SetUp(ifname=op.ifname)
        case SetMtu():
            return SetMtu(ifname=op.ifname, mtu_bytes=op.was_bytes, was_bytes=op.mtu_bytes)
        case EnableIpv6():
            return DisableIpv6(ifname=op.ifname)
        case DisableIpv6():
            return EnableIpv6(ifname=op.ifname)
        case AddAddress():
            return DeleteAddress(ifname=op.ifname, address=op.address)
        case DeleteAddress():
            return AddAddress(ifname=op.ifname, address=op.address)
        case AddRoute():
            return DeleteRoute(ifname=op.ifname, dst=op.dst, gateway=op.gateway, on_link=op.on_link)
        case DeleteRoute():
            return AddRoute(ifname=op.ifname, dst=op.dst, gateway=op.gateway, on_link=op.on_link)
        case DeleteLink() | Announce():
            return None


def undo(done: Iterable[Op]) -> tuple[Op, ...]:
    """What takes back `done`, in reverse."""
    return tuple(back for op in reversed(tuple(done)) if (back := inverse(op)) is not None)


def describe(op: Op) -> str:
    """One line for an error or a trace: `add_route net1 default via 10.6.0.1`."""
    match op:
        case CreateMacvlan():
            return f"create macvlan {op.ifname} on {op.parent}"
        case DeleteLink():
            return f"delete link {op.ifname}"
        case SetUp():
            return f"set {op.ifname} up"
        case SetDown():
            return f"set {op.ifname} down"
        case SetMtu():
            return f"set MTU of {op.ifname} to {op.mtu_bytes}"
        case EnableIpv6():
            return f"enable IPv6 on {op.ifname}"
        case DisableIpv6():
            return f"disable IPv6 on {op.ifname}"
        case AddAddress():
            return f"add address {op.address} to {op.ifname}"
        case DeleteAddress():
            return f"delete address {op.address} from {op.ifname}"
        case AddRoute():
            return f"add route {op.dst}{f' via {op.gateway}' if op.gateway else ''} dev {op.ifname}"
        case DeleteRoute():
            return f"delete route {op.dst}{f' via {op.gateway}' if op.gateway else ''} dev {op.ifname}"
        case Announce():
            return f"announce {op.address} on {op.ifname}"
