"""The runtimes of all nodes: pods come, are attached interface by interface, live, are re-created, and go.

Owns what a runtime may do to a CNI plugin: ADD, repeated ADD, DEL twice, late or never, a namespace that goes first, a new
sandbox under the same UID, the same name with a new UID, a call that is given up. And the shim: one attempt id until an
answer or the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from services.agent.entry import Entry
from shared import subjects
from shared.bus import Message
from shared.contracts.facts import ObjectFact
from shared.ids import AttachmentId
from shared.limits import RECONCILE_SWEEP_MIN
from tests.simulation.check import Attachment
from tests.simulation.clock import BOOTED_NS

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

NAMESPACE = "shop"
CONFIG = msgspec.json.encode(
    {
        "cniVersion": "1.0.0",
        "name": "underlay",
        "type": "orbweaver",
        "cniType": "macvlan",
        "master": ["eth1"],
        "ippools": {"ipv4": ["p4"], "ipv6": ["p6"]},
    }
)
REPEAT_S = 2.0
HELD_BACK_S = 12.0
"""After so long at rest whatever an agent may sweep by itself is swept."""
DEADLINES_S = {"ADD": 30.0, "DEL": 15.0, "CHECK": 5.0}


class Sandbox:
    """One sandbox of a pod, or one plain container."""

    def __init__(self, owner: str, container_id: str, netns: str, node: str, arguments: str) -> None:
        self.owner = owner
        self.container_id = container_id
        self.netns = netns
        self.node = node
        self.arguments = arguments
        self.wanted: tuple[str, ...] = ()
        self.attached: dict[str, tuple[str, ...]] = {}

    def attachment(self, ifname: str) -> Attachment:
        return Attachment(self.owner, self.container_id, ifname, self.netns)


def _known(sandbox: Sandbox, entries: Mapping[AttachmentId, Entry]) -> bool:
    return any(AttachmentId(sandbox.container_id, ifname) in entries for ifname in sandbox.wanted)


class Failed(Exception):
    """The CNI call failed, with the error of its answer or past its deadline."""


class Kubelet:
    """`live` are the sandboxes that must have their addresses: nobody has begun to take them down."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._random = cluster.random
        self._replies: dict[str, asyncio.Future[Message]] = {}
        self._number = 0
        self.commands = 0
        self.resting = False
        self.live: dict[str, Sandbox] = {}
        self.forgotten: dict[str, Sandbox] = {}
        self.busy = 0
        """Pods and containers that are neither attached nor gone."""

    def _next(self) -> int:
        self._number += 1
        return self._number

    # the shim

    async def cni(self, verb: str, sandbox: Sandbox, ifname: str, give_up_s: float = 0.0) -> bytes:
        """One exec of the shim. Raises Failed."""
        cluster = self._cluster
        self.commands += 1
        number = self._next()
        start_ns = BOOTED_NS + int(cluster.scheduler.now_s * 1e9)
        deadline_s = give_up_s or DEADLINES_S[verb]
        headers = {
            "Orb-Version": "1",
            "Orb-Name": "orbweaver",
            "Orb-Attempt": f"{number:032x}",
            "Orb-Start-Ns": str(start_ns),
            "Orb-Deadline-Ns": str(start_ns + int(DEADLINES_S[verb] * 1e9)),
            "Cni-Command": verb,
            "Cni-Containerid": sandbox.container_id,
            "Cni-Netns": sandbox.netns,
            "Cni-Ifname": ifname,
            "Cni-Args": sandbox.arguments,
        }
        inbox = f"_INBOX_shim.{number}"
        subject = subjects.cni(sandbox.node)
        message = Message(subject=subject, data=CONFIG, headers=headers, reply=inbox)
        future: asyncio.Future[Message] = cluster.process.create_future()
        cluster.shims[str(number)] = future
        cluster.tell(f"{verb} {sandbox.container_id}/{ifname} attempt {number}")
        until_s = cluster.scheduler.now_s + deadline_s
        pause_s = 0.02
        agent = cluster.agents[sandbox.node]
        try:
            while (left_s := until_s - cluster.scheduler.now_s) > 0:
                if agent.is_alive and agent.bus.serves(subject):
                    for _ in range(2 if self._random.random() < 0.03 else 1):
                        agent.bus.deliver(subject, message)
                    wait_s, pause_s = REPEAT_S, 0.02
                else:
                    wait_s, pause_s = pause_s, min(pause_s * 2, 1.0)
                await asyncio.wait((future,), timeout=min(wait_s, left_s))
                if future.done():
                    break
            if not future.done():
                raise Failed("no answer before the deadline")
        finally:
            del cluster.shims[str(number)]
        answer = future.result()
        cluster.tell(f"answer {number}: exit {answer.headers['Orb-Exit']} {answer.data[:160].decode()}")
        if answer.headers["Orb-Exit"] != "0":
            raise Failed(answer.data.decode())
        return answer.data

    # the runtime

    def sandbox(self, owner: str, node: str, arguments: str) -> Sandbox:
        number = self._next()
        path = f"/{node}/netns/{number}"
        if not owner:
            owner = f"container:{node}/c{number}"
        self._cluster.wire.create(path, owner, f"c{number}")
        return Sandbox(owner, f"c{number}", path, node, arguments)

    async def add(self, sandbox: Sandbox, ifname: str, give_up_s: float = 0.0) -> None:
        answer = msgspec.json.decode(await self.cni("ADD", sandbox, ifname, give_up_s))
        addresses = tuple(ip["address"].partition("/")[0] for ip in answer["ips"])
        if sandbox.container_id in self.live and sandbox.netns in self._cluster.wire.namespaces:
            self._cluster.checker.acknowledged(sandbox.attachment(ifname), addresses)
            sandbox.attached[ifname] = addresses

    async def add_all(self, sandbox: Sandbox, count: int) -> bool:
        """As Multus does it: one after the other, and all down if one fails."""
        self.live[sandbox.container_id] = sandbox
        sandbox.wanted = tuple(["eth0", "net1", "net2", "net3"][:count])
        give_up_s = (
            0.05 + self._random.random() * 3 if self._random.random() < 0.04 and not self.resting else 0.0
        )
        for ifname in sandbox.wanted:
            try:
                await self.add(sandbox, ifname, give_up_s)
            except Failed:
                return False
        return True

    def end(self, sandbox: Sandbox) -> None:
        """From here on the sandbox is on its way down."""
        if self.live.pop(sandbox.container_id, None) is not None:
            for ifname in sandbox.wanted:
                self._cluster.checker.ends(sandbox.attachment(ifname))

    def remove_namespace(self, sandbox: Sandbox) -> None:
        self.end(sandbox)
        self._cluster.tell(f"namespace {sandbox.netns} goes")
        self._cluster.wire.remove(sandbox.netns)

    async def delete_all(self, sandbox: Sandbox) -> None:
        self.end(sandbox)
        for ifname in reversed(sandbox.wanted):
            for _ in range(2 if self._random.random() < 0.1 else 1):
                while True:
                    try:
                        await self.cni("DEL", sandbox, ifname)
                        break
                    except Failed:
                        await asyncio.sleep(0.5)

    async def take_down(self, sandbox: Sandbox) -> None:
        """One of the orders in which runtimes do it; the namespace of a sandbox that is replaced is gone at the return."""
        way = self._random.random()
        if way < 0.5:
            await self.delete_all(sandbox)
            self.remove_namespace(sandbox)
        elif way < 0.7:
            self.remove_namespace(sandbox)
            await self.delete_all(sandbox)
        elif way < 0.9:
            self.remove_namespace(sandbox)
            self._cluster.spawn(self._delete_late(sandbox))
        else:
            self.remove_namespace(sandbox)  # and never a DEL: the agent must find out by itself
            self.forgotten[sandbox.container_id] = sandbox

    async def delete_held_back(self) -> None:
        """Where all of a node's attachments are gone, or many, its agent holds the sweep back: a person looks and ends them."""
        for agent in self._cluster.agents.values():
            entries = agent.journal.entries
            gone = [one for one in self.forgotten.values() if one.node == agent.node and _known(one, entries)]
            there = len({entry.container_id for entry in entries.values()})
            if gone and (there == len(gone) or len(gone) > RECONCILE_SWEEP_MIN // 4):
                for sandbox in gone:
                    await self.delete_all(sandbox)

    async def _delete_late(self, sandbox: Sandbox) -> None:
        self.busy += 1
        await asyncio.sleep(self._random.random() * 4)
        await self.delete_all(sandbox)
        self.busy -= 1

    async def _live(self, sandbox: Sandbox) -> None:
        """Some time of a sandbox that is attached."""
        for _ in range(1 + int(self._random.random() * 3)):
            if self.resting:
                return
            await asyncio.sleep(self._random.random() * 0.8)
            choice = self._random.random()
            ifname = sandbox.wanted[0]
            try:
                if choice < 0.25:
                    await self.add(sandbox, ifname)
                elif choice < 0.45:
                    await self.cni("CHECK", sandbox, ifname)
                elif choice < 0.55:
                    # the same container is taken off the network and put on it again
                    self.end(sandbox)
                    sandbox.attached.pop(ifname, None)
                    await self.cni("DEL", sandbox, ifname)
                    self.live[sandbox.container_id] = sandbox
                    await self.add(sandbox, ifname)
            except Failed:
                if choice >= 0.25 and choice < 0.45:
                    continue
                return

    async def pod(self, slot: int) -> None:
        """One name for ever: pod after pod of it."""
        cluster, random = self._cluster, self._random
        name = f"web-{slot}"
        await asyncio.sleep(random.random() * 2)
        while not self.resting:
            self.busy += 1
            uid = f"uid-{slot}-{self._next()}"
            node = cluster.nodes[int(random.random() * len(cluster.nodes))]
            manifest: dict[str, object] = {
                "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid},
                "spec": {"nodeName": node},
                "status": {"phase": "Running"},
            }
            if random.random() < 0.15:
                cluster.spawn(self._appear_late(name, manifest, uid))
            else:
                cluster.controller.put("Pod", NAMESPACE, name, manifest, uid)
            cluster.tell(f"pod {uid} on {node}")
            await self._pod_lives(name, uid, node, 1 + int(random.random() ** 2 * 3.99))
            if uid not in cluster.dead:
                return  # it stays
            self.busy -= 1
            await asyncio.sleep(random.random() * 0.5)

    async def _appear_late(self, name: str, manifest: dict[str, object], uid: str) -> None:
        await asyncio.sleep(self._random.random() * 2)
        if uid not in self._cluster.dead:
            self._cluster.controller.put("Pod", NAMESPACE, name, manifest, uid)

    async def _pod_lives(self, name: str, uid: str, node: str, count: int) -> None:
        cluster, random = self._cluster, self._random
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={name};K8S_POD_UID={uid}"
        failures = 0
        while True:
            sandbox = self.sandbox(uid, node, arguments)
            attached = await self.add_all(sandbox, count)
            if attached:
                await self._live(sandbox)
                attached = len(sandbox.attached) == count and sandbox.container_id in self.live
            if self.resting and attached and not cluster.too_many(sandbox):
                self.busy -= 1
                return
            if (self.resting and not attached) or (
                not self.resting and (not attached or random.random() < 0.4) and failures < 3
            ):
                failures += 0 if attached else 1
                if self.resting and cluster.too_many(sandbox):
                    break
                await self.take_down(sandbox)
                await asyncio.sleep(0.1 + random.random() * 0.4)
                continue
            break
        cluster.dead[uid] = None
        cluster.tell(f"pod {uid} goes")
        if random.random() < 0.5:
            self._gone(name, uid)
            await self.take_down(sandbox)
        else:
            await self.take_down(sandbox)
            self._gone(name, uid)

    def _gone(self, name: str, uid: str) -> None:
        controller = self._cluster.controller
        found = controller.objects.get(("Pod", NAMESPACE, name))
        if isinstance(found, ObjectFact) and found.uid == uid:
            controller.delete("Pod", NAMESPACE, name, uid)

    async def container(self) -> None:
        """Plain containers, one after the other: no pod stands behind them."""
        cluster, random = self._cluster, self._random
        while not self.resting:
            self.busy += 1
            node = cluster.nodes[int(random.random() * len(cluster.nodes))]
            sandbox = self.sandbox("", node, "")
            if await self.add_all(sandbox, 1):
                await self._live(sandbox)
            await self.take_down(sandbox)
            self.busy -= 1
            await asyncio.sleep(random.random())
