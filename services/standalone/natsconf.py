"""The configurations of the NATS servers of a standalone system: where they listen, with the passwords of its credentials.

Must not know processes, files or what an identity may do.
"""

from __future__ import annotations

from urllib.parse import quote

from services.bus.config import (
    hub_accounts,
    leaf_accounts,
    leaf_name,
    leaf_remote,
    limits,
    link_user,
    password_login,
    render,
)
from services.standalone.system import LOOPBACK, Credentials, NodeCredentials


def hub_config(
    *, client_port: int, leafnodes_port: int, store: str, credentials: Credentials, nodes: tuple[str, ...]
) -> str:
    """The hub: JetStream with fsync before every acknowledgement, one user an identity and one a node's leaf link."""
    return render(
        {
            "server_name": "hub",
            "listen": f"{LOOPBACK}:{client_port}",
            **limits(),
            "jetstream": {"store_dir": store, "sync_interval": "always"},
            "leafnodes": {"listen": f"{LOOPBACK}:{leafnodes_port}"},
            **hub_accounts(
                users=credentials.hub,
                system=credentials.system,
                links={node: [password_login(node, credentials.nodes[node].link)] for node in nodes},
            ),
        }
    )


def leaf_config(*, node: str, client_port: int, hub_leafnodes_port: int, credentials: NodeCredentials) -> str:
    """One node's leaf: its local users, and the link to the hub."""
    login = f"{quote(link_user(node), safe='')}:{quote(credentials.link, safe='')}"
    return render(
        {
            "server_name": leaf_name(node),
            "listen": f"{LOOPBACK}:{client_port}",
            **limits(),
            "leafnodes": {
                "reconnect": "200ms",
                "remotes": [leaf_remote([f"nats://{login}@{LOOPBACK}:{hub_leafnodes_port}"])],
            },
            **leaf_accounts(
                node, {"agent": credentials.agent, "rdma": credentials.rdma, "shim": credentials.shim}
            ),
        }
    )
