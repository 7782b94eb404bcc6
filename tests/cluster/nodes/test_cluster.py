"""The cluster that other tests use: real nodes, pods that reach each other over the distribution's plugins, and nothing left of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support import kube_cgroup
from tests.support.kube import namespace
from tests.support.kube_cluster import Cluster
from tests.support.kube_image import BUSYBOX

KUBELETS_SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
FOLDERS = (
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/kubernetes",
    "/run/containerd",
)
"""What kubelet and runtime make for themselves, each on its own machine."""


def _of_this_machine(directory: Path) -> dict[str, object]:
    """What a cluster could leave behind; other test processes' own is not ours."""
    own = str(os.getpid())
    mounts = Path("/proc/mounts").read_text().splitlines()
    links = subprocess.run(
        ["ip", "-br", "link"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return {
        "namespaces": sorted(entry.name for entry in Path("/run/netns").glob(f"*{own}*")),
        "links": sorted(line.split()[0] for line in links if own in line.split()[0]),
        "mounts": sorted(path for line in mounts if own in (path := line.split()[1]) or str(directory) in path),
        "groups": sorted(name for name in kube_cgroup.names("orbkube-") if own in name),
        "settings": {name: Path("/proc/sys", name).read_text() for name in KUBELETS_SETTINGS},
        "folders": [path for path in FOLDERS if Path(path).exists()],
    }  # fmt: skip


def test_pods_of_two_nodes_reach_each_other_and_nothing_is_left(tmp_path: Path) -> None:
    before = _of_this_machine(tmp_path)
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.use_macvlan_plugins()
        cluster.await_ready()
        name = namespace(cluster.server)
        for node in ("node1", "node2"):
            container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never"}
            pod = {"metadata": {"name": f"on-{node}"}, "spec": {"nodeName": node, "containers": [container]}}
            cluster.server.kubectl(
                "wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=60s"
            )
            cluster.server.client.create(f"/api/v1/namespaces/{name}/pods", pod)
        pods = cluster.await_pods(name, 2)
        assert cluster.unreachable(name, pods) == []
        assert cluster.exec(name, "on-node1", "hostname").strip() == "on-node1"
    assert _of_this_machine(tmp_path) == before
    found = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert not found.stdout
