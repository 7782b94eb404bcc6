"""Free TCP ports on loopback, the same ones again after a restart where nobody else took them.

Owns the choice. Must not know who listens where for what.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

from services.standalone.system import LOOPBACK, NodePorts, Ports

ALLOCATORS = 2
FIRST_PORT = 20000
LAST_PORT = 32767
"""Below Linux' ephemeral ports (net.ipv4.ip_local_port_range begins at 32768), so that no outgoing connection sits on ours."""


def is_free(port: int) -> bool:
    """True when a server could listen on the port now; connections in TIME-WAIT do not count, as servers set SO_REUSEADDR."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose_ports(
    known: Ports | None,
    nodes: tuple[str, ...],
    free: Callable[[int], bool] = is_free,
    chance: random.Random | None = None,
) -> Ports:
    """Keeps each known port that is free and draws the others at random. Raises OSError when it finds none."""
    drawn: set[int] = set()
    dice = chance or random.SystemRandom()

    def keep(port: int | None) -> int:
        if port is not None and port not in drawn and free(port):
            drawn.add(port)
            return port
        for _ in range(1000):
            candidate = dice.randint(FIRST_PORT, LAST_PORT)
            if candidate not in drawn and free(candidate):
                drawn.add(candidate)
                return candidate
        raise OSError(f"no free TCP port between {FIRST_PORT} and {LAST_PORT} on {LOOPBACK}")

    by_node = {} if known is None else known.nodes
    allocators: tuple[int | None, ...] = (None,) * ALLOCATORS if known is None else known.allocator_http
    return Ports(
        hub=keep(known and known.hub),
        hub_leafnodes=keep(known and known.hub_leafnodes),
        webhook_https=keep(known and known.webhook_https),
        controller_http=keep(known and known.controller_http),
        allocator_http=tuple(keep(port) for port in allocators),
        webhook_http=keep(known and known.webhook_http),
        nodes={
            node: NodePorts(
                leaf=keep(kept and kept.leaf),
                agent_http=keep(kept and kept.agent_http),
                rdma_http=keep(kept and kept.rdma_http),
            )
            for node in nodes
            for kept in (by_node.get(node),)
        },
    )
