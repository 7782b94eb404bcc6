"""One system of two nodes and a hundred pods, whose processes die while all of them are attached or detached at once.

Owns the rounds: arm, storm, recovery, and the judgement after it, which asks the lease log, the journals and the kernel. The
system runs as `orbweaver up` runs it, and a storm is made of execs of the installed shim.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
import secrets
import signal
import socket
import struct
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from services.cli import question
from services.cli.system import System as Asked
from services.standalone import demo_exec, demo_netns
from services.standalone.assembly import hub_bus, tools_bus
from services.standalone.demo_system import System
from services.standalone.layout import Layout
from services.standalone.process import await_gone, mark_of, send
from services.standalone.state import read_credentials, read_system
from services.standalone.system import ProcessMark
from shared.bus import Bus, BusError
from shared.contracts.codec import encode
from shared.contracts.facts import SYNC_ANSWER, AskSync
from shared.contracts.query import AttachmentView, LeaseView, QueryLeases
from shared.failpoint import parse
from shared.subjects import ASK_SYNC, RELEASES
from tests.support.lab import Lab, batch

NODES = ("n1", "n2")
PODS = 100
RECOVERY_S = 30.0
STRUCK_AFTER = 5
"""So many calls are answered, and at least as many are not, when a storm is struck."""
SNAPSHOT_RECORDS = 4
ALLOCATORS = ("allocator-0", "allocator-1")
_SIOCGIFADDR = 0x8915
"""include/uapi/linux/sockios.h"""
_OBJECTS = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: v4}
spec: {subnet: 172.28.0.0/16, gateway: 172.28.0.1, ips: [172.28.0.10-172.28.0.250], default: true}
---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: v6}
spec: {subnet: "fd00:28::/64", gateway: "fd00:28::1", ips: ["fd00:28::10-fd00:28::ffff"], default: true}
---
apiVersion: v1
kind: Namespace
metadata: {name: prod}
"""
_POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: prod, uid: {uid}}}
spec: {{nodeName: {node}}}
"""
_NETWORK = json.dumps(
    {
        "cniVersion": "1.0.0",
        "name": "underlay",
        "type": "orbweaver",
        "cniType": "macvlan",
        "master": ["eth1"],
        "ippools": {"ipv4": ["v4"], "ipv6": ["v6"]},
    }
).encode()

T = TypeVar("T")
Lives = tuple[str, ...]
"""What successive processes of an instance are armed with: one or two."""


@dataclass
class Pod:
    """A pod of the present round; its namespace serves round after round. `occupied`: it has a default route by a link of its own."""

    name: str
    node: str
    netns: Path
    occupied: bool
    uid: str = ""
    container_id: str = ""
    result: dict[str, Any] | None = None

    @property
    def addresses(self) -> set[str]:
        assert self.result is not None
        return {ip["address"] for ip in self.result["ips"]}

    @property
    def own_links(self) -> set[str]:
        return {"lo", "had0", "had1"} if self.occupied else {"lo"}


class Stage:
    """`arm` before a storm, `strike` in the middle of one; `attach_all` and `detach_all` are storms with their judgement."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        nodes = {name: Path(lab.path(netns)) for name, netns in zip(NODES, lab.nodes, strict=True)}
        self.system = System(directory, nodes)
        (self.system.manifests / "objects.yaml").write_text(_OBJECTS)
        self._bin = directory / "bin"
        self._loop = asyncio.new_event_loop()
        self._asked: Asked | None = None
        self.clean = True
        """Nothing is attached."""
        self.leader = ""
        """The replica that led when the last storm was prepared."""
        self._threads = ThreadPoolExecutor(PODS)
        self.pods = [
            Pod(name=f"web-{i}", node=NODES[i % 2], netns=Path(lab.path(name)), occupied=i % 20 in (0, 1))
            for i, name in enumerate(lab.pods(PODS))
        ]

    def start(self) -> None:
        self._furnish()
        self.system.start()
        self.system.wait_ready(lambda line: None)
        for node in NODES:
            self.system.install(node, self._bin / node)
        for instance in ALLOCATORS:
            self._often_snapshot(instance)

    def _often_snapshot(self, instance: str) -> None:
        """From its next process on."""
        settings = Layout(self.system.state).settings_file(instance)
        settings.write_text(
            json.dumps(json.loads(settings.read_text()) | {"snapshot_records": SNAPSHOT_RECORDS})
        )

    def close(self) -> None:
        if self._asked is not None:
            self._loop.run_until_complete(self._asked.close())
        self._loop.close()
        self._threads.shutdown()
        self.system.stop()

    def _furnish(self) -> None:
        """Every other pod has IPv6 switched off, as container runtimes leave it; some have a default route already."""
        for number, pod in enumerate(self.pods):
            if number % 4 > 1:
                with demo_netns.entered(pod.netns):
                    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
            if pod.occupied:
                batch(
                    [
                        "link add had0 type veth peer name had1",
                        "link set had1 up",
                        "link set had0 up",
                        "address add 192.0.2.2/24 dev had0",
                        "route add default via 192.0.2.1",
                    ],
                    pod.netns.name,
                )

    # What the system tells.

    def ask(self, asked: Callable[[Asked], Coroutine[Any, Any, T]]) -> T:
        async def work() -> T:
            if self._asked is None:
                file, credentials = read_system(self.system.state), read_credentials(self.system.state)
                assert file is not None
                assert credentials is not None
                settings = tools_bus(file.ports, credentials)
                bus = await Bus.connect(settings, "test")
                self._asked = Asked(file, credentials, bus, in_cluster=False)
            return await asked(self._asked)

        return self._loop.run_until_complete(work())

    def leases(self) -> list[LeaseView]:
        return self.ask(lambda system: question.leases(system, QueryLeases()))

    def attachments(self) -> dict[str, tuple[AttachmentView, ...] | BusError]:
        return self.ask(lambda system: question.attachments(system, check=True))

    def by_container(self) -> dict[str, AttachmentView]:
        shown: dict[str, AttachmentView] = {}
        for node, answer in self.attachments().items():
            assert not isinstance(answer, BusError), (node, answer)
            shown |= {view.container_id: view for view in answer}
        return shown

    def queued(self) -> int:
        """Releases in the work queue, which tools may not look into."""

        async def messages(system: Asked) -> int:
            bus = await Bus.connect(hub_bus(system.file.ports, system.credentials, "allocator"), "test")
            try:
                return (await bus.stream_state(RELEASES.name)).messages
            finally:
                await bus.close()

        return self.ask(messages)

    def sync(self) -> None:
        async def synced(system: Asked) -> bool:
            try:
                answer = SYNC_ANSWER.decode((await system.bus.request(ASK_SYNC, encode(AskSync()), 5.0)).data)
                assert not answer.problems, answer.problems
                await question.allocator(system, answer.facts_sequence)
            except BusError:
                return False
            return True

        until(lambda: self.ask(synced), "the folder is in force")
        self.leader = self.ask(question.allocator).replica

    # Processes.

    def mark(self, instance: str) -> ProcessMark | None:
        file = read_system(self.system.state)
        assert file is not None
        (entry,) = (entry for entry in file.services if entry.instance == instance)
        return entry.mark

    def kill(self, instance: str, number: signal.Signals = signal.SIGKILL) -> ProcessMark | None:
        mark = self.mark(instance)
        if mark is not None:
            send(mark, number)
        return mark

    def stall(self, instance: str, for_s: float) -> None:
        mark = self.kill(instance, signal.SIGSTOP)
        assert mark is not None
        time.sleep(for_s)
        send(mark, signal.SIGCONT)

    @contextmanager
    def armed(self, arms: Mapping[str, Lives]) -> Generator[None]:
        """Processes armed with the first of their lives are at work; the second is for whom the supervisor starts after
        them. At the end all of it must have been hit, and every service answers."""
        known = {instance: self.hits(instance) for instance in arms}
        self._put({instance: lives[0] for instance, lives in arms.items()})
        old = {instance: self.kill(instance) for instance in arms}
        for instance, mark in old.items():
            until(lambda i=instance, m=mark: self._is_new(i, m), f"{instance} runs again")
        self.settle()
        self._put({instance: lives[1] for instance, lives in arms.items() if len(lives) > 1})
        yield
        for instance, lives in arms.items():
            among = ALLOCATORS if instance in ALLOCATORS else (instance,)
            for one in (one for text in lives for one in parse(text)):
                line = f"{one.name}:{one.n}:{one.action}"
                until(
                    lambda line=line, among=among: any(line in self.hits(i)[len(known[i]) :] for i in among),
                    f"{line} is hit in {' or '.join(among)}",
                )
        self.settle()

    def _put(self, texts: Mapping[str, str]) -> None:
        for instance, text in texts.items():
            (self.system.state / "failpoint" / instance).write_text(text)

    @contextmanager
    def without(self, instance: str) -> Generator[None]:
        """The process is dead meanwhile: the supervisor, which would start another, is stopped."""
        file = read_system(self.system.state)
        assert file is not None
        assert file.supervisor is not None
        send(file.supervisor, signal.SIGSTOP)
        try:
            mark = self.kill(instance)
            assert mark is not None
            assert not await_gone((mark,), 5.0)
            yield
        finally:
            send(file.supervisor, signal.SIGCONT)

    def _is_new(self, instance: str, old: ProcessMark | None) -> bool:
        mark = self.mark(instance)
        return mark is not None and mark != old and mark_of(mark.pid) == mark

    def settle(self) -> None:
        """Returns when every service answers."""

        async def answers(system: Asked) -> bool:
            try:
                await question.allocator(system)
                by_node = await question.attachments(system)
                return not any(isinstance(answer, BusError) for answer in by_node.values())
            except BusError:
                return False

        until(lambda: self.ask(answers), "every service answers")

    def log(self, instance: str) -> str:
        return (self.system.state / "log" / f"{instance}.log").read_text(errors="replace")

    def hits(self, instance: str) -> list[str]:
        """Every failpoint that was hit in a process of the instance so far."""
        return re.findall(r"^failpoint (\S+)$", self.log(instance), re.MULTILINE)

    def doctor(self) -> None:
        findings = json.loads(self.system.cli("doctor", "-o", "json"))["findings"]
        assert not [one for one in findings if one["result"] == "fail"]

    # Storms.

    def call(self, verb: str, pod: Pod) -> demo_exec.Answer:
        arguments = demo_exec.pod_arguments("prod", pod.name, pod.uid, pod.container_id)
        variables = demo_exec.environment(
            verb, container_id=pod.container_id, netns=str(pod.netns), arguments=arguments
        )
        return demo_exec.call(self._bin / pod.node / "orbweaver", variables, _NETWORK)

    def storm(self, verb: str, strike: Callable[[], None] | None = None) -> dict[str, demo_exec.Answer]:
        """All pods at once; `strike` comes when some have their answer and many have not. Raises AssertionError for a call that
        fails."""
        calls = {pod.name: self._threads.submit(self.call, verb, pod) for pod in self.pods}
        if strike is not None:
            until(
                lambda: sum(call.done() for call in calls.values()) >= STRUCK_AFTER, "some calls are answered"
            )
            running = sum(not call.done() for call in calls.values())
            strike()
            assert running >= STRUCK_AFTER, f"the strike came late: only {running} were still running"
        answers = {name: call.result() for name, call in calls.items()}
        failed = [f"{name}: {answer.complaint()}" for name, answer in answers.items() if not answer.ok]
        assert not failed, f"{len(failed)} of {len(answers)} {verb} failed: {failed[:5]}"
        return answers

    def new_pods(self, *, synced: bool = True) -> None:
        """The pods of a new round; not `synced`: the controller may learn of them while they are attached."""
        self.clean = False
        for pod in self.pods:
            pod.uid = secrets.token_hex(16)
            pod.container_id = secrets.token_hex(32)
            pod.result = None
        self._write_pods(
            "---\n".join(_POD.format(name=pod.name, uid=pod.uid, node=pod.node) for pod in self.pods)
        )
        if synced:
            self.sync()

    def _write_pods(self, text: str) -> None:
        unfinished = self.system.manifests / ".pods.unfinished"
        unfinished.write_text(text)
        unfinished.rename(self.system.manifests / "pods.yaml")

    def attach_all(self, strike: Callable[[], None] | None = None) -> None:
        answers = self.storm("ADD", strike)
        for pod in self.pods:
            pod.result = answers[pod.name].result()
        self.settle()
        self.judge_attached()
        for name, answer in self.storm("ADD").items():
            (pod,) = (pod for pod in self.pods if pod.name == name)
            assert answer.result() == pod.result, f"{name}: a repeated ADD has another answer"
        self.judge_attached()

    def delete_pods(self, *, synced: bool = True) -> None:
        self._write_pods("")
        if synced:
            self.sync()

    def detach_all(self, strike: Callable[[], None] | None = None) -> None:
        self.storm("DEL", strike)
        self.judge_detached()

    def clear(self) -> None:
        """After a test that failed: the next one finds nothing attached and nobody armed."""
        for armed in (self.system.state / "failpoint").iterdir():
            armed.unlink()
        for instance in (*map(agent, NODES), *ALLOCATORS, "controller-0"):
            self.kill(instance)
        self.settle()
        self.delete_pods()
        self.detach_all()

    # Judgement.

    def judge_attached(self) -> None:
        """Each pod has exactly its addresses, none twice, and the log, the journals and the kernel agree."""
        wanted = {(pod.uid, address) for pod in self.pods for address in pod.addresses}
        addresses = [address for _, address in wanted]
        assert len(addresses) == len(set(addresses)) == 2 * len(self.pods), "an address is given twice"
        leases = {(lease.pod_uid, lease.address) for lease in self.leases() if lease.state != "resting"}
        bare = {(uid, address.partition("/")[0]) for uid, address in wanted}
        assert leases == bare, f"leases lost {bare - leases}, too many {leases - bare}"
        ids = {pod.container_id for pod in self.pods}
        until(lambda: set(self.by_container()) == ids, "the journals have these attachments and no others")
        shown = self.by_container()
        for pod in self.pods:
            view = shown[pod.container_id]
            assert (view.state, view.node, view.differences) == ("completed", pod.node, ()), view
            assert set(view.addresses) == pod.addresses
            links, found = seen_in(pod.netns)
            assert links == pod.own_links | {"eth0"}, (pod.name, links)
            assert found == {address.partition("/")[0] for address in pod.addresses}, pod.name
        self._judge_rest()

    def judge_detached(self) -> None:
        """Nothing is left: no lease, no journal entry, no link, no release."""
        until(lambda: not self.leases(), "no lease is left", RECOVERY_S)
        until(self._no_attachment, "no journal entry is left", RECOVERY_S)
        for pod in self.pods:
            links, found = seen_in(pod.netns)
            assert (links, found) == (pod.own_links, set()), pod.name
        until(lambda: self.queued() == 0, "no release is left")
        self._judge_rest()
        self.clean = True

    def _no_attachment(self) -> bool:
        return all(answer == () for answer in self.attachments().values())

    def _judge_rest(self) -> None:
        for node in NODES:
            links, _ = seen_in(self.system.nodes[node] or Path())
            assert links == {"lo", "eth1"}, (node, links)
        violations = self.ask(lambda system: question.allocator(system, audit=True)).violations
        assert violations == ()


def seen_in(netns: Path) -> tuple[set[str], set[str]]:
    """Links and, of `eth0`, global addresses, read from /proc and by ioctl: no code of the product looks."""
    with demo_netns.entered(netns):
        here = Path("/proc/thread-self/net")
        links = {line.partition(":")[0].strip() for line in (here / "dev").read_text().splitlines()[2:]}
        found: set[str] = set()
        for line in (here / "if_inet6").read_text().splitlines():
            digits, _, _, scope, _, name = line.split()
            if name == "eth0" and scope == "00":
                found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            try:
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("16s24x", b"eth0"))
                found.add(socket.inet_ntoa(answer[20:24]))
            except OSError:
                pass
    return links, found


def until(condition: Callable[[], bool], what: str, timeout_s: float = RECOVERY_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.01)


def agent(node: str) -> str:
    return f"agent-{node}"
