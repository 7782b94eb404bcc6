"""An installation's first minutes and its end, as an administrator sees them: it is soon Ready and nothing of it ended on the way; one
command takes all of it away, although pods have addresses; it comes again over what nodes have kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.cluster.deploy.conftest import POOLS
from tests.support.kube_cluster import Cluster, await_true, is_ready
from tests.support.kube_installation import NAMESPACE, TAGS, Installation
from tests.support.kube_space import Space
from tests.support.kube_workload import GROUP, deployment, pod, stateful_set

READY_S = 120.0
GONE_S = 120.0
"""On a machine of two cores that others use too; docs/deploy.md has what it takes."""
PODS = 4
CONFLIST = "/etc/cni/net.d/05-orbweaver.conflist"
PLUGINS = ("orbweaver", "spiderpool", "coordinator", "ifacer", "orbweaver.json")
STAYS = (CONFLIST, "/var/lib/orbweaver", *(f"/opt/cni/bin/{name}" for name in PLUGINS))


def await_first_ready(system: Installation) -> float:
    """Seconds from the apply until every pod is Ready."""
    began = time.monotonic()
    system.apply_overlay(TAGS[0])

    def all_ready() -> bool:
        pods = system.cluster.pods(NAMESPACE)
        return len(pods) >= len(system.workloads()) and all(map(is_ready, pods))

    await_true("every pod is Ready", all_ready, READY_S, system.why)
    return time.monotonic() - began


def restarts(system: Installation) -> dict[str, int]:
    found: dict[str, int] = {}
    for of_ours in system.cluster.pods(NAMESPACE):
        statuses: list[dict[str, Any]] = [
            *of_ours["status"].get("initContainerStatuses", []),
            *of_ours["status"].get("containerStatuses", []),
        ]
        for one in statuses:
            if one["restartCount"]:
                found[f"{of_ours['metadata']['name']}/{one['name']}"] = one["restartCount"]
    return found


def left(cluster: Cluster) -> list[str]:
    """What there is of us in the API, by name."""
    kinds = (
        "namespaces,crds,clusterroles,clusterrolebindings,"
        "validatingwebhookconfigurations,mutatingwebhookconfigurations"
    )
    names = cluster.server.kubectl("get", kinds, "-o", "name").split()
    return [name for name in names if "orbweaver" in name or GROUP.partition("/")[0] in name]


def test_from_the_first_apply_to_one_command_and_again(tmp_path: Path, archive: Path) -> None:
    with Cluster(tmp_path / "cluster", nodes=1) as cluster:
        system = Installation(cluster, [archive])
        for node in cluster.nodes:
            node.load(archive)
        took_s = await_first_ready(system)
        print(f"Ready {took_s:.1f} s after the apply")
        assert restarts(system) == {}
        system.apply(*POOLS)
        cluster.await_ready()
        space = Space(cluster, system)
        space.apply(deployment("web", PODS), stateful_set("db", 1), pod("alone"))
        space.await_pods(PODS + 2)
        endpoints = f"/apis/{GROUP}/namespaces/{space.name}/spiderendpoints"
        await_true("endpoints", lambda: len(cluster.server.client.items(endpoints)) == PODS + 2)
        before = space.addresses()

        began = time.monotonic()
        cluster.server.kubectl("delete", "-k", str(system.directory), f"--timeout={GONE_S:.0f}s")
        print(f"gone within {time.monotonic() - began:.1f} s")
        assert left(cluster) == []
        # Their networks are theirs as long as they live.
        assert space.addresses() == before and space.unreachable() == []
        for path in STAYS:
            assert cluster.nodes[0].path(path).exists(), path
        # One that goes is detached by whoever is the node's plugin then.
        cluster.use_macvlan_plugins()
        cluster.nodes[0].path(CONFLIST).unlink()
        space.kubectl("delete", "pod", "alone", "--timeout=60s")
        cluster.remove_macvlan_plugins()

        await_first_ready(system)
        assert restarts(system) == {}
        system.apply(*POOLS)
        space.delete()
        space.await_leases_of(set)
        system.uninstall()
        assert left(cluster) == []
