"""An API server that is away while pods attach and detach; the short form is a test of every run, the long one of `make test-cluster-long`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.kube_cluster import Cluster, await_true
from tests.support.kube_space import Space
from tests.support.kube_system import System
from tests.support.kube_workload import deployment, pod

_STATIC_A_NODE = 3
_REPLICAS = 6


def hold_through(directory: Path, outage_s: float) -> int:
    """How often pods attached anew while the API server was away. Raises AssertionError when one did not, or got another address."""
    with Cluster(directory) as cluster, System(cluster) as system:
        space = Space(cluster, system)
        static = [f"static{number}" for number in range(_STATIC_A_NODE)]
        for node, name in itertools.product(cluster.nodes, static):
            node.write_static_pod(_static(space, name))
        space.apply(deployment("web", _REPLICAS))
        total = _REPLICAS + _STATIC_A_NODE * len(cluster.nodes)
        space.await_pods(total)
        before = space.addresses()
        space.await_status()
        cluster.server.stop_api()
        deadline = time.monotonic() + outage_s
        attached = 0
        *again, leaving = static
        for name in itertools.cycle(again):
            if time.monotonic() > deadline:
                break
            attached += _static_pods_again(space, name)
            attached += _sandboxes_again(space, [key for key in before if key.startswith("web-")][:2])
        left = _static_pods_end(space, leaving)
        cluster.server.start_api()
        assert system.failures() == []
        total -= len(left)
        space.await_pods(total)
        assert space.addresses() == {name: held for name, held in before.items() if name not in left}
        # What came anew meanwhile is Ready by the word of before until its kubelet has told.
        await_true("all that is Ready runs", lambda: _all_run(space))
        assert space.unreachable() == []
        # What ended meanwhile has given its addresses back, and Kubernetes is told.
        space.await_leases_of(lambda: set(before) - set(left))
        space.await_status()
        # What came after is served as ever.
        space.kubectl("scale", "deployment/web", f"--replicas={_REPLICAS + 2}")
        space.await_pods(total + 2)
        space.await_status()
        assert system.failures() == []
        assert system.ask.allocator().violations == ()
        return attached


def _all_run(space: Space) -> bool:
    names = [pod["metadata"]["name"] for pod in space.pods()]
    return not any(space.cluster.exec(space.name, name, "true", check=False) for name in names)


def _static(space: Space, name: str) -> dict[str, Any]:
    manifest = pod(name)
    manifest["metadata"]["namespace"] = space.name
    return manifest


def _static_pods_again(space: Space, name: str) -> int:
    """The pod of that name on each node ends, and begins again."""
    names = _static_pods_end(space, name)
    for node in space.cluster.nodes:
        node.write_static_pod(_static(space, name))
    await_true(f"{names} attached again", lambda: all(one in _sandboxes(space) for one in names))
    return len(names)


def _static_pods_end(space: Space, name: str) -> list[str]:
    """The pods of that name on all nodes, which are detached now."""
    names = [f"{name}-{node.name}" for node in space.cluster.nodes]
    for node in space.cluster.nodes:
        node.remove_static_pod(name)
    await_true(f"{names} detached", lambda: not any(one in _sandboxes(space) for one in names))
    return names


def _sandboxes_again(space: Space, names: list[str]) -> int:
    """The sandboxes of pods whose objects are there are killed, and made anew."""
    old = _sandboxes(space)
    for name in names:
        space.system.kill_sandbox(space.name, name)
    await_true(
        f"{names} in new sandboxes",
        lambda: all(_sandboxes(space).get(name, old[name]) != old[name] for name in names),
    )
    return len(names)


def _sandboxes(space: Space) -> Mapping[str, str]:
    """Container ids by pod."""
    live = space.system.live()
    return {
        key.partition("/")[2]: views[-1].container_id
        for key, views in live.items()
        if key.startswith(space.name)
    }
