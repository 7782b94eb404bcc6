"""What the further interfaces of a pod cost: ADDs of eight in the native form against ADDs of one, interleaved, exec to exit.

Owns the pods that ask for them, as objects of the system under measurement. Must not know what the figure must be.
"""

from __future__ import annotations

import json
import secrets
import statistics
from pathlib import Path

from services.standalone import demo_exec, demo_netns
from services.standalone.demo_place import Place
from services.standalone.demo_system import System

INTERFACES = 8
_NAMESPACE = "bench"
_WARM_UP = 3
_NETWORK = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {{name: rail{n}-v4}}
spec: {{ipVersion: 4, subnet: 172.20.{n}.0/24, gateway: 172.20.{n}.1, ips: [172.20.{n}.2-172.20.{n}.254]}}
---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {{name: rail{n}-v6}}
spec: {{ipVersion: 6, subnet: "fd00:20:{n}::/64", gateway: "fd00:20:{n}::1", ips: ["fd00:20:{n}::2-fd00:20:{n}::ffff"]}}
---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderMultusConfig
metadata: {{name: rail{n}, namespace: bench}}
spec:
  cniType: macvlan
  macvlan: {{master: [eth1], ippools: {{ipv4: [rail{n}-v4], ipv6: [rail{n}-v6]}}}}
  enableCoordinator: false
---
"""
_CONFIGURATION = json.dumps(
    {
        "cniVersion": "1.0.0",
        "name": "bench",
        "type": "orbweaver",
        "cniType": "macvlan",
        "master": ["eth1"],
        "multiNetwork": "native",
        "ippools": {"ipv4": ["bench-v4"], "ipv6": ["bench-v6"]},
    }
).encode()


def measure(
    place: Place, system: System, node_name: str, node: Path, shim: Path, rounds: int
) -> dict[int, float]:
    """Milliseconds of an ADD (p50, dual-stack) by the number of interfaces, 1 and INTERFACES. Raises RuntimeError."""
    file = system.manifests / "several.yaml"
    numbers = range(rounds + _WARM_UP)
    rails = ",".join(f"rail{n}" for n in range(1, INTERFACES))
    pods = [_pod(f"one-{n}", node_name, "") for n in numbers] + [
        _pod(f"many-{n}", node_name, rails) for n in numbers
    ]
    networks = "".join(_NETWORK.format(n=n) for n in range(1, INTERFACES))
    file.write_text(networks + "\n---\n".join(map(json.dumps, pods)))
    system.sync()
    taken: dict[str, list[float]] = {"one": [], "many": []}
    try:
        for number in numbers:
            for kind in ("one", "many") if number % 2 else ("many", "one"):
                container_id = secrets.token_hex(32)
                (netns,) = demo_netns.add_pods([f"{place.prefix}{kind}-{number}"])
                add_ms = _call(shim, "ADD", f"{kind}-{number}", container_id, netns, node)
                _call(shim, "DEL", f"{kind}-{number}", container_id, netns, node)
                demo_netns.remove(netns)
                if number >= _WARM_UP:
                    taken[kind].append(add_ms)
    finally:
        file.unlink()
        system.sync()
    return {1: statistics.median(taken["one"]), INTERFACES: statistics.median(taken["many"])}


def _pod(name: str, node_name: str, networks: str) -> dict[str, object]:
    marks = {"annotations": {"k8s.v1.cni.cncf.io/networks": networks}} if networks else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": _NAMESPACE, "uid": f"{name}-uid", **marks},
        "spec": {"nodeName": node_name, "containers": [{"name": "main", "image": "example.com/main:1"}]},
    }


def _call(shim: Path, command: str, pod: str, container_id: str, netns: Path, node: Path) -> float:
    answer = demo_exec.call(
        shim,
        demo_exec.environment(
            command,
            container_id=container_id,
            netns=str(netns),
            cni_path=str(shim.parent),
            arguments=demo_exec.pod_arguments(_NAMESPACE, pod, f"{pod}-uid", container_id),
        ),
        _CONFIGURATION,
        netns=node,
    )
    if not answer.ok:
        raise RuntimeError(f"{command} of pod {pod}: {answer.complaint()}")
    return answer.duration_ms
