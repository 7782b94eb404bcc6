"""What RDMA devices a node has, on `orb.inventory.<node>`, last per subject."""

from __future__ import annotations

import msgspec

from shared.contracts.codec import Codec


class RdmaPort(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    state: str
    link_layer: str
    gids: int = 0
    pkeys: int = 0


class RdmaDevice(msgspec.Struct, frozen=True, kw_only=True):
    """`netdevs` are the links that share the device; `pci_address` is empty for soft devices."""

    name: str
    node_guid: str
    ports: tuple[RdmaPort, ...]
    netdevs: tuple[str, ...] = ()
    pci_address: str = ""
    numa_node: int = -1
    physical_function: str = ""


class RdmaInventory(msgspec.Struct, frozen=True, kw_only=True, tag="inventory.rdma.1"):
    """`netns_mode`: shared, exclusive, or empty when the kernel has no RDMA."""

    node: str
    at_ns: int
    netns_mode: str
    devices: tuple[RdmaDevice, ...]


INVENTORY: Codec[RdmaInventory] = Codec(RdmaInventory)
