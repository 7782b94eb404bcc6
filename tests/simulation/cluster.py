"""One run: three nodes, two allocators, a controller and a hub from one seed; commands under faults, then rest.

Owns the composition, the faults, and the judgement at the end. Must not know how a member works inside.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections import deque
from collections.abc import Coroutine, Generator, Iterable
from contextlib import contextmanager
from random import Random
from typing import Any

import msgspec

from services.allocator.audit import audit
from services.allocator.state import Holding
from shared import subjects
from shared.audit import judge
from shared.bus import Message
from shared.contracts.lease import RECORD
from tests.simulation.check import Checker
from tests.simulation.fault import Faults
from tests.simulation.hub import Hub, Link, Stored, Stream
from tests.simulation.kernel import Wire
from tests.simulation.kubelet import HELD_BACK_S, Kubelet
from tests.simulation.loop import Scheduler, Stuck
from tests.simulation.member import Agent, Allocator, Controller, Marks
from tests.simulation.workload import NAMESPACE, NETWORK, STATEFUL_SET, STATEFUL_SLOTS, Workload

COMMANDS_MIN = 500
FAULTS_MIN = 10
NODES = ("n1", "n2", "n3")
POD_SLOTS = 18
CONTAINERS = 3
REST_S = 240.0
STEPS_MAX = 3_000_000
UNTIL_S = 3_000.0
LAST_LINES = 60
OF_A_TERM = (
    "Leader.run",
    "Leader._decide_for_ever",
    "Leader._take_releases",
    "Collector.run",
    "Bulletin.run",
)
"""What runs once while a replica leads, and is not left when its term ends."""
LOSING = 0.25
"""The share of seeds in which acknowledged records may be lost."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`violations` is empty for a run in which all held; `digest` stands for all that happened."""

    seed: int
    violations: tuple[str, ...]
    digest: str
    commands: int
    faults: int
    steps: int
    records: int
    virtual_s: float
    last: tuple[str, ...]
    counts: dict[str, int]
    """What was done and what came of it, by name."""

    @property
    def is_void(self) -> bool:
        return not self.violations and (self.commands < COMMANDS_MIN or self.faults < FAULTS_MIN)


class Cluster:
    def __init__(self, seed: int, commands: int, lines_kept: int | None) -> None:
        self.seed = seed
        self.commands_wanted = commands
        self.random = Random(seed)
        self.scheduler = Scheduler(self.random, shuffled=self.random.random() < 0.5)
        self.hub = Hub(self.scheduler)
        self.process = self.scheduler.process("world")
        self.wire = Wire()
        self.lines: deque[tuple[float, str, bytes]] = deque(maxlen=lines_kept)
        self._hash = hashlib.blake2b(digest_size=16)
        self.nodes = NODES
        self.shims: dict[str, asyncio.Future[Message]] = {}
        self.dead: dict[str, None] = {}
        self.counts: dict[str, int] = {}
        self.pool_size = 18 + int(self.random.random() * 24)
        self.loses = self.random.random() < LOSING
        """Whether the hub may lose what it acknowledged."""
        self.checker = Checker(self.wire, self.hub, self._lives_since, self.count)
        self.hub.on_stored = self._on_stored
        self.hub.on_lost = self.checker.lost
        self.hub.on_reply = self._on_reply
        self.agents = {
            name: Agent(self.hub, name, self.tell, self.wire, self.random, self._crash) for name in NODES
        }
        self.controller = Controller(self.hub, self.tell)
        self.controller.keeps_mark = self.random.random() < 0.5
        """Then each allocator is on a machine of its own; else they share one, and its mark."""
        marks = [Marks(), Marks()] if self.controller.keeps_mark else [Marks()] * 2
        self.allocators = [
            Allocator(self.hub, name, self.tell, mark, self._new_incarnation)
            for name, mark in zip(("a", "b"), marks, strict=True)
        ]
        self.kubelet = Kubelet(self)
        self.workload = Workload(self)
        self.faults = Faults(self)
        self._incarnations = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # told by the members

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def tell(self, line: str, record: bytes = b"") -> None:
        self._hash.update(f"{self.scheduler.now_s:.6f} {line}".encode())
        self._hash.update(record)
        self.lines.append((self.scheduler.now_s, line, record))

    def _on_stored(self, stream: Stream, stored: Stored) -> None:
        if stream.spec.name == "LEASES":
            self.tell(f"record {stored.sequence}", stored.data)
            self.checker.stored(stream, stored)

    def _on_reply(self, subject: str, data: bytes) -> None:
        if subject.startswith("_INBOX_shim"):
            return
        self.checker.replied(subject, data)

    def _new_incarnation(self) -> str:
        self._incarnations += 1
        return f"log{self._incarnations}"

    def _crash(self, agent: Agent, where: str) -> bool:
        if self.random.random() >= self.faults.crash_rate:
            return False
        self.faults.count += 1
        self.count(f"fault agent killed {where}")
        self.tell(f"fault: {agent.name} killed {where}")
        agent.kill()
        self.hub.process.call_later(0.1 + self.random.random(), agent.start)
        return True

    def _lives_since(self, uid: str) -> float | None:
        stored_s = self.controller.stored_s.get(uid)
        return None if stored_s is None or uid in self.dead else self.scheduler.now_s - stored_s

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self.process.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.scheduler.failures.append(f"driver: {type(error).__name__}: {error}")

    # the run

    async def _main(self) -> None:
        self._publish_pools()
        self.controller.start()
        for member in (*self.allocators, *self.agents.values()):
            member.start()
        for slot in range(POD_SLOTS):
            self.spawn(self.workload.pod(slot))
        for _ in range(CONTAINERS):
            self.spawn(self.workload.container())
        self.spawn(self.kubelet.keep_house())
        storm = self.process.create_task(self.faults.run())
        while not self.wrong() and (
            self.kubelet.shim.commands < self.commands_wanted or self.faults.count < FAULTS_MIN
        ):
            await asyncio.sleep(0.25)
        self.kubelet.resting = True
        storm.cancel()
        self.faults.heal()
        self.tell("rest")
        until_s = self.scheduler.now_s + REST_S
        held_back_s = self.scheduler.now_s + HELD_BACK_S
        is_settled = False
        while not is_settled and not self.wrong():
            await asyncio.sleep(0.5)
            is_settled = next(iter(self.unsettled()), None) is None
            if self.scheduler.now_s > held_back_s and all(a.is_alive for a in self.agents.values()):
                await self.kubelet.delete_held_back()
            if not is_settled and self.scheduler.now_s > until_s:
                for sentence in self.unsettled():
                    self.checker.wrong(f"{REST_S:.0f} s after the last fault {sentence}")
        for sentence in audit(self.checker.state):
            self.checker.wrong(sentence)

    def wrong(self) -> bool:
        return bool(self.checker.violations or self.scheduler.failures)

    def _publish_pools(self) -> None:
        for name, subnet, ips, gateway in (
            ("p4", "10.6.0.0/24", f"10.6.0.10-10.6.0.{9 + self.pool_size}", "10.6.0.1"),
            ("p6", "fd00:6::/64", f"fd00:6::10-fd00:6::{15 + self.pool_size:x}", "fd00:6::1"),
            ("i4", "10.7.0.0/24", "10.7.0.10-10.7.0.250", "10.7.0.1"),
            ("i6", "fd00:7::/64", "fd00:7::10-fd00:7::ff", "fd00:7::1"),
        ):
            spec = {"subnet": subnet, "ips": [ips], "gateway": gateway}
            self.controller.put("SpiderIPPool", "", name, {"metadata": {"name": name}, "spec": spec})
        for node in self.nodes:
            self.controller.put("Node", "", node, {"metadata": {"name": node}}, f"uid-{node}")
        wanted: dict[str, object] = {
            "metadata": {"name": STATEFUL_SET, "namespace": NAMESPACE},
            "spec": {"replicas": STATEFUL_SLOTS},
        }
        self.controller.put("StatefulSet", NAMESPACE, STATEFUL_SET, wanted, "uid-db")
        link = {"master": ["eth1"], "ippools": {"ipv4": ["p4"], "ipv6": ["p6"]}}
        network: dict[str, object] = {
            "metadata": {"name": NETWORK, "namespace": NAMESPACE},
            "spec": {"cniType": "macvlan", "macvlan": link},
        }
        self.controller.put("SpiderMultusConfig", NAMESPACE, NETWORK, network)

    def too_many(self) -> bool:
        """More interfaces than the pool that all but those of other main plugins share has addresses."""
        wanted = sum(len(one.wanted) for one in self.kubelet.live.values() if one.form != "ipam")
        return wanted + sum(len(one.interfaces) for one in self._kept_for_the_next()) > self.pool_size

    def _kept_for_the_next(self) -> list[Holding]:
        """What pods of the StatefulSet have left, whose successors are not there."""
        holdings = self.checker.state.holdings
        live = {one.owner for one in self.kubelet.live.values()}
        there = {holdings[owner].name for owner in live if owner in holdings}
        return [
            one
            for owner, one in holdings.items()
            if owner not in live and one.name.startswith(f"{STATEFUL_SET}-") and one.name not in there
        ]

    # the judgement

    def unsettled(self) -> Iterable[str]:
        """What is not as it must be when nothing fails any more and time has passed."""
        kubelet, state = self.kubelet, self.checker.state
        if kubelet.busy:
            yield f"{kubelet.busy} pods are neither attached nor gone"
        leaders = [a for a in self.allocators if a.leads]
        if len(leaders) != 1:
            yield f"{len(leaders)} allocators lead"
        expected = {s.owner: s for s in kubelet.live.values()}
        for owner, holding in state.holdings.items():
            sandbox = expected.get(owner)
            if sandbox is None and not any(holding is one for one in self._kept_for_the_next()):
                yield f"{owner} holds {sorted(holding.interfaces)} and is no more"
            elif sandbox is not None and set(holding.interfaces) != set(sandbox.wanted):
                yield f"{owner} holds {sorted(holding.interfaces)}, not {sorted(sandbox.wanted)}"
        for sandbox in kubelet.live.values():
            yield from self._unsettled_sandbox(sandbox.owner, sandbox.netns, sandbox.attached)
        waiting = {one.owner for one in self._kept_for_the_next()}
        journals = {a.node: a.journal.entries.values() for a in self.agents.values() if a.is_alive}
        yield from (violation.sentence for violation in judge(self.checker.evidence(journals, waiting)))
        for namespace in self.wire.namespaces.values():
            if namespace.links and namespace.owner not in expected:
                yield f"links {sorted(namespace.links)} are left in {namespace.path}"
        for agent in self.agents.values():
            for entry in agent.journal.entries.values() if agent.is_alive else ():
                if entry.state != "completed" or entry.container_id not in kubelet.live:
                    yield f"the journal of {agent.node} has {entry.attachment} as {entry.state}"
        releases = self.hub.streams.get(subjects.RELEASES.name)
        if releases is not None and releases.messages:
            yield f"{len(releases.messages)} releases are not consumed"
        if state.quarantine:
            yield f"{len(state.quarantine)} addresses are in quarantine"
        if any(one.pool in ("p4", "p6") for one in state.resting.values()):
            yield f"{len(state.resting)} addresses rest"
        for leader in leaders:
            memory = leader.replica.state
            if memory.sequence == state.sequence and memory.holdings != state.holdings:
                yield f"the memory of {leader.name} is not what the log says"
            yield from audit(memory)
        for allocator in self.allocators:
            running = [getattr(task.get_coro(), "__qualname__", "") for task in allocator.process.tasks()]
            for name in OF_A_TERM:
                if running.count(name) != allocator.leads:
                    yield f"{allocator.name} runs {name} {running.count(name)} times, leads: {allocator.leads}"

    def _unsettled_sandbox(
        self, owner: str, netns: str, attached: dict[str, tuple[str, ...]]
    ) -> Iterable[str]:
        holding = self.checker.state.holdings.get(owner)
        if holding is None:
            yield f"{owner} lives and holds nothing"
            return
        namespace = self.wire.namespaces[netns]
        for ifname, held in holding.interfaces.items():
            link = namespace.links.get(ifname)
            up = sorted(a.partition("/")[0] for a in link.addresses) if link is not None else []
            told = sorted(attached.get(ifname, ()))
            if up != told or len(held.leases) != len(up):
                yield f"{owner} {ifname}: told {told}, up {up}, {len(held.leases)} leases"
            if not held.attached or held.detached:
                yield f"{owner} {ifname} lives and counts as detached"


@contextmanager
def finalizers_at_the_end() -> Generator[None]:
    """What a cycle keeps alive would go whenever the collector comes by, which what ran before decides; and with it would be told
    errors that nobody took, and run what generators have in their `finally`."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def run(seed: int, commands: int = COMMANDS_MIN, lines_kept: int | None = LAST_LINES) -> Outcome:
    """One run, from its seed alone. `lines_kept` None keeps the whole trace."""
    cluster = Cluster(seed, commands, lines_kept)
    scheduler = cluster.scheduler
    cluster.hub.shims = Shims(cluster)
    main = cluster.process.create_task(cluster._main())
    with finalizers_at_the_end():
        try:
            scheduler.run(main, until_s=UNTIL_S, steps_max=STEPS_MAX)
        except Stuck as stuck:
            cluster.checker.wrong(f"stuck: {stuck}")
        finally:
            gc.collect(0)  # all that was made since
            scheduler.close()
    violations = (*cluster.checker.violations, *scheduler.failures)
    cluster.tell(f"end {violations}")
    return Outcome(
        seed=seed,
        violations=violations,
        digest=cluster._hash.hexdigest(),
        commands=cluster.kubelet.shim.commands,
        faults=cluster.faults.count,
        steps=scheduler.steps,
        records=cluster.checker.records,
        virtual_s=scheduler.now_s,
        counts=cluster.counts,
        last=tuple(_shown(*line) for line in cluster.lines),
    )


def _shown(at_s: float, line: str, record: bytes) -> str:
    if not record:
        return f"{at_s:11.6f} {line}"
    told: list[str] = []
    decoded = RECORD.decode(record)
    for event in decoded.events:
        fields = msgspec.to_builtins(event)
        told.append(
            " ".join([fields.pop("type"), *(f"{k}={v}" for k, v in fields.items() if v or v is False)])
        )
    return f"{at_s:11.6f} {line} of term {decoded.term}: {'; '.join(told)}"


class Shims:
    """Where answers to shims go: they stand on the node, no link is between."""

    def __init__(self, cluster: Cluster) -> None:
        self.link = Link(name="shims")
        self._cluster = cluster

    def deliver(self, subject: str, message: Message) -> None:
        future = self._cluster.shims.get(subject.rpartition(".")[2])
        if future is not None:
            self._cluster.process.call_soon(_give, future, message)

    def woken(self, stream: str) -> None:
        pass


def _give(future: asyncio.Future[Message], message: Message) -> None:
    if not future.done():
        future.set_result(message)
