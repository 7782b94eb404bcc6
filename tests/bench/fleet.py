"""The agents of many nodes in one process: they ask for addresses, report what they hold and answer the leader's questions with the
messages of real ones, over one connection.

Owns what each node holds. Has no kernel and no journal on disk, and must not know what is measured.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec

from services.agent.witness import CLAIMS_PER_MESSAGE
from shared import limits, subjects
from shared.bus import Bus, BusError, Message
from shared.contracts.codec import encode
from shared.contracts.ipam import ALLOCATE_REPLY, Allocate, Allocated, InterfaceRequest, Mark
from shared.contracts.witness import (
    WITNESS_QUESTION,
    Adopt,
    AskDetail,
    Claim,
    WitnessDetail,
    WitnessReport,
    digest_of,
)

_INTERFACES = (InterfaceRequest(ifname="eth0"),)
_PAUSE_S = 0.01
_TICK_S = 0.01
NAMESPACE = "bench"


class Fleet:
    """`claims` and `seen` by node. `bus` must be allowed to speak for all of them."""

    def __init__(self, bus: Bus, nodes: Sequence[str]) -> None:
        self._bus = bus
        self.nodes = tuple(nodes)
        self.claims: dict[str, list[Claim]] = {node: [] for node in nodes}
        self.seen: dict[str, Mark] = dict.fromkeys(nodes, Mark())
        self._told: dict[tuple[str, str], list[bytes]] = {}
        self._changed: set[str] = set()
        self._reporting: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        await self._bus.serve(subjects.ASK_WITNESS_ALL, self._on_question)
        await self._bus.serve(f"{subjects.ASK_WITNESS_ALL}.*", self._on_question)

    @asynccontextmanager
    async def reporting(self) -> AsyncGenerator[None]:
        """Meanwhile each node reports every `WITNESS_INTERVAL_S`, all spread over it."""
        task = asyncio.create_task(self._report_for_ever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def request(self, node: str, pod: str = "") -> Allocate:
        """A new attach: of a pod of NAMESPACE, or of a container that no pod stands behind."""
        return Allocate(
            attempt=secrets.token_hex(16),
            node=node,
            container_id=secrets.token_hex(32),
            ifname="eth0",
            interfaces=_INTERFACES,
            ttl_ms=60_000,
            pod_namespace=NAMESPACE if pod else "",
            pod_name=pod,
            pod_uid=f"{pod}-uid" if pod else "",
        )

    async def attach(self, request: Allocate, within_s: float = 60.0, answer_s: float = 2.0) -> Allocated:
        """Asks as an agent does, again and again, until it is allocated. Raises RuntimeError with the last refusal."""
        until_s = time.monotonic() + within_s
        complaint = "no answer"
        while time.monotonic() < until_s:
            try:
                asked = msgspec.structs.replace(request, seen=self.seen[request.node])
                message = await self._bus.request(subjects.allocate(request.node), encode(asked), answer_s)
                reply = ALLOCATE_REPLY.decode(message.data)
            except BusError as error:
                complaint = str(error)
            else:
                if isinstance(reply, Allocated):
                    if {grant.family for grant in reply.grants} != {4, 6}:
                        raise RuntimeError(f"a family is missing: {reply}")
                    self._take(request, reply)
                    return reply
                complaint = reply.message
            await asyncio.sleep(_PAUSE_S)
        raise RuntimeError(f"not allocated within {within_s:.0f} s: {complaint}")

    def _take(self, request: Allocate, reply: Allocated) -> None:
        node = request.node
        self.seen[node] = max(self.seen[node], reply.mark, key=lambda mark: mark.sequence)
        self.claims[node].append(
            Claim(
                container_id=request.container_id,
                ifname=request.ifname,
                addresses=tuple(grant.address for grant in reply.grants),
                generation=reply.grants[0].generation,
                attempt=request.attempt,
                pod_namespace=request.pod_namespace,
                pod_name=request.pod_name,
                pod_uid=request.pod_uid,
                live=True,
            )
        )
        if node not in self._changed:
            self._changed.add(node)
            asyncio.get_running_loop().call_later(limits.WITNESS_COALESCE_S, self._report_soon, node)

    def _report_soon(self, node: str) -> None:
        task = asyncio.create_task(self._report(node))
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)

    async def _report_for_ever(self) -> None:
        began_s, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - began_s) / limits.WITNESS_INTERVAL_S * len(self.nodes))
            for number in range(sent, due):
                await self._report(self.nodes[number % len(self.nodes)])
            sent = due
            await asyncio.sleep(_TICK_S)

    async def _report(self, node: str) -> None:
        self._changed.discard(node)
        claims = self.claims[node]
        report = WitnessReport(
            node=node,
            seen=self.seen[node],
            digest=digest_of(
                (c.container_id, c.ifname, c.generation, tuple(sorted(c.addresses))) for c in claims
            ),
            attachments=len(claims),
        )
        with suppress(BusError):
            await self._bus.publish(subjects.witness(node), encode(report))

    async def _on_question(self, message: Message) -> None:
        question = WITNESS_QUESTION.decode(message.data)
        nodes = self.nodes
        if message.subject != subjects.ASK_WITNESS_ALL:
            nodes = (subjects.untoken(message.subject.rpartition(".")[2]),)
        for node in nodes:
            if isinstance(question, AskDetail):
                await self._tell(node, question.question)
            elif isinstance(question, Adopt):
                self.seen[node] = question.mark
            else:
                await self._report(node)

    async def _tell(self, node: str, question: str) -> None:
        """The same question again is answered with what was answered before."""
        if (node, question) not in self._told:
            claims = self.claims[node]
            parts = max(1, -(-len(claims) // CLAIMS_PER_MESSAGE))
            self._told[node, question] = [
                encode(
                    WitnessDetail(
                        node=node,
                        question=question,
                        seen=self.seen[node],
                        part=part,
                        parts=parts,
                        claims=tuple(claims[part * CLAIMS_PER_MESSAGE : (part + 1) * CLAIMS_PER_MESSAGE]),
                        scanned=True,
                    )
                )
                for part in range(parts)
            ]
        for payload in self._told[node, question]:
            await self._bus.publish(subjects.witness(node), payload)
