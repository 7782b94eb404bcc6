"""The leader's ear for witnesses: who is asked in detail, what of the answers is to be appended, who may take part again.

Owns the questions of one term and the answers not judged yet. Must not know how claims are judged (rebuild.py) or what
differs (watch.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator

import msgspec
import structlog

from services.allocator.bulletin import Bulletin
from services.allocator.collect import node_state
from services.allocator.disagreement import Disagreement, of_node
from services.allocator.facts import Facts
from services.allocator.state import State
from services.allocator.watch import Testimony, Watch, refuted_by
from shared import subjects
from shared.bus import Bus, BusError
from shared.clock import Clock
from shared.contracts.codec import encode
from shared.contracts.lease import LeaseEvent, NodeDeparted, QuarantineLifted
from shared.contracts.witness import Adopt, AskDetail, WitnessReport
from shared.net.ranges import format_address

log = structlog.get_logger()

QUESTIONS_OPEN_MAX = 8192


class Hearing:
    """`lost` says why the log cannot be whole by what a node has seen; empty while it can. `wake` is called when there is something
    to decide or `lost` is set."""

    def __init__(
        self, bus: Bus, state: State, facts: Facts, watch: Watch, clock: Clock, wake: Callable[[], None]
    ) -> None:
        self._bus = bus
        self._state = state
        self._facts = facts
        self._watch = watch
        self._clock = clock
        self._wake = wake
        self._questions: dict[str, tuple[str, int]] = {}
        """Whom each was put to, and the generation of leases then."""
        self._asked = 0
        self._testimonies: deque[Testimony] = deque()
        self._nodes_changed = True
        self._departed: list[str] = []
        self._bulletin = Bulletin(bus, clock)
        self._publishing: set[asyncio.Task[None]] = set()
        self.lost = ""

    def begin(self) -> None:
        """Tells the bus what is open, and goes on doing so until `close`."""
        for node in self._watch.disagreements:
            self._tell(node)
        self._spawn(self._bulletin.run())

    @property
    def is_due(self) -> bool:
        return bool(self._testimonies) or self._nodes_changed

    def nodes_changed(self) -> None:
        """Nodes came or went: what was kept for one that is no more is free."""
        self._nodes_changed = True
        self._wake()

    def on_report(self, report: WitnessReport) -> None:
        """Compares; what differs twice is asked for in detail."""
        state, node = self._state, report.node
        if why := refuted_by(state, report.seen):
            self._refute(node, why)
        elif (
            report.seen.incarnation not in ("", state.incarnation)
            or node in state.silent
            or node in self._bulletin.inherited
            or self._watch.differs(state, report, self._clock.monotonic_s())
        ):
            self.ask(node)

    def ask(self, node: str) -> None:
        """Wants all claims of a node; not more often than it is good for it."""
        if not self._watch.may_ask(node, self._clock.monotonic_s()):
            return
        self._asked += 1
        question = f"{self._state.incarnation}.{self._state.term}.{self._asked}"
        self._questions[question] = (node, self._state.generation)
        if len(self._questions) > QUESTIONS_OPEN_MAX:
            del self._questions[next(iter(self._questions))]
        self._publish(node, encode(AskDetail(question=question)))

    def on_testimony(self, testimony: Testimony) -> None:
        asked = self._questions.pop(testimony.question, None)
        if asked is not None and asked[0] == testimony.claims.node:
            claims = msgspec.structs.replace(testimony.claims, asked_at=asked[1])
            self._testimonies.append(msgspec.structs.replace(testimony, claims=claims))
            self._wake()

    def decide(self) -> tuple[tuple[LeaseEvent, ...], Testimony | None]:
        """What is due now, one testimony at a time; `appended` when its events are durable."""
        if self._nodes_changed:
            self._nodes_changed = False
            kept_for = self._state.silent | {kept.claim.node for kept in self._state.quarantine.values()}
            gone = self._facts.departed
            for node in sorted(
                (kept_for | self._watch.disagreements.keys() | self._bulletin.inherited) & gone
            ):
                self._watch.forget(node)
                self._departed.append(node)
            departed = sorted(kept_for & gone)
            return (
                *(NodeDeparted(node=node) for node in departed),
                *self._out_of_service(kept_for - gone),
            ), None
        testimony = self._testimonies.popleft()
        events = self._watch.judge(self._state, self._facts, testimony)
        if events:
            log.warning("claims of a node change leases", node=testimony.claims.node, events=len(events))
        return events, testimony

    def _out_of_service(self, nodes: set[str]) -> Iterator[QuarantineLifted]:
        """The taint is a person's word that nothing runs there: what is kept for such a node is free."""
        for node in sorted(nodes):
            if node_state(self._facts, node) == "out_of_service":
                kept = [key for key, one in self._state.quarantine.items() if one.claim.node == node]
                if kept:
                    addresses = tuple(format_address(address, family) for family, address in kept)
                    yield QuarantineLifted(addresses=addresses, reason=f"node {node} is out of service")

    def appended(self, testimony: Testimony | None) -> None:
        """What `decide` returned is durable. A node that comes from another log has told what it holds: it may go on with this one."""
        for node in self._departed:
            self._tell(node)
        self._departed.clear()
        if testimony is None:
            return
        self._tell(testimony.claims.node)
        if testimony.seen.incarnation not in ("", self._state.incarnation):
            adopt = Adopt(question=testimony.question, mark=self._state.mark)
            self._publish(testimony.claims.node, encode(adopt))

    def stop(self) -> None:
        """Ends what goes on by itself; `close` waits for it."""
        for task in tuple(self._publishing):
            task.cancel()

    async def close(self) -> None:
        self.stop()
        await asyncio.gather(*self._publishing, return_exceptions=True)

    def _refute(self, node: str, why: str) -> None:
        """Believed once of each node: one that only pretends must not keep everybody rebuilding."""
        if node not in self._watch.disbelieved:
            self._watch.disbelieved.add(node)
            self.lost = f"node {node}: {why}"
            self._wake()
            return
        told = Disagreement(node=node, sentence=f"node {node}: {why}", settles="look after the node's agent")
        self._watch.disagreements[node] = (told,)
        self._tell(node)

    def _tell(self, node: str) -> None:
        found = self._watch.disagreements.get(node, ())
        self._bulletin.tell(node, of_node(self._state, node, found))

    def _publish(self, node: str, payload: bytes) -> None:
        self._spawn(self._sent(node, payload))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _sent(self, node: str, payload: bytes) -> None:
        try:
            await self._bus.publish(subjects.ask_witness(node), payload)
        except BusError as error:
            log.info("node not asked", node=node, error=str(error))
