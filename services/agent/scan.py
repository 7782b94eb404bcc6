"""A look through the namespaces of the machine: which addresses stand on links that hang on this node's NICs.

Owns the walk. Must not know the journal. A journal can be lost; what the kernel has, pods use.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from services.agent.execute import KernelError
from services.agent.netns import Netns, NetnsError

DIRECTORY = Path("/run/netns")


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """`address` (CIDR) on link `ifname`, in the namespace with that identity, which is at the path `netns`."""

    address: str
    ifname: str
    netns: str
    device: int
    inode: int


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """`looked`: every namespace that is there could be looked into; `namespaces` is how many those are, the node's own not
    counted."""

    looked: bool
    namespaces: int
    sightings: tuple[Sighting, ...] = ()


def walk(
    is_node: Callable[[Netns], bool],
    sightings: Callable[[Netns], dict[str, str]],
    directory: Path = DIRECTORY,
) -> Scan:
    """Blocks. `sightings` has addresses (CIDR) and the names of their links in one namespace. A namespace that goes away meanwhile
    is none, one at two paths is one."""
    looked = True
    found: dict[tuple[int, int], tuple[Sighting, ...]] = {}
    try:
        paths = sorted(directory.iterdir())
    except OSError:
        return Scan(looked=False, namespaces=0)
    for path in paths:
        try:
            netns = Netns.open(str(path))
        except NetnsError:
            continue
        with netns:
            identity = (netns.device, netns.inode)
            if identity in found or is_node(netns):
                continue
            try:
                here = sightings(netns)
            except KernelError:
                looked, here = False, {}
            found[identity] = tuple(
                Sighting(
                    address=address, ifname=ifname, netns=netns.path, device=netns.device, inode=netns.inode
                )
                for address, ifname in here.items()
            )
    return Scan(
        looked=looked,
        namespaces=len(found),
        sightings=tuple(one for of_netns in found.values() for one in of_netns),
    )
