"""ADD and DEL of several plugins, exec'd by one harness and interleaved, each in a fresh network namespace.

Owns who is exec'd with what. Must not know what the figures mean.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from services.standalone import demo_exec, demo_netns
from services.standalone.demo_place import Place

_numbers = itertools.count(1)


@dataclass
class Contender:
    """One plugin with one configuration, and the times of its calls in ms."""

    name: str
    plugin: Path
    configuration: bytes
    add_ms: list[float] = field(default_factory=list[float])
    del_ms: list[float] = field(default_factory=list[float])

    def call(self, command: str, container_id: str, netns: Path, node: Path) -> float:
        """Exec to exit in ms. Raises RuntimeError with the plugin's complaint: a failed call is no measurement."""
        answer = demo_exec.call(
            self.plugin,
            demo_exec.environment(
                command, container_id=container_id, netns=str(netns), cni_path=str(self.plugin.parent)
            ),
            self.configuration,
            netns=node,
        )
        if not answer.ok:
            raise RuntimeError(f"{self.name}: {command}: {answer.complaint()}")
        return answer.duration_ms


def orbweaver(shim: Path, families: Sequence[int]) -> Contender:
    pools = {f"ipv{family}": [f"bench-v{family}"] for family in families}
    configuration = {
        "cniVersion": "1.0.0",
        "name": "bench",
        "type": "orbweaver",
        "cniType": "macvlan",
        "master": ["eth1"],
        "mtu": 0,
        "ippools": pools,
    }
    return Contender("orbweaver", shim, json.dumps(configuration).encode())


def debian(families: Sequence[int], directory: Path) -> Contender:
    """Debian's macvlan with host-local, which writes a file below `directory` (the disk that JetStream writes to as well)."""
    ranges = {
        4: [{"subnet": "10.200.0.0/16", "gateway": "10.200.0.1"}],
        6: [{"subnet": "fd00:be:1::/64", "gateway": "fd00:be:1::1"}],
    }
    configuration = {
        "cniVersion": "1.0.0",
        "name": f"rival{len(families)}",
        "type": "macvlan",
        "master": "eth1",
        "mode": "bridge",
        "ipam": {
            "type": "host-local",
            "dataDir": str(directory),
            "ranges": [ranges[family] for family in families],
            "routes": [{"dst": {4: "0.0.0.0/0", 6: "::/0"}[family]} for family in families],
        },
    }
    return Contender("macvlan + host-local", Path("/usr/lib/cni/macvlan"), json.dumps(configuration).encode())


def interleave(
    place: Place, node: Path, contenders: Sequence[Contender], rounds: int, warm_up: int = 3
) -> None:
    """Each round: one ADD of each contender, then one DEL of each, by turns first; the times go to the contenders."""
    for number in range(-warm_up, rounds):
        pods = [_fresh(place)[0] for _ in contenders]
        order = list(zip(contenders, pods, strict=True))
        if number % 2:
            order.reverse()
        added = [(contender, *pod, contender.call("ADD", pod[0], pod[1], node)) for contender, pod in order]
        for contender, container_id, netns, add_ms in added:
            del_ms = contender.call("DEL", container_id, netns, node)
            if number >= 0:
                contender.add_ms.append(add_ms)
                contender.del_ms.append(del_ms)
            demo_netns.remove(netns)


def one_by_one(place: Place, node: Path, contender: Contender, attaches: int, standing: int = 100) -> None:
    """`attaches` ADDs, one after the other; up to `standing` pods stand at a time, as on a full node.

    The namespaces stay until the place is cleared (200 KiB each): the kernel works for seconds on the end of hundreds of them, and
    would do so beside whatever is measured next.
    """
    for start in range(0, attaches, standing):
        pods = _fresh(place, min(standing, attaches - start))
        contender.add_ms += [contender.call("ADD", container_id, netns, node) for container_id, netns in pods]
        contender.del_ms += [contender.call("DEL", container_id, netns, node) for container_id, netns in pods]


def at_once(place: Place, node: Path, contender: Contender, attaches: int, width: int = 16) -> float:
    """Whole ADDs a second with `width` running at any time; their DELs afterwards are not counted. The namespaces stay."""
    pods = _fresh(place, attaches)

    def add(pod: tuple[str, Path]) -> None:
        contender.call("ADD", *pod, node)

    def delete(pod: tuple[str, Path]) -> None:
        contender.call("DEL", *pod, node)

    with ThreadPoolExecutor(max_workers=width) as pool:
        start_s = time.monotonic()
        list(pool.map(add, pods))
        took_s = time.monotonic() - start_s
        list(pool.map(delete, pods))
    return attaches / took_s


def _fresh(place: Place, count: int = 1) -> list[tuple[str, Path]]:
    """Container IDs with a network namespace each."""
    paths = demo_netns.add_pods([f"{place.prefix}p{next(_numbers)}" for _ in range(count)])
    return [(secrets.token_hex(32), path) for path in paths]
