"""One running system for all tests with real runtimes: a node that is a namespace, and the machine itself as another.

Tests attach through `node` or `machine`; whatever a test leaves attached is detached after it, and then no lease may be left.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.standalone import demo_exec, demo_netns
from services.standalone.demo_exec import Answer
from services.standalone.demo_place import Place
from services.standalone.demo_system import System

# Test processes that run side by side have a place each; none may wait for another's.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
PLACE = Place(Path(f"/var/lib/orbweaver-test-runtime-{_WORKER}"), f"orbrt-{_WORKER}-")
NODE, MACHINE = "node-1", "machine"
PARENT, _PEER = f"orbrt-{_WORKER}", f"orbrs-{_WORKER}"
"""A link of the machine itself, made for these tests, and its other end, which stands for the switch."""
_OBJECTS = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: v4}
spec: {ipVersion: 4, subnet: 172.27.0.0/16, gateway: 172.27.0.1, ips: [172.27.0.2-172.27.9.254], default: true}
---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: v6}
spec: {ipVersion: 6, subnet: "fd00:27::/64", gateway: "fd00:27::1", ips: ["fd00:27::2-fd00:27::ffff"], default: true}
---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: tiny}
spec: {ipVersion: 4, subnet: 172.26.0.0/24, ips: [172.26.0.9]}
---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderMultusConfig
metadata: {name: named, namespace: kube-system}
spec: {cniType: macvlan, macvlan: {master: [eth1], ippools: {ipv4: [v4]}}, enableCoordinator: false}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: Pod
metadata:
  {name: elsewhere, namespace: shop, uid: elsewhere-uid, annotations: {ipam.spidernet.io/ippools: '[{"interface":"net7","ipv4":["v4"]}]'}}
spec: {nodeName: node-1, containers: [{name: main, image: example.com/main:1}]}
"""
_GARBAGE = """\
apiVersion: v1
kind: Pod
metadata:
  {name: garbage, namespace: shop, uid: garbage-uid, annotations: {ipam.spidernet.io/ippool: "{not json"}}
spec: {nodeName: node-1, containers: [{name: main, image: example.com/main:1}]}
"""


def native(**changes: Any) -> dict[str, Any]:
    """The native form on the parent of `node`; `None` takes a key away."""
    whole: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": "underlay",
        "type": "orbweaver",
        "cniType": "macvlan",
        "master": ["eth1"],
        "mtu": 0,
        "ippools": {"ipv4": ["v4"], "ipv6": ["v6"]},
    }
    return {key: value for key, value in (whole | changes).items() if value is not None}


def encoded(configuration: dict[str, Any] | bytes) -> bytes:
    return configuration if isinstance(configuration, bytes) else json.dumps(configuration).encode()


@dataclass
class Sandbox:
    """A container without a process: its ID and its network namespace."""

    container_id: str
    netns: Path


@dataclass
class Runtime:
    """A container runtime on one node. `node` is the namespace that is the node, None for the machine."""

    system: System
    shim: Path
    node: Path | None
    sandboxes: list[Sandbox] = field(default_factory=list[Sandbox])

    def sandbox(self) -> Sandbox:
        container_id = secrets.token_hex(32)
        (netns,) = demo_netns.add_pods([f"{PLACE.prefix}pod-{container_id[:12]}"])
        made = Sandbox(container_id, netns)
        self.sandboxes.append(made)
        return made

    def call(
        self,
        command: str,
        sandbox: Sandbox | None,
        configuration: dict[str, Any] | bytes | None = None,
        *,
        shim: Path | None = None,
        ifname: str = "eth0",
        netns: str | None = None,
        arguments: dict[str, str] | None = None,
        without: tuple[str, ...] = (),
        changes: dict[str, str] | None = None,
    ) -> Answer:
        """One exec. `without` and `changes` spoil the environment that a correct runtime would give."""
        environment = demo_exec.environment(
            command,
            container_id=sandbox.container_id if sandbox else "",
            netns=(str(sandbox.netns) if sandbox else "") if netns is None else netns,
            ifname=ifname,
            cni_path=f"{self.shim.parent}:/usr/lib/cni",
            arguments=arguments,
        ) | (changes or {})
        environment = {key: value for key, value in environment.items() if key not in without}
        body = encoded(native() if configuration is None else configuration)
        return demo_exec.call(shim or self.shim, environment, body, netns=self.node)

    def add(
        self, sandbox: Sandbox, configuration: dict[str, Any] | bytes | None = None, **more: Any
    ) -> dict[str, Any]:
        """A successful ADD's result."""
        answer = self.call("ADD", sandbox, configuration, **more)
        assert answer.ok, answer.complaint()
        return answer.result()

    def delete(
        self, sandbox: Sandbox, configuration: dict[str, Any] | bytes | None = None, **more: Any
    ) -> None:
        answer = self.call("DEL", sandbox, configuration, **more)
        assert answer.ok, answer.complaint()
        assert answer.stdout == b""

    def close(self) -> None:
        """Detaches and removes every sandbox of the test."""
        for sandbox in self.sandboxes:
            self.delete(sandbox)
            demo_netns.remove(sandbox.netns)
        self.sandboxes.clear()

    def links(self, sandbox: Sandbox) -> set[str]:
        return demo_netns.links(sandbox.netns) - {"lo"}

    def addresses(self, sandbox: Sandbox, ifname: str = "eth0") -> set[str]:
        """Global addresses with prefix lengths, as the kernel has them."""
        with demo_netns.entered(sandbox.netns):
            out = json.loads(demo_netns.run("ip", "-j", "addr", "show", "dev", ifname))
        return {f"{a['local']}/{a['prefixlen']}" for a in out[0]["addr_info"] if a["scope"] == "global"}


def error_of(answer: Answer) -> dict[str, Any]:
    """The one CNI error object of a failed call, with what the specification and people want of it."""
    assert answer.exit_code == 1, (answer.exit_code, answer.stdout, answer.stderr)
    error = json.loads(answer.stdout)
    assert set(error) <= {"cniVersion", "code", "msg", "details"}, error
    assert isinstance(error["cniVersion"], str)
    assert error["code"] > 0
    assert len(error["msg"]) > 10, "a sentence that says what happened"
    assert len(error["details"]) > 10, "a sentence that says what to do"
    return error


def until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)


def nothing_held(system: System) -> None:
    """No lease and no attachment, waiting for releases that are under way."""
    until(
        lambda: not system.get("leases") and not system.get("attachments"), "no lease and no attachment left"
    )


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    with PLACE.held(lambda: None):
        _remove_parent()
        node = PLACE.netns("node-1")
        demo_netns.build_switch(PLACE.netns("switch").name, [node.name], ["172.27.0.1/16", "fd00:27::1/64"])
        demo_netns.run("ip", "link", "add", PARENT, "type", "veth", "peer", "name", _PEER)
        try:
            for link in (PARENT, _PEER):
                demo_netns.run("ip", "link", "set", link, "up")
            system = System(PLACE.root, {NODE: node, MACHINE: None})
            (system.manifests / "objects.yaml").write_text(_OBJECTS)
            (system.manifests / "garbage.yaml").write_text(_GARBAGE)
            system.start()
            try:
                system.wait_ready(lambda line: None)
                yield system
            except BaseException:
                print(system.log_tail())
                raise
            finally:
                system.stop()
        finally:
            _remove_parent()


def _remove_parent() -> None:
    subprocess.run(["ip", "link", "del", PARENT], capture_output=True, check=False)


@pytest.fixture(scope="session")
def node_shim(system: System) -> Path:
    return system.install(NODE, PLACE.root / "cni" / NODE)


@pytest.fixture
def node(system: System, node_shim: Path) -> Iterator[Runtime]:
    """The node that is a namespace. After the test nothing is attached, and no lease is held."""
    runtime = Runtime(system, node_shim, PLACE.netns("node-1"))
    yield runtime
    runtime.close()
    nothing_held(system)
