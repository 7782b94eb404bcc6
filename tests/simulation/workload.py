"""Pods and containers as their life goes by, on whatever runtime: the driver of a run.

Owns when what is asked of the runtimes (kubelet), and when the objects say so. Must not know what must hold.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shared.contracts.facts import ObjectFact
from shared.manifests.networks import NETWORKS
from tests.simulation.shim import Failed, Form, Sandbox

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

NAMESPACE = "shop"
STATEFUL_SET = "db"
STATEFUL_SLOTS = 3
"""The first slots are the pods of a StatefulSet: all of one template, and the next of a name has the addresses of the one before."""
NETWORK = "further"
"""The SpiderMultusConfig of every interface but the first, where one ADD attaches all."""


class Workload:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._kubelet = cluster.kubelet
        self._random = cluster.random

    async def pod(self, slot: int) -> None:
        """One name for ever: pod after pod of it."""
        cluster, random = self._cluster, self._random.random
        owners: list[dict[str, object]] = []
        name, form, count = f"web-{slot}", self._form(), self._count()
        if slot < STATEFUL_SLOTS:
            name = f"{STATEFUL_SET}-{slot}"
            owners = [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": STATEFUL_SET, "controller": True}
            ]
        await asyncio.sleep(random() * 2)
        while not self._kubelet.resting:
            self._kubelet.busy += 1
            uid = f"uid-{slot}-{self._kubelet.shim.next()}"
            node = cluster.nodes[int(random() * len(cluster.nodes))]
            if not owners:
                form, count = self._form(), self._count()
            annotations = {NETWORKS: ", ".join([NETWORK] * (count - 1))} if form == "native" else {}
            manifest: dict[str, object] = {
                "metadata": {
                    "name": name,
                    "namespace": NAMESPACE,
                    "uid": uid,
                    "annotations": annotations,
                    "ownerReferences": owners,
                },
                "spec": {"nodeName": node},
                "status": {"phase": "Running"},
            }
            if random() < 0.15:
                cluster.spawn(self._appear_late(name, manifest, uid))
            else:
                cluster.controller.put("Pod", NAMESPACE, name, manifest, uid)
            cluster.tell(f"pod {uid} on {node}, {form} with {count}")
            await self._pod_lives(name, uid, node, form, count)
            if uid not in cluster.dead:
                return  # it stays
            self._kubelet.busy -= 1
            await asyncio.sleep(random() * 0.5)

    def _form(self) -> Form:
        r = self._random.random()
        return "multus" if r < 0.5 else "native" if r < 0.85 else "ipam"

    def _count(self) -> int:
        return 1 + int(self._random.random() ** 2 * 3.99)

    async def _appear_late(self, name: str, manifest: dict[str, object], uid: str) -> None:
        await asyncio.sleep(self._random.random() * 2)
        if uid not in self._cluster.dead:
            self._cluster.controller.put("Pod", NAMESPACE, name, manifest, uid)

    async def _pod_lives(self, name: str, uid: str, node: str, form: Form, count: int) -> None:
        cluster, kubelet, random = self._cluster, self._kubelet, self._random.random
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={name};K8S_POD_UID={uid}"
        failures = 0
        while True:
            sandbox = kubelet.sandbox(uid, node, arguments, form, count)
            attached = await kubelet.add_all(sandbox)
            if attached:
                await self._live(sandbox)
                attached = (
                    len(sandbox.attached) == count
                    and sandbox.container_id in kubelet.live
                    and not sandbox.is_unknown
                )
            if kubelet.resting and attached and not cluster.too_many():
                kubelet.busy -= 1
                return
            if (kubelet.resting and not attached) or (
                not kubelet.resting and (not attached or random() < 0.4) and failures < 3
            ):
                failures += 0 if attached else 1
                if kubelet.resting and cluster.too_many():
                    break
                await kubelet.take_down(sandbox)
                await asyncio.sleep(0.1 + random() * 0.4)
                continue
            break
        cluster.dead[uid] = None
        cluster.tell(f"pod {uid} goes")
        if random() < 0.5:
            self._gone(name, uid)
            await kubelet.take_down(sandbox)
        else:
            await kubelet.take_down(sandbox)
            self._gone(name, uid)

    def _gone(self, name: str, uid: str) -> None:
        controller = self._cluster.controller
        found = controller.objects.get(("Pod", NAMESPACE, name))
        if isinstance(found, ObjectFact) and found.uid == uid:
            controller.delete("Pod", NAMESPACE, name, uid)

    async def container(self) -> None:
        """Plain containers, one after the other: no pod stands behind them."""
        cluster, kubelet, random = self._cluster, self._kubelet, self._random.random
        while not kubelet.resting:
            kubelet.busy += 1
            node = cluster.nodes[int(random() * len(cluster.nodes))]
            sandbox = kubelet.sandbox("", node, "", "ipam" if random() < 0.2 else "multus", 1)
            if await kubelet.add_all(sandbox):
                await self._live(sandbox)
            await kubelet.take_down(sandbox)
            kubelet.busy -= 1
            await asyncio.sleep(random())

    async def _live(self, sandbox: Sandbox) -> None:
        """Some time of a sandbox that is attached."""
        kubelet, random = self._kubelet, self._random.random
        for _ in range(1 + int(random() * 3)):
            if kubelet.resting:
                return
            await asyncio.sleep(random() * 0.8)
            choice = random()
            ifname = sandbox.calls[0]
            if sandbox.container_id not in kubelet.live:
                return
            try:
                if choice < 0.25 and sandbox.form != "ipam":  # a main plugin would find its own link
                    await kubelet.add(sandbox, ifname)
                elif choice < 0.45:
                    await kubelet.shim.call("CHECK", sandbox, ifname)
                elif choice < 0.55:
                    # the same container is taken off the network and put on it again
                    kubelet.end(sandbox)
                    for name in sandbox.wanted if sandbox.form == "native" else (ifname,):
                        sandbox.attached.pop(name, None)
                    kubelet.returning[sandbox.container_id] = sandbox
                    try:
                        await kubelet.delete(sandbox, ifname)
                    finally:
                        del kubelet.returning[sandbox.container_id]
                    if sandbox.netns not in self._cluster.wire.namespaces:
                        return  # the machine was started anew meanwhile
                    kubelet.live[sandbox.container_id] = sandbox
                    await kubelet.add(sandbox, ifname)
            except Failed:
                if 0.25 <= choice < 0.45:
                    continue
                return
