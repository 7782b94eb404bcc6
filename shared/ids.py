"""Names of things that cross services. Must not read clocks or randomness by itself."""

from __future__ import annotations

import msgspec


class AttachmentId(msgspec.Struct, frozen=True, order=True):
    """An attachment is a container ID and an interface."""

    container_id: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.container_id}/{self.ifname}"


def container_owner(node: str, container_id: str) -> str:
    """The owner of leases of a container that no pod stands behind; a pod's owner is its UID.

    A container ID is unique on its node only: cnitool makes it of the path of the network namespace.
    """
    return f"container:{node}/{container_id}"
