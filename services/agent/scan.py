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


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """`addresses` (CIDR) → the link's name. `looked`: every namespace that is there could be looked into; `namespaces` is how many
    those are, the node's own not counted."""

    looked: bool
    namespaces: int
    addresses: dict[str, str]


def walk(
    is_node: Callable[[Netns], bool],
    sightings: Callable[[Netns], dict[str, str]],
    directory: Path = DIRECTORY,
) -> Scan:
    """Blocks. A namespace that goes away meanwhile is none."""
    looked = True
    namespaces = 0
    addresses: dict[str, str] = {}
    try:
        paths = sorted(directory.iterdir())
    except OSError:
        return Scan(looked=False, namespaces=0, addresses={})
    for path in paths:
        try:
            netns = Netns.open(str(path))
        except NetnsError:
            continue
        with netns:
            if is_node(netns):
                continue
            namespaces += 1
            try:
                addresses.update(sightings(netns))
            except KernelError:
                looked = False
    return Scan(looked=looked, namespaces=namespaces, addresses=addresses)
