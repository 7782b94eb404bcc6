"""Where everything of one standalone system lies below its state directory.

Owns the paths. Must not know what the files contain, and touches no file.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from shared.subjects import token


class Layout(msgspec.Struct, frozen=True):
    """`state` is absolute. Node names become file names by the same encoding as subject tokens, so none can leave its folder."""

    state: Path

    @property
    def system_file(self) -> Path:
        """Who runs, where it listens: services.standalone.system's SystemFile as JSON."""
        return self.state / "system.json"

    @property
    def lock_file(self) -> Path:
        """Locked (flock) by the supervisor for as long as it lives."""
        return self.state / "lock"

    @property
    def credentials_file(self) -> Path:
        return self.conf / "credentials.json"

    @property
    def conf(self) -> Path:
        return self.state / "conf"

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def jetstream(self) -> Path:
        return self.state / "nats" / "hub"

    @property
    def certificates(self) -> Path:
        """The webhook's `ca.crt`, `tls.crt` and `tls.key`."""
        return self.state / "ca"

    @property
    def ca_file(self) -> Path:
        return self.certificates / "ca.crt"

    @property
    def shim_netns(self) -> Path:
        """A mount of the namespace where the leaves listen, where nothing else names it."""
        return self.state / "netns"

    @property
    def marks(self) -> Path:
        return self.state / "mark"

    def node_state(self, node: str) -> Path:
        """The agent's journal of one node."""
        return self.state / "node" / token(node)

    def settings_file(self, instance: str) -> Path:
        return self.conf / f"{instance}.json"

    def nats_file(self, instance: str) -> Path:
        return self.conf / f"{instance}.conf"

    def log_file(self, instance: str) -> Path:
        return self.log / f"{instance}.log"

    def failpoint_file(self, instance: str) -> Path:
        """What the next process of this instance gets as ORBWEAVER_FAILPOINT."""
        return self.state / "failpoint" / instance

    def directories(self, nodes: tuple[str, ...]) -> tuple[Path, ...]:
        """Every directory that must be there before anything starts, parents first."""
        return (
            self.state,
            self.conf,
            self.log,
            self.state / "failpoint",
            self.state / "nats",
            self.jetstream,
            self.certificates,
            self.marks,
            self.state / "node",
            *(self.node_state(node) for node in nodes),
        )
