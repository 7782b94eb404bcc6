"""A real Kubernetes cluster on this machine: control plane, real nodes, an underlay between them, a management network beside it.

    with Cluster(directory, nodes=2) as cluster:
        cluster.use_macvlan_plugins()          # or any CNI configuration: the nodes are Ready when they have one
        cluster.await_ready()
        cluster.server.kubectl("create", "deployment", …)

Owns how the parts meet. Must not know the product. The API server listens on the management network's bridge, in the test's own network
namespace; each node has `eth0` there and `eth1` on the underlay, a bridge in a namespace of its own. Everything of a killed test
process is removed by the next cluster.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import kube_cgroup
from tests.support.kube import ApiServer
from tests.support.kube_image import small_images
from tests.support.kube_node import Node
from tests.support.lab import Lab, batch

UNDERLAY_V4 = "10.232.0.0/16"
READY_S = 90.0
_BRIDGE = "okm"
_GROUP = "orbkube"
_numbers = itertools.count(1)


class Cluster:
    """`directory` takes all files; `name` is unique to this process and use."""

    def __init__(
        self, directory: Path, nodes: int = 2, *, flags: tuple[str, ...] = (), audit: bool = False
    ) -> None:
        self.directory = directory
        self.name = f"{_GROUP}-{os.getpid()}-{next(_numbers)}"
        self.lab = Lab(nodes=nodes, gateways=("10.232.0.1/16", "fd00:232::1/64"))
        self._bridge = f"{_BRIDGE}{os.getpid()}x{self.name.rpartition('-')[2]}"
        self._network = _free_network()
        self.server = ApiServer(
            directory / "control-plane",
            address=f"{self._network}.1",
            controllers=True,
            scheduler=True,
            audit=audit,
            # Services are reached at their endpoints: no kube-proxy runs on the test machine.
            flags=("--enable-aggregator-routing=true", *flags),
        )
        self.nodes = [
            Node(
                f"node{number}",
                directory / f"node{number}",
                netns=Lab.path(namespace),
                address=f"{self._network}.{10 + number}",
                group=f"{self.name}-node{number}",
            )
            for number, namespace in enumerate(self.lab.nodes, 1)
        ]

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
        for node in self.nodes:
            node.stop()
        self.server.stop()
        self.lab.close()
        _delete_links(self._bridge)

    @property
    def gateway(self) -> str:
        """The test machine's address on the management network: where what runs beside the cluster can listen."""
        return f"{self._network}.1"

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def use_macvlan_plugins(self) -> None:
        """The distribution's macvlan and host-local plugins, each node with a range of its own."""
        for number, node in enumerate(self.nodes, 1):
            ranges = [
                [
                    {
                        "subnet": UNDERLAY_V4,
                        "rangeStart": f"10.232.{number}.10",
                        "rangeEnd": f"10.232.{number}.250",
                    }
                ]
            ]
            ipam = {"type": "host-local", "dataDir": "/var/lib/cni/networks", "ranges": ranges}
            plugin = {"type": "macvlan", "master": "eth1", "mode": "bridge", "ipam": ipam}
            node.write_cni(
                "10-macvlan.conflist", {"cniVersion": "0.4.0", "name": "macvlan", "plugins": [plugin]}
            )

    def remove_macvlan_plugins(self) -> None:
        for node in self.nodes:
            node.path("/etc/cni/net.d/10-macvlan.conflist").unlink(missing_ok=True)

    def await_ready(self, timeout_s: float = READY_S) -> None:
        await_true("all nodes Ready", lambda: all(self._is_ready(node) for node in self.nodes), timeout_s)

    def pods(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        query = {"labelSelector": selector} if selector else {}
        return self.server.client.items(f"/api/v1/namespaces/{namespace}/pods", **query)

    def ready_pods(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        return [pod for pod in self.pods(namespace, selector) if is_ready(pod)]

    def await_pods(
        self, namespace: str, count: int, selector: str = "", timeout_s: float = READY_S
    ) -> list[dict[str, Any]]:
        """Exactly `count` pods, all Ready, none of them being deleted; returns them."""

        def all_there() -> bool:
            pods = self.pods(namespace, selector)
            return len(pods) == count and all(is_ready(pod) and not is_leaving(pod) for pod in pods)

        await_true(f"{count} Ready pods in {namespace}", all_there, timeout_s, lambda: self._why(namespace))
        return self.pods(namespace, selector)

    def exec(self, namespace: str, pod: str, *argv: str, check: bool = True) -> str:
        return self.server.kubectl("exec", "-n", namespace, pod, "--", *argv, check=check)

    def unreachable(self, namespace: str, pods: list[dict[str, Any]], rounds: int = 1) -> list[str]:
        """Every pod pings every other address of `pods`; what did not answer, as `one -> 10.232.0.5`."""
        addresses = " ".join(address["ip"] for pod in pods for address in pod["status"]["podIPs"])
        script = f"for a in {addresses}; do ping -c {rounds} -W 3 $a >/dev/null 2>&1 || echo $a; done"

        def missed(pod: dict[str, Any]) -> list[str]:
            name = pod["metadata"]["name"]
            return [f"{name} -> {line}" for line in self.exec(namespace, name, "sh", "-c", script).split()]

        with ThreadPoolExecutor(4) as pool:
            return [line for lines in pool.map(missed, pods) for line in lines]

    def _build(self) -> None:
        batch(
            [
                f"link add {self._bridge} type bridge",
                f"address add {self.gateway}/24 dev {self._bridge}",
                f"link set {self._bridge} up",
            ]
        )
        self.lab.__enter__()
        for number, node in enumerate(self.nodes, 1):
            namespace = self.lab.nodes[number - 1]
            port = f"{self._bridge}n{number}"
            batch(
                [
                    f"link add {port} type veth peer name eth0 netns {namespace}",
                    f"link set {port} master {self._bridge} up",
                ]
            )
            batch(
                [
                    f"address add {node.address}/24 dev eth0",
                    "link set eth0 up",
                    f"route add default via {self.gateway}",
                ],
                namespace,
            )
            self.server.pki.issue(
                node.name,
                f"system:node:{node.name}",
                groups=("system:nodes",),
                hosts=(node.name, node.address),
            )
            self.server.write_kubeconfig(node.directory / "kubeconfig", certificate=node.name)
        images = small_images(self.directory / "images")
        with ThreadPoolExecutor(len(self.nodes) or 1) as pool:
            # In this thread what is started would otherwise die with the pool's thread (PR_SET_PDEATHSIG).
            for node in self.nodes:
                node.start_machine()
            for node in self.nodes:
                node.start_containerd()
            for loaded in [pool.submit(node.load, *images) for node in self.nodes]:
                loaded.result()
        self.server.start()
        for node in self.nodes:
            node.start_kubelet(node.directory / "kubeconfig", self.server.pki.directory)
        await_true("all nodes registered", self._are_registered)

    def _are_registered(self) -> bool:
        for node in self.nodes:
            node.kubelet.assert_running()
        return len(self.server.client.items("/api/v1/nodes")) == len(self.nodes)

    def _is_ready(self, node: Node) -> bool:
        node.kubelet.assert_running()
        return is_ready(self.server.client.get(f"/api/v1/nodes/{node.name}"))

    def _why(self, namespace: str) -> str:
        return self.server.kubectl("get", "pods,events", "-n", namespace, "-o", "wide", check=False)[-6000:]


def is_ready(thing: dict[str, Any]) -> bool:
    """A Pod or a Node."""
    conditions = thing.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def is_leaving(thing: dict[str, Any]) -> bool:
    return "deletionTimestamp" in thing["metadata"]


def await_true(
    what: str, ready: Callable[[], bool], timeout_s: float = READY_S, why: Callable[[], str] = lambda: ""
) -> None:
    """Raises AssertionError that says what did not come true, and `why`."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}\n{why()}"
        time.sleep(0.1)


def _free_network() -> str:
    """The first three numbers of a /24 that no route of this machine leads to, in the range for carriers' own use (RFC 6598)."""
    routes = json.loads(
        subprocess.run(["ip", "-j", "route"], capture_output=True, check=True, text=True).stdout
    )
    taken = {route["dst"].rpartition(".")[0] for route in routes}
    dice = random.SystemRandom()
    while (network := f"100.{dice.randint(64, 127)}.{dice.randint(0, 255)}") in taken:
        pass
    return network


def _delete_links(prefix: str) -> None:
    """A node's end goes with ours; the kernel would otherwise take it away some time after the namespace."""
    for link in Path("/sys/class/net").glob(f"{prefix}*"):
        subprocess.run(["ip", "link", "delete", link.name], capture_output=True, check=False)


def _remove_left_over() -> None:
    for link in Path("/sys/class/net").glob(f"{_BRIDGE}*"):
        owner = link.name.removeprefix(_BRIDGE).partition("x")[0]
        if not Path(f"/proc/{owner}").exists():
            _delete_links(link.name)
    for group in kube_cgroup.names(f"{_GROUP}-"):
        if not Path(f"/proc/{group.split('-')[1]}").exists():
            kube_cgroup.remove(group)
