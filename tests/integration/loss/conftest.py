"""A real system of two nodes, and what befalls its store: deleted, cut, altered, put back from yesterday."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.standalone import demo_exec
from services.standalone.demo_system import System
from services.standalone.layout import Layout
from services.standalone.process import await_gone, send
from services.standalone.state import read_system
from services.standalone.system import ProcessMark
from tests.integration.cli.stage import NETWORK, NODES, POD
from tests.support.lab import Lab

OBJECTS = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: v4}
spec: {subnet: 172.29.0.0/16, gateway: 172.29.0.1, ips: [172.29.1.1-172.29.200.255], default: true}
---
apiVersion: v1
kind: Namespace
metadata: {name: prod}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
"""


class Pod:
    """One attachment; `name` is empty for a container that no pod stands behind."""

    def __init__(self, node: str, name: str, netns: str) -> None:
        self.node = node
        self.name = name
        self.netns = netns
        self.container_id = secrets.token_hex(32)
        self.address = ""


class Stage:
    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        nodes = {name: Path(lab.path(netns)) for name, netns in zip(NODES, lab.nodes, strict=True)}
        self.system = System(directory, nodes)
        self.layout = Layout(self.system.state)
        self.manifests = self.system.manifests
        (self.manifests / "objects.yaml").write_text(OBJECTS)
        self._bin = directory / "bin"
        self.pods: list[Pod] = []

    def start(self) -> None:
        self.system.start()
        self.system.wait_ready(lambda line: None)
        for node in NODES:
            self.system.install(node, self._bin / node)

    # Processes

    def pids(self, service: str, node: str = "") -> list[ProcessMark]:
        found = read_system(self.system.state)
        assert found is not None
        return [
            entry.mark
            for entry in found.services
            if entry.mark is not None
            and service in (entry.service, entry.instance)
            and node in ("", entry.node)
        ]

    def signal(self, number: signal.Signals, service: str, node: str = "") -> list[ProcessMark]:
        marks = self.pids(service, node)
        assert marks, f"no {service} runs"
        for mark in marks:
            assert send(mark, number)
        return marks

    def end(self, service: str, *, kill: bool = True) -> None:
        """The supervisor starts it again."""
        marks = self.signal(signal.SIGKILL if kill else signal.SIGTERM, service)
        assert not await_gone(marks, 10.0)

    def stop(self, service: str, node: str = "") -> Callable[[], None]:
        """SIGSTOP: the process is there and does nothing. Returns what lets it go on."""
        marks = self.signal(signal.SIGSTOP, service, node)

        def go_on() -> None:
            for mark in marks:
                send(mark, signal.SIGCONT)

        return go_on

    # Pods

    def pod(self, node: str, name: str = "") -> Pod:
        made = Pod(node, name, self.lab.pod())
        if name:
            (self.manifests / f"{name}.yaml").write_text(POD.format(name=name, node=node))
        self.pods.append(made)
        return made

    def call(self, verb: str, pod: Pod, deadline_s: float = 0.0) -> demo_exec.Answer:
        arguments = (
            demo_exec.pod_arguments("prod", pod.name, f"{pod.name}-uid", pod.container_id)
            if pod.name
            else None
        )
        variables = demo_exec.environment(
            verb, container_id=pod.container_id, netns=self.lab.path(pod.netns), arguments=arguments
        )
        program = self._bin / pod.node / "orbweaver"
        with self._deadline(program.with_name("orbweaver.json"), deadline_s):
            return demo_exec.call(program, variables, json.dumps(NETWORK).encode())

    @contextlib.contextmanager
    def _deadline(self, configuration: Path, deadline_s: float) -> Iterator[None]:
        """A shorter patience for an ADD that is to be refused."""
        text = configuration.read_text()
        if deadline_s:
            configuration.write_text(json.dumps({**json.loads(text), "deadlines_s": {"ADD": deadline_s}}))
        try:
            yield
        finally:
            configuration.write_text(text)

    def attach(self, *pods: Pod) -> None:
        for pod in pods:
            answer = self.call("ADD", pod)
            assert answer.ok, answer.complaint()
            address = answer.result()["ips"][0]["address"].partition("/")[0]
            assert pod.address in ("", address), f"{pod.name} had {pod.address}, now {address}"
            pod.address = address

    def detach(self, pod: Pod) -> None:
        answer = self.call("DEL", pod)
        assert answer.ok, answer.complaint()
        pod.address = ""
        self.pods.remove(pod)
        self.lab.remove(pod.netns)

    # Looking

    def json(self, *words: str) -> Any:
        return json.loads(self.system.cli(*words, "-o", "json"))

    def leases(self) -> dict[str, dict[str, Any]]:
        return {item["address"]: item for item in self.json("get", "leases")["items"]}

    def findings(self, check: str) -> list[dict[str, Any]]:
        """What the doctor finds; it ends with 1 where something is to be mended."""
        done = subprocess.run(
            self.system.command("doctor", "-o", "json"),
            env=self.system.environment,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return [one for one in json.loads(done.stdout)["findings"] if one["check"] == check]

    def allocators_say(self, text: str) -> int:
        return sum(path.read_text().count(text) for path in self.layout.log.glob("allocator*.log"))

    def incarnation(self) -> str:
        # Beside it may lie what an allocator had begun to write when it was killed.
        return json.loads((self.layout.marks / "leases.json").read_text())["incarnation"]

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if condition():
                    return
            except Exception as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{what}: {error}") from error
            assert time.monotonic() < deadline, (
                f"not within {timeout_s} s: {what}\n{self.system.log_tail(30)}"
            )
            time.sleep(0.1)

    def check(self) -> None:
        """No address twice, and each attached pod's lease is in the index under its container."""
        attached = [pod for pod in self.pods if pod.address]
        assert len({pod.address for pod in attached}) == len(attached), "an address was given twice"
        leases = self.leases()
        for pod in attached:
            assert leases[pod.address]["containerID"] == pod.container_id, f"{pod.address} of {pod.name}"
        assert self.json("get", "leases")

    # What befalls the store

    @property
    def store(self) -> Path:
        return self.layout.jetstream

    @contextlib.contextmanager
    def at_rest(self, *services: str) -> Iterator[None]:
        """These processes are killed, and started again by the supervisor only afterwards."""
        found = read_system(self.system.state)
        assert found is not None and found.supervisor is not None
        assert send(found.supervisor, signal.SIGSTOP)
        try:
            for service in services:
                self.end(service)
            yield
        finally:
            assert send(found.supervisor, signal.SIGCONT)


class LogFile:
    """The lease log's one block file, as nats-server 2.15 writes it (server/filestore.go, writeMsgRecord): length, sequence, time,
    length of the subject, subject, message, hash. Only while the server is at rest."""

    def __init__(self, store: Path) -> None:
        (self.path,) = store.rglob("LEASES/msgs/*.blk")

    def records(self) -> list[tuple[int, int]]:
        """Offset and length of each."""
        content = self.path.read_bytes()
        found: list[tuple[int, int]] = []
        at = 0
        while at + 22 <= len(content):
            (length,) = struct.unpack_from("<I", content, at)
            length &= 0x7FFF_FFFF
            if not length:
                break
            found.append((at, length))
            at += length
        return found

    def cut(self, records: int) -> None:
        """Takes the last records off, and what the server has written down of how many there were."""
        offset, _ = self.records()[-records]
        with self.path.open("r+b") as file:
            file.truncate(offset)
        for index in self.path.parent.glob("index.db"):
            index.unlink()

    def flip(self, record: int) -> None:
        """One bit in the middle of the record's message."""
        offset, length = self.records()[record]
        at = offset + length * 2 // 3
        with self.path.open("r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 0x10]))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Lab(nodes=2, gateways=("172.29.0.1/16",)) as lab:
        running = Stage(lab, tmp_path_factory.mktemp("loss"))
        try:
            running.start()
            yield running
        finally:
            running.system.stop()


@pytest.fixture
def stage(system: Stage) -> Iterator[Stage]:
    """The module's system, without pods at the start and the end."""
    yield system
    for pod in tuple(system.pods):
        system.call("DEL", pod)
        system.lab.remove(pod.netns)
        (system.manifests / f"{pod.name}.yaml").unlink(missing_ok=True)
    system.pods.clear()
