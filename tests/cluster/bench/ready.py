"""From the creation of a Deployment until all of its pods are Ready: ours, and the distribution's macvlan + host-local, in turns.

Ours gives every pod an IPv4 and an IPv6 address; the rival IPv4 alone, as its plugins would wait 1.8 s for IPv6.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from tests.support.kube import namespace
from tests.support.kube_cluster import Cluster, await_true
from tests.support.kube_system import System
from tests.support.kube_workload import deployment

SIZES = (20, 60)
ROUNDS = 3
_WARM_UP = 4
_POLL_S = 0.05
_LIMIT_S = 180.0
_SEEN_S = 2.0
"""containerd looks at a changed folder of configurations within milliseconds; nothing tells when it has."""


def measure(
    cluster: Cluster, system: System, say: Callable[[str], None], rounds: int = ROUNDS
) -> dict[str, float]:
    """`ready20_ratio` and `ready60_ratio`, with the seconds of both."""
    space = namespace(cluster.server, "ready")
    account = f"/api/v1/namespaces/{space}/serviceaccounts/default"
    await_true("the namespace's service account", lambda: cluster.server.client.exists(account))
    contestants: dict[str, Callable[[], None]] = {
        "ours": lambda: _use_ours(cluster, system),
        "rival": lambda: _use_rival(cluster, system),
    }
    times: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds):
        for name, use in contestants.items() if number % 2 == 0 else reversed(contestants.items()):
            use()
            time.sleep(_SEEN_S)
            _ready_s(cluster, space, _WARM_UP, name)
            for size in SIZES:
                taken_s = _ready_s(cluster, space, size, name)
                times.setdefault((name, size), []).append(taken_s)
                say(f"round {number + 1}: {size} pods of {name} Ready in {taken_s:.2f} s")
    _use_ours(cluster, system)
    cluster.server.kubectl("delete", "namespace", space, "--timeout=90s")
    values: dict[str, float] = {}
    for size in SIZES:
        ours, rival = (statistics.median(times[name, size]) for name in ("ours", "rival"))
        values[f"ready{size}_ratio"] = ours / rival
        values[f"ready{size}_s"] = ours
    return values


def _use_ours(cluster: Cluster, system: System) -> None:
    system.install_cni()
    cluster.remove_macvlan_plugins()


def _use_rival(cluster: Cluster, system: System) -> None:
    cluster.use_macvlan_plugins()
    system.remove_cni()


def _ready_s(cluster: Cluster, space: str, size: int, name: str) -> float:
    path = f"/apis/apps/v1/namespaces/{space}/deployments"
    client = cluster.server.client
    began = time.monotonic()
    client.create(path, deployment("web", size))

    def ready() -> bool:
        return client.get(f"{path}/web")["status"].get("readyReplicas", 0) == size

    while not ready():
        if time.monotonic() - began > _LIMIT_S:
            raise RuntimeError(cluster.server.kubectl("get", "pods,events", "-n", space, check=False)[-4000:])
        time.sleep(_POLL_S)
    taken_s = time.monotonic() - began
    families = {len(pod["status"]["podIPs"]) for pod in cluster.pods(space)}
    assert families == ({2} if name == "ours" else {1}), f"{name} gave {families} addresses a pod"
    client.delete(f"{path}/web")
    await_true("pods gone", lambda: not cluster.pods(space), _LIMIT_S)
    return taken_s
