"""Settings of the two programs of this folder, and the ports that both know.

Must not know how they are used.
"""

from __future__ import annotations

import msgspec

CLIENT_PORT, CLUSTER_PORT, LEAFNODES_PORT, IDENTITY_PORT, HUB_MONITOR_PORT = 5741, 5742, 5743, 5744, 5745
LEAF_PORT, LEAF_MONITOR_PORT = 5751, 5752
"""Everything is on the host network: none of these is NATS' own, which a user's NATS may have there."""


BUS_CONFIG_MAP = "orbweaver-bus"
AUTHORITY_FILE, PEER_PREFIX = "ca.crt", "hub."
"""Its keys: the authority of the bus, and each server's URL."""


class HubSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server of the hub. `name` is the pod's, `address` the node's, `servers` how many there are of it.

    `folder` takes the configuration and keys (memory is enough), `store` JetStream's files and what must outlive the pod; `peers` is
    where ConfigMap `orbweaver-bus` is mounted. `agent` is the service account whose pods are nodes' agents.
    """

    name: str
    address: str
    namespace: str
    servers: int = 1
    folder: str
    store: str
    peers: str
    agent: str = "orbweaver-agent"
    epoch_s: float = 6 * 3600.0
    monitor_port: int = HUB_MONITOR_PORT
    kubernetes_url: str = ""
    """Empty: as in a pod."""
    kubernetes_account: str = "/var/run/secrets/kubernetes.io/serviceaccount"


class LeafSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node's leaf. `peers` and `folder` as above; `passwords` is where the passwords of its users stand, for who may read there;
    `token_file` the projected token."""

    node: str
    peers: str
    folder: str
    passwords: str
    token_file: str
    port: int = LEAF_PORT
    monitor_port: int = LEAF_MONITOR_PORT
