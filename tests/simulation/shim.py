"""One exec of the shim: one attempt id until an answer or the deadline; and what the forms of our network configuration look like.

Owns headers, repetition and giving up. Must not know why a runtime calls.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import msgspec

from shared import subjects
from shared.bus import Message
from shared.errors import BY_CODE
from tests.simulation.check import Attachment

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

REPEAT_S = 2.0
DEADLINES_S = {"ADD": 30.0, "DEL": 15.0, "CHECK": 5.0, "GC": 10.0, "STATUS": 1.0}

Form = Literal["multus", "native", "ipam"]
"""Multus calls us for each interface; natively one call attaches all; or the link is made by somebody else, whom we serve as IPAM."""

_LINK: dict[str, object] = {
    "cniVersion": "1.1.0",
    "name": "underlay",
    "type": "orbweaver",
    "cniType": "macvlan",
    "master": ["eth1"],
    "ippools": {"ipv4": ["p4"], "ipv6": ["p6"]},
}
_IPAM: dict[str, object] = {
    "cniVersion": "1.1.0",
    "name": "theirs",
    "type": "macvlan",
    "master": "eth1",
    "ipam": {"type": "spiderpool", "default_ipv4_ippool": ["i4"], "default_ipv6_ippool": ["i6"]},
}
_CONFIGS: dict[Form, dict[str, object]] = {
    "multus": _LINK,
    "native": {**_LINK, "multiNetwork": "native"},
    "ipam": _IPAM,
}
CONFIGS: dict[Form, bytes] = {form: msgspec.json.encode(config) for form, config in _CONFIGS.items()}
FORGOTTEN_CONFIGS = (b"", b'{"cniVersion":"0.3.1","name":"other","type":"orbweaver"}')
"""What a runtime may send with a DEL: it has lost the configuration, or has another one now."""


class Sandbox:
    """One sandbox of a pod, or one plain container. `wanted` are all its interfaces, `calls` those that an ADD is made for."""

    def __init__(
        self, owner: str, container_id: str, netns: str, node: str, arguments: str, form: Form, count: int
    ) -> None:
        self.owner = owner
        self.container_id = container_id
        self.netns = netns
        self.node = node
        self.arguments = arguments
        self.form: Form = form
        self.wanted = ("eth0", *(f"net{i}" for i in range(1, count)))
        self.calls = self.wanted[:1] if form == "native" else self.wanted
        self.attached: dict[str, tuple[str, ...]] = {}
        self.is_unknown = False
        """Its node's journal was lost: nobody but the kernel knows of it, and somebody makes the pod anew."""

    def attachment(self, ifname: str) -> Attachment:
        return Attachment(self.owner, self.container_id, ifname, self.netns)


class Failed(Exception):
    """The CNI call failed, with the error of its answer or past its deadline. `was_answered`: by the agent."""

    def __init__(self, why: str, *, was_answered: bool = False) -> None:
        super().__init__(why)
        self.was_answered = was_answered


class Shim:
    """`commands` counts the calls of all nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._random = cluster.random
        self._number = 0
        self.commands = 0

    def next(self) -> int:
        self._number += 1
        return self._number

    async def call(
        self, verb: str, sandbox: Sandbox, ifname: str, give_up_s: float = 0.0, body: bytes | None = None
    ) -> bytes:
        """Raises Failed."""
        self._cluster.count(f"command {verb} {sandbox.form}")
        headers = {
            "Orb-Name": "spiderpool" if sandbox.form == "ipam" else "orbweaver",
            "Cni-Command": verb,
            "Cni-Containerid": sandbox.container_id,
            "Cni-Netns": sandbox.netns,
            "Cni-Ifname": ifname,
            "Cni-Args": sandbox.arguments,
        }
        config = CONFIGS[sandbox.form] if body is None else body
        return await self._exec(
            verb, sandbox.node, headers, config, f"{sandbox.container_id}/{ifname}", give_up_s
        )

    async def collect(self, node: str, form: Form, valid: list[tuple[str, str]]) -> None:
        """CNI 1.1 GC of one network: these are its attachments, no others are. Raises Failed."""
        self._cluster.count("command GC")
        listed = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in valid]
        body = msgspec.json.encode({**_CONFIGS[form], "cni.dev/valid-attachments": listed})
        headers = {"Orb-Name": "orbweaver", "Cni-Command": "GC"}
        await self._exec("GC", node, headers, body, f"{form} on {node}", 0.0)

    async def status(self, node: str) -> None:
        """Raises Failed."""
        self._cluster.count("command STATUS")
        headers = {"Orb-Name": "orbweaver", "Cni-Command": "STATUS"}
        await self._exec("STATUS", node, headers, CONFIGS["native"], node, 0.0)

    async def _exec(
        self, verb: str, node: str, headers: dict[str, str], body: bytes, what: str, give_up_s: float
    ) -> bytes:
        cluster, number = self._cluster, self.next()
        agent = cluster.agents[node]
        self.commands += 1
        start_ns, boots = agent.clock.boottime_ns(), agent.boots
        headers |= {
            "Orb-Version": "1",
            "Orb-Attempt": f"{number:032x}",
            "Orb-Start-Ns": str(start_ns),
            "Orb-Deadline-Ns": str(start_ns + int(DEADLINES_S[verb] * 1e9)),
        }
        subject = subjects.cni(node)
        message = Message(subject=subject, data=body, headers=headers, reply=f"_INBOX_shim.{number}")
        future: asyncio.Future[Message] = cluster.process.create_future()
        cluster.shims[str(number)] = future
        cluster.tell(f"{verb} {what} attempt {number}")
        until_s = cluster.scheduler.now_s + (give_up_s or DEADLINES_S[verb])
        pause_s = 0.02
        try:
            while (left_s := until_s - cluster.scheduler.now_s) > 0:
                if agent.is_alive and agent.bus.serves(subject):
                    for _ in range(2 if self._random.random() < 0.03 else 1):
                        agent.bus.deliver(subject, message)
                    wait_s, pause_s = REPEAT_S, 0.02
                else:
                    wait_s, pause_s = pause_s, min(pause_s * 2, 1.0)
                await asyncio.wait((future,), timeout=min(wait_s, left_s))
                if agent.boots != boots:
                    raise Failed("the machine was started anew")
                if future.done():
                    break
            if not future.done():
                cluster.count(f"answer {verb}: none")
                raise Failed("no answer before the deadline")
        finally:
            del cluster.shims[str(number)]
        answer = future.result()
        cluster.tell(f"answer {number}: exit {answer.headers['Orb-Exit']} {answer.data[:160].decode()}")
        if answer.headers["Orb-Exit"] != "0":
            code = msgspec.json.decode(answer.data)["code"]
            cluster.count(f"answer {verb}: {BY_CODE[code].name}")
            raise Failed(answer.data.decode(), was_answered=True)
        cluster.count(f"answer {verb}: done")
        return answer.data
