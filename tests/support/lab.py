"""A small underlay on this machine: a switch, nodes and pods as network namespaces.

Owns their making and removal. Must not know the product: it uses only `ip`. Needs root.
Each node is a namespace whose NIC `eth1` is one end of a veth; the other end is on a bridge in the switch's namespace.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_NETNS_DIR = Path("/run/netns")
_PREFIX = "orblab"
_numbers = itertools.count(1)


class Lab:
    """`with Lab(nodes=2) as lab:` — `lab.nodes` are the names of the nodes' namespaces, `lab.pod()` makes a pod.

    `gateways` are addresses (CIDR) of the switch's bridge. Names are unique to this process and use; what a killed
    process left is removed by the next lab.
    """

    def __init__(self, nodes: int = 1, gateways: tuple[str, ...] = (), mtu_bytes: int = 1500) -> None:
        self.name = f"{_PREFIX}-{os.getpid()}-{next(_numbers)}"
        self.switch = f"{self.name}-switch"
        self.nodes = tuple(f"{self.name}-n{number}" for number in range(1, nodes + 1))
        self._gateways = gateways
        self._mtu_bytes = mtu_bytes
        self._namespaces: list[str] = []
        self._pods = itertools.count(1)

    def __enter__(self) -> Self:
        _remove_left_over()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        batch([f"netns del {name}" for name in self._namespaces if (_NETNS_DIR / name).exists()])
        self._namespaces.clear()

    def pod(self) -> str:
        """A new empty namespace; returns its name."""
        return self.pods(1)[0]

    def pods(self, count: int) -> list[str]:
        names = [f"{self.name}-p{next(self._pods)}" for _ in range(count)]
        self._add(*names)
        return names

    def remove(self, name: str) -> None:
        """Deletes one namespace of this lab, if it is still there. The kernel tears it down a little later."""
        if name in self._namespaces:
            self._namespaces.remove(name)
            batch([f"netns del {name}"])

    @staticmethod
    def path(name: str) -> str:
        return str(_NETNS_DIR / name)

    def run(self, name: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command in a namespace of this lab (by nsenter: /sys stays the machine's)."""
        return subprocess.run(
            ["nsenter", f"--net={self.path(name)}", *argv], check=check, capture_output=True, text=True
        )

    def ip(self, name: str, *arguments: str) -> Any:
        """`ip -j` in a namespace, decoded; None where it prints nothing."""
        printed = self.run(name, "ip", "-j", *arguments).stdout
        return json.loads(printed) if printed.strip() else None

    def ping(self, name: str, address: str) -> bool:
        """One echo, answered within 2 s."""
        return self.run(name, "ping", "-n", "-c1", "-W2", address, check=False).returncode == 0

    def _add(self, *names: str) -> None:
        self._namespaces += names
        batch([f"netns add {name}" for name in names])

    def _build(self) -> None:
        self._add(self.switch, *self.nodes)
        batch(
            [
                "link set lo up",
                "link add br0 type bridge stp_state 0 forward_delay 0",
                f"link set br0 mtu {self._mtu_bytes} up",
                *(f"address add {gateway} dev br0 nodad" for gateway in self._gateways),
            ],
            self.switch,
        )
        for number, node in enumerate(self.nodes, 1):
            batch(
                [
                    f"link add port{number} mtu {self._mtu_bytes} type veth peer name eth1 netns {node} mtu {self._mtu_bytes}",
                    f"link set port{number} master br0 up",
                ],
                self.switch,
            )
            batch(["link set lo up", "link set eth1 up"], node)


def batch(lines: list[str], namespace: str = "") -> None:
    """Several `ip` commands in one process. Raises AssertionError with what `ip` said."""
    if not lines:
        return
    argv = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(argv, input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.stderr.strip()}\n" + "\n".join(lines))


def _remove_left_over() -> None:
    if not _NETNS_DIR.exists():
        return
    dead = [
        entry.name
        for entry in _NETNS_DIR.glob(f"{_PREFIX}-*")
        if not Path(f"/proc/{entry.name.split('-')[1]}").exists()
    ]
    # Another process may be at the same; what one of them removes is removed.
    argv = ["ip", "-force", "-batch", "-"]
    lines = "\n".join(f"netns del {name}" for name in dead)
    subprocess.run(argv, input=lines, capture_output=True, text=True, check=False)
