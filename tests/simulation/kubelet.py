"""The runtimes of all nodes: pods come, are attached, live, are re-created, and go.

Owns what a runtime may do to a CNI plugin: ADD, repeated ADD, DEL twice, late, with another configuration or never, GC, a namespace
that goes first, a namespace path used again, a new sandbox under the same UID, the same name with a new UID, a call that is given
up, a machine that starts anew. And the main plugin whose IPAM we are: its link outlives our DEL for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from services.agent.entry import Entry
from shared.ids import AttachmentId
from shared.limits import RECONCILE_SWEEP_MIN
from tests.simulation.shim import FORGOTTEN_CONFIGS, Failed, Form, Sandbox, Shim

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

HELD_BACK_S = 12.0
"""After so long at rest whatever an agent may sweep by itself is swept."""
UNLINK_S = 1.0
"""So long at most a main plugin takes to remove its link after our DEL."""


def _known(sandbox: Sandbox, entries: Mapping[AttachmentId, Entry]) -> bool:
    return any(AttachmentId(sandbox.container_id, ifname) in entries for ifname in sandbox.calls)


class Kubelet:
    """`live` are the sandboxes that must have their addresses: nobody has begun to take them down."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._random = cluster.random
        self.shim = Shim(cluster)
        self.resting = False
        self.live: dict[str, Sandbox] = {}
        self.returning: dict[str, Sandbox] = {}
        """Those of which one interface is taken down and put up again: no GC may take the others for leftovers."""
        self.known: dict[str, Sandbox] = {}
        """Those that a DEL is still to come for: a runtime forgets none before."""
        self.forgotten: dict[str, Sandbox] = {}
        self.busy = 0
        """Pods and containers that are neither attached nor gone."""
        self._free_paths: dict[str, list[str]] = {node: [] for node in cluster.nodes}

    def sandbox(self, owner: str, node: str, arguments: str, form: Form, count: int) -> Sandbox:
        number = self.shim.next()
        free = self._free_paths[node]
        path = free.pop() if free and self._random.random() < 0.1 else f"/{node}/netns/{number}"
        if not owner:
            owner = f"container:{node}/c{number}"
        self._cluster.wire.create(path, owner, f"c{number}")
        made = Sandbox(owner, f"c{number}", path, node, arguments, form, count)
        self.known[made.container_id] = made
        return made

    async def add(self, sandbox: Sandbox, ifname: str, give_up_s: float = 0.0) -> None:
        """Raises Failed."""
        cluster = self._cluster
        is_first = ifname not in sandbox.attached
        there = cluster.wire.namespaces.get(sandbox.netns)
        if there is not None and there.container_id != sandbox.container_id:
            raise Failed("its namespace is gone")
        try:
            answer = msgspec.json.decode(await self.shim.call("ADD", sandbox, ifname, give_up_s))
        except Failed as failure:
            if failure.was_answered and is_first and not sandbox.is_unknown:
                names = sandbox.wanted if sandbox.form == "native" else (ifname,)
                cluster.checker.refused(sandbox.attachment(ifname), names)
            raise
        namespace = cluster.wire.namespaces.get(sandbox.netns)
        if (
            sandbox.container_id not in self.live
            or namespace is None
            or namespace.container_id != sandbox.container_id
        ):
            return
        told = tuple(ip["address"] for ip in answer["ips"])
        if sandbox.form == "ipam":
            cluster.wire.plug(namespace, ifname, told)
        for name in sandbox.wanted if sandbox.form == "native" else (ifname,):
            link = namespace.links.get(name)
            # the result tells the called interface only; of the others that they are up, with both families
            shown = told if name == ifname else tuple(link.addresses) if link is not None else ()
            addresses = tuple(address.partition("/")[0] for address in shown)
            cluster.checker.acknowledged(sandbox.attachment(name), addresses)
            sandbox.attached[name] = addresses

    async def add_all(self, sandbox: Sandbox) -> bool:
        """One after the other, and all down if one fails."""
        self.live[sandbox.container_id] = sandbox
        random = self._random.random
        give_up_s = 0.05 + random() * 3 if random() < 0.04 and not self.resting else 0.0
        for ifname in sandbox.calls:
            try:
                await self.add(sandbox, ifname, give_up_s)
            except Failed:
                return False
        return sandbox.container_id in self.live

    def end(self, sandbox: Sandbox) -> None:
        """From here on the sandbox is on its way down."""
        if self.live.pop(sandbox.container_id, None) is not None:
            for ifname in sandbox.wanted:
                self._cluster.checker.ends(sandbox.attachment(ifname))

    def remove_namespace(self, sandbox: Sandbox) -> None:
        self.end(sandbox)
        wire = self._cluster.wire
        namespace = wire.namespaces.get(sandbox.netns)
        if namespace is not None and namespace.container_id == sandbox.container_id:
            self._cluster.tell(f"namespace {sandbox.netns} goes")
            wire.remove(sandbox.netns)
            self._free_paths[sandbox.node].append(sandbox.netns)

    async def delete(self, sandbox: Sandbox, ifname: str) -> None:
        """Raises Failed."""
        random = self._random.random
        body = FORGOTTEN_CONFIGS[int(random() * 2)] if random() < 0.1 else None
        await self.shim.call("DEL", sandbox, ifname, body=body)
        if sandbox.form == "ipam":
            namespace = self._cluster.wire.namespaces.get(sandbox.netns)
            if namespace is not None and ifname in namespace.links:
                namespace.links[ifname].is_leaving = namespace.container_id == sandbox.container_id
            await asyncio.sleep(random() * UNLINK_S)
            namespace = self._cluster.wire.namespaces.get(sandbox.netns)
            if namespace is not None and namespace.container_id == sandbox.container_id:
                self._cluster.wire.unlink(namespace, ifname)

    async def delete_all(self, sandbox: Sandbox) -> None:
        self.end(sandbox)
        for ifname in reversed(sandbox.calls):
            for _ in range(2 if self._random.random() < 0.1 else 1):
                while True:
                    try:
                        await self.delete(sandbox, ifname)
                        break
                    except Failed:
                        await asyncio.sleep(0.5)
        self.known.pop(sandbox.container_id, None)

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
            self._cluster.count("sandbox without DEL")
            self.remove_namespace(sandbox)  # and never a DEL: the agent must find out by itself
            self.forgotten[sandbox.container_id] = sandbox
            self.known.pop(sandbox.container_id, None)

    async def _delete_late(self, sandbox: Sandbox) -> None:
        self.busy += 1
        await asyncio.sleep(self._random.random() * 4)
        await self.delete_all(sandbox)
        self.busy -= 1

    async def delete_held_back(self) -> None:
        """Where all of a node's attachments are gone, or many, its agent holds the sweep back: a person looks and ends them."""
        for agent in self._cluster.agents.values():
            entries = agent.journal.entries
            gone = [one for one in self.forgotten.values() if one.node == agent.node and _known(one, entries)]
            there = len({entry.container_id for entry in entries.values()})
            if gone and (there == len(gone) or len(gone) > RECONCILE_SWEEP_MIN // 4):
                for sandbox in gone:
                    await self.delete_all(sandbox)

    async def keep_house(self) -> None:
        """What runtimes ask that is about no single sandbox."""
        cluster, random = self._cluster, self._random.random
        while not self.resting:
            await asyncio.sleep(random() * 2)
            node = cluster.nodes[int(random() * len(cluster.nodes))]
            try:
                if random() < 0.5:
                    await self.shim.status(node)
                else:
                    form: Form = "ipam" if random() < 0.3 else "multus"
                    # whoever makes the links himself must not be robbed of an address before he has removed the link
                    stands = self.known if form == "ipam" else self.live | self.returning
                    ours = [one for one in stands.values() if (one.form == "ipam") == (form == "ipam")]
                    valid = [
                        (one.container_id, name) for one in ours if one.node == node for name in one.calls
                    ]
                    await self.shim.collect(node, form, valid)
            except Failed:
                continue

    # what happens to a machine

    def started_anew(self, node: str) -> None:
        """No namespace, no link and no call is left; pods stay, and get new sandboxes."""
        for sandbox in [one for one in self.live.values() if one.node == node]:
            self.end(sandbox)
        for path in [path for path in self._cluster.wire.namespaces if path.startswith(f"/{node}/")]:
            self._cluster.wire.remove(path)
            self._free_paths[node].append(path)

    def journal_lost(self, node: str) -> None:
        for sandbox in self.known.values():
            if sandbox.node == node:
                sandbox.is_unknown = True
