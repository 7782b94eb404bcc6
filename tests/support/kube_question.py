"""What a test asks of a system in a cluster, over its bus, with the questions of the command line.

Must not know where the system's parts run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

from services.cli import question
from services.cli.audit import Finding, Seen, audit
from shared.bus import Bus, BusError
from shared.contracts.attach import AttachEvent
from shared.contracts.query import AllocatorView, AttachmentView, LeaseView, QueryLeases
from shared.contracts.span import SpanRecord
from shared.settings import BusSettings

T = TypeVar("T")


class Questions:
    """`bus_of("")` is how a tool connects to the hub, `bus_of(node)` how it asks the services of a node."""

    def __init__(self, bus_of: Callable[[str], BusSettings], nodes: Sequence[str]) -> None:
        self._bus_of = bus_of
        self._nodes = nodes

    def leases(self, **wanted: str) -> list[LeaseView]:
        """By the fields of QueryLeases: address, pool, pod_namespace, pod_name, node."""
        return self._ask(lambda asker: question.leases(asker, QueryLeases(**wanted)))

    def addresses(self, namespace: str) -> dict[str, set[str]]:
        """What is held for the pods of a namespace, by pod."""
        found: dict[str, set[str]] = {}
        for lease in self.leases(pod_namespace=namespace):
            if lease.state == "held":
                found.setdefault(lease.pod_name, set()).add(lease.address)
        return found

    def allocator(self) -> AllocatorView:
        """The leader's view of itself after it has checked its whole memory."""
        return self._ask(lambda asker: question.allocator(asker, audit=True))

    def attachments(self, node: str) -> tuple[AttachmentView, ...]:
        """Of one node, each compared with the kernel."""
        views = self._ask(lambda asker: question.attachments(asker, node, True))[node]
        assert not isinstance(views, Exception), views
        return views

    def findings(self) -> list[Finding]:
        """What `orbweaver doctor` finds of the leases, the journals and the kernels of all nodes."""
        return self._ask(_findings)

    def events(self) -> list[AttachEvent]:
        return [event for _, event in self._ask(question.events)]

    def spans(self) -> list[SpanRecord]:
        return self._ask(question.spans)[0]

    def _ask(self, ask: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        async def run() -> T:
            asker = _Asker(self._bus_of, self._nodes, await Bus.connect(self._bus_of(""), "test", attempts=5))
            try:
                return await ask(asker)
            finally:
                await asker.close()

        return asyncio.run(run())


async def _findings(asker: Any) -> list[Finding]:
    pages = await question.journals_and_kernels(asker)
    silent = [f"{node}: {page}" for node, page in pages.items() if isinstance(page, BusError)]
    assert not silent, silent
    told = {node: page for node, page in pages.items() if not isinstance(page, BusError)}
    leader = await question.allocator(asker, audit=True)
    return audit(
        Seen(
            leader=leader,
            log_after=leader.mark.sequence,
            leases=tuple(await question.leases(asker, QueryLeases())),
            attachments={node: page.attachments for node, page in told.items()},
            strays={node: page.strays for node, page in told.items()},
            pools=tuple(fact.object for fact in await question.facts(asker, "SpiderIPPool")),
        )
    )


class _Asker:
    """What services.cli.question needs of services.cli.system.System."""

    def __init__(self, bus_of: Callable[[str], BusSettings], nodes: Sequence[str], bus: Bus) -> None:
        self.bus = bus
        self.file = SimpleNamespace(nodes=[SimpleNamespace(name=name) for name in nodes])
        self._bus_of = bus_of
        self._nodes: dict[str, Bus] = {}

    async def node_bus(self, node: str) -> Bus:
        if node not in self._nodes:
            self._nodes[node] = await Bus.connect(self._bus_of(node), "test", attempts=2)
        return self._nodes[node]

    async def close(self) -> None:
        for bus in (self.bus, *self._nodes.values()):
            await bus.close()
