"""One real system of two nodes for the tests of the command, and what a container runtime does to it.

The nodes are namespaces of tests.support.lab; `orbweaver up` runs in the foreground and dies with the test process.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.standalone import demo_exec
from services.standalone.demo_system import System
from tests.support.lab import Lab

NODES = ("n1", "n2")
PODS = ("web-1", "web-2")
OBJECTS = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: v4}
spec: {subnet: 172.28.0.0/24, gateway: 172.28.0.1, ips: [172.28.0.10-172.28.0.19], excludeIPs: [172.28.0.15], default: true}
---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: v6}
spec: {subnet: "fd00:28::/64", ips: ["fd00:28::10-fd00:28::19"], default: true}
---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderReservedIP
metadata: {name: printers}
spec: {ips: [172.28.0.19]}
---
apiVersion: v1
kind: Namespace
metadata: {name: prod}
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: prod, uid: {name}-uid}}
spec: {{nodeName: {node}}}
"""
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "underlay",
    "type": "orbweaver",
    "cniType": "macvlan",
    "master": ["eth1"],
}


@dataclass
class Attached:
    """One attachment as its runtime knows it."""

    pod: str
    node: str
    container_id: str
    netns: str
    addresses: tuple[str, ...] = ()


class Stage:
    """`cli` runs the command; `attach` and `detach` exec the installed shim as a runtime does."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        nodes = {name: Path(lab.path(netns)) for name, netns in zip(NODES, lab.nodes, strict=True)}
        self.system = System(directory, nodes)
        self.manifests = self.system.manifests
        (self.manifests / "objects.yaml").write_text(OBJECTS)
        for number, name in enumerate(PODS):
            (self.manifests / f"{name}.yaml").write_text(POD.format(name=name, node=NODES[number]))
        self._bin = directory / "bin"

    def start(self) -> None:
        self.system.start()
        self.system.wait_ready(lambda line: None)
        for node in NODES:
            self.system.install(node, self._bin / node)

    def cli(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.system.command(*words),
            env=self.system.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def done(self, *words: str) -> str:
        """What a command prints that must succeed and complain of nothing."""
        done = self.cli(*words)
        assert (done.returncode, done.stderr) == (0, ""), f"{words}: {done}"
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.done(*words, "-o", "json"))

    def items(self, *words: str) -> list[dict[str, Any]]:
        listed = self.json("get", *words)
        assert (listed["apiVersion"], listed["kind"]) == ("v1", "List")
        return listed["items"]

    def attach(self, pod: str) -> Attached:
        node = NODES[PODS.index(pod)]
        netns = self.lab.pod()
        attached = Attached(pod=pod, node=node, container_id=secrets.token_hex(32), netns=netns)
        answer = self.call("ADD", attached)
        assert answer.exit_code == 0, answer.stdout
        result = json.loads(answer.stdout)
        attached.addresses = tuple(ip["address"] for ip in result["ips"])
        return attached

    def detach(self, attached: Attached) -> None:
        answer = self.call("DEL", attached)
        assert answer.exit_code == 0, answer.stdout

    def call(self, command: str, attached: Attached) -> demo_exec.Answer:
        arguments = demo_exec.pod_arguments(
            "prod", attached.pod, f"{attached.pod}-uid", attached.container_id
        )
        variables = demo_exec.environment(
            command,
            container_id=attached.container_id,
            netns=self.lab.path(attached.netns),
            arguments=arguments,
        )
        return demo_exec.call(
            self._bin / attached.node / "orbweaver", variables, json.dumps(NETWORK).encode()
        )


@contextmanager
def running(directory: Path) -> Iterator[Stage]:
    """A whole system that keeps its files in `directory`."""
    with Lab(nodes=2, gateways=("172.28.0.1/24",)) as lab:
        stage = Stage(lab, directory)
        try:
            stage.start()
            yield stage
        finally:
            stage.system.stop()


@contextmanager
def all_attached(stage: Stage) -> Iterator[list[Attached]]:
    """A pod on each node; detached afterwards."""
    found = [stage.attach(pod) for pod in PODS]
    yield found
    for one in found:
        stage.detach(one)
        stage.lab.remove(one.netns)
