"""Garbage collection at work in the leading allocator: when pods are judged, and what is done about a verdict.

Owns the times (a pod is judged when its facts change, when its grace ends, and all are at an interval), for how long a pod was seen
ending, and the requests to agents. Must not know by which rule a lease is judged (collect.py), nor how events are appended.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

import structlog

from services.allocator.collect import (
    DEL_PATIENCE_S,
    LOOK_AGAIN_NS,
    Heard,
    Verdict,
    events_of,
    judge,
    judge_interfaces,
)
from services.allocator.facts import Facts
from services.allocator.pace import MINUTE_S, Pace
from services.allocator.pod import SECOND_NS
from services.allocator.state import Holding, State
from services.allocator.watch import Watch
from shared import limits, subjects
from shared.bus import Bus, BusError
from shared.bus.node_questions import NodeQuestions
from shared.clock import Clock
from shared.contracts.codec import MessageError, encode
from shared.contracts.collect import ASK_DETACH_TIMEOUT_S, DETACH_ANSWER, AskDetach, DetachAnswer
from shared.contracts.lease import LeaseEvent
from shared.telemetry.metrics import AllocatorMetrics

log = structlog.get_logger()

Key = tuple[str, str]
"""Namespace and name of a pod; an empty namespace and the owner where no pod stands behind it."""
TICK_S = 1.0
SETTLE_NS = 2 * SECOND_NS
"""After a detach was confirmed its release is on its way through the queue."""
ASKED_AT_ONCE = 32
STEP_HOLDINGS = 2000


class Collector:
    """`due` is called with what is to be judged: whoever appends then calls `decide` for it."""

    def __init__(
        self,
        bus: Bus,
        state: State,
        facts: Facts,
        watch: Watch,
        clock: Clock,
        metrics: AllocatorMetrics,
        due: Callable[[Key], None],
    ) -> None:
        self._nodes = NodeQuestions(bus, "allocator")
        self._state = state
        self._facts = facts
        self._watch = watch
        self._clock = clock
        self._metrics = metrics
        self._due = due
        self._began_s = clock.monotonic_s()
        self._since: dict[Key, dict[str, float]] = {}
        self._dates: dict[Key, int] = {}
        self._heap: list[tuple[int, Key]] = []
        self._slots = asyncio.Semaphore(ASKED_AT_ONCE)
        self._asking: dict[tuple[str, str, str, int], asyncio.Task[None]] = {}
        self._scan_now = asyncio.Event()
        self._hurried: set[Key] = set()
        self._pace = Pace()
        self._held_back_s: dict[str, float] = {}

    async def run(self) -> None:
        """For ever: tells what is due."""
        scanned_s = self._clock.monotonic_s()
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._scan_now.wait()
            except TimeoutError:
                pass
            now_ns = max(self._state.at_ns, self._clock.unix_ns())
            while self._heap and self._heap[0][0] <= now_ns:
                due_ns, key = heapq.heappop(self._heap)
                if self._dates.get(key) == due_ns:
                    del self._dates[key]
                    self._due(key)
            interval_s = self._facts.settings.gc.gc_all.interval_in_second
            if self._scan_now.is_set() or self._clock.monotonic_s() - scanned_s >= interval_s:
                self._scan_now.clear()
                scanned_s = self._clock.monotonic_s()
                self._pace.forget(scanned_s)
                await self._scan()

    def hurry(self) -> None:
        """A person wants it done now: no DEL is awaited of what is over already."""
        self._hurried = {key_of(holding) for holding in self._state.holdings.values()}
        self.scan()

    async def close(self) -> None:
        tasks = tuple(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._nodes.close()

    def scan(self) -> None:
        """Everything is judged now."""
        self._scan_now.set()

    async def _scan(self) -> None:
        for number, holding in enumerate(tuple(self._state.holdings.values()), 1):
            self._due(key_of(holding))
            if number % STEP_HOLDINGS == 0:
                await asyncio.sleep(0)

    def node_changed(self, node: str) -> None:
        for holding in self._state.holdings_of_node(node):
            self._due(key_of(holding))

    def verdict(self, holding: Holding, now_ns: int, patience_s: float = DEL_PATIENCE_S) -> Verdict:
        """What would be decided now; changes nothing."""
        since_s = self._since.get(key_of(holding), {}).get(holding.owner)
        watched_s = 0.0 if since_s is None else self._clock.monotonic_s() - since_s
        heard = self._heard(holding.node)
        return judge(
            self._state, self._facts, holding, now_ns, heard, watched_s=watched_s, patience_s=patience_s
        )

    def decide(self, key: Key, now_ns: int) -> tuple[LeaseEvent, ...]:
        """What is to be appended for this pod; agents are asked to detach, and a later look is planned."""
        namespace, name = key
        holdings = (
            self._state.holdings_of_pod(namespace, name)
            if namespace
            else [one for one in (self._state.holdings.get(name),) if one is not None]
        )
        since = self._since.pop(key, {})
        is_hurried = key in self._hurried
        self._hurried.discard(key)
        events: list[LeaseEvent] = []
        for holding in holdings:
            if holding.owner in since:
                self._since.setdefault(key, {})[holding.owner] = since[holding.owner]
            verdict = self.verdict(holding, now_ns, 0.0 if is_hurried else DEL_PATIENCE_S)
            if verdict.due_ns or verdict.action != "keep":
                self._since.setdefault(key, {}).setdefault(holding.owner, self._clock.monotonic_s())
            elif key in self._since:
                self._since[key].pop(holding.owner, None)
            if verdict.due_ns:
                self._plan(key, verdict.due_ns)
            if verdict.action == "detach":
                self._detach(holding, verdict, key, now_ns, is_hurried=is_hurried)
            for ifnames, of_interfaces in judge_interfaces(self._facts, holding, verdict):
                new = events_of(holding, ifnames, of_interfaces, now_ns)
                if new:
                    leases = sum(len(holding.interfaces[ifname].leases) for ifname in ifnames)
                    self._metrics.collected(leases)
                    log.info(
                        "collected",
                        owner=holding.owner,
                        pod="/".join(key),
                        node=holding.node,
                        leases=leases,
                        action=of_interfaces.action,
                        reason=of_interfaces.reason,
                    )
                events += new
        return tuple(events)

    def _plan(self, key: Key, due_ns: int) -> None:
        """The earliest date of a pod counts: then it is judged anew."""
        known_ns = self._dates.get(key)
        if known_ns is None or due_ns < known_ns:
            self._dates[key] = due_ns
            heapq.heappush(self._heap, (due_ns, key))

    def _heard(self, node: str) -> Heard:
        now_s = self._clock.monotonic_s()
        at_s = self._watch.heard_s.get(node)
        if at_s is not None and now_s - at_s < limits.WITNESS_SILENT_S:
            return "heard"
        return "silent" if now_s - self._began_s >= limits.WITNESS_SILENT_S else "unsure"

    def _detach(self, holding: Holding, verdict: Verdict, key: Key, now_ns: int, *, is_hurried: bool) -> None:
        asks = [
            (holding.node, holding.container_id, ifname, held.generation)
            for ifname, held in holding.interfaces.items()
            if not held.is_over
        ]
        asks = [ask for ask in asks if ask not in self._asking]
        if not asks:
            return
        now_s = self._clock.monotonic_s()
        holdings = len(self._state.holdings_of_node(holding.node))
        if not is_hurried and not self._pace.take(holding.node, holdings, len(self._facts.pods), now_s):
            self._plan(key, now_ns + LOOK_AGAIN_NS)
            self._tell_held_back(holding.node, now_s)
            return
        for ask in asks:
            leases = len(holding.interfaces[ask[2]].leases)
            task = asyncio.create_task(self._ask(ask, leases, verdict.rule, key))
            self._asking[ask] = task
            task.add_done_callback(lambda _, ask=ask: self._asking.pop(ask, None))

    def _tell_held_back(self, node: str, now_s: float) -> None:
        """Once a minute for each node."""
        if now_s - self._held_back_s.get(node, -MINUTE_S) >= MINUTE_S:
            self._held_back_s[node] = now_s
            log.warning("many pods of a node are gone without a DEL: they are detached slowly", node=node)

    async def _ask(self, ask: tuple[str, str, str, int], leases: int, rule: str, key: Key) -> None:
        """The release of the interface and its leases comes as that of every DEL does; what no agent answers for is judged again later."""
        node, container_id, ifname, generation = ask
        question = AskDetach(
            container_id=container_id, ifname=ifname, generation=generation, reason=f"collected: {rule}"
        )
        async with self._slots:
            try:
                reply = await self._nodes.request(
                    node, subjects.ask_detach(node), encode(question), ASK_DETACH_TIMEOUT_S
                )
                answer = DETACH_ANSWER.decode(reply.data)
            except (BusError, MessageError) as error:
                answer = DetachAnswer(outcome="failed", message=str(error))
        is_detached = answer.outcome == "detached"
        if answer.outcome == "failed":
            self._metrics.not_collected()
        elif is_detached:
            self._metrics.collected(leases)
        log.info(
            "detach asked",
            node=node,
            attachment=f"{container_id}/{ifname}",
            generation=generation,
            outcome=answer.outcome,
            message=answer.message,
        )
        now_ns = max(self._state.at_ns, self._clock.unix_ns())
        self._plan(key, now_ns + (SETTLE_NS if is_detached else LOOK_AGAIN_NS))


def key_of(holding: Holding) -> Key:
    return (holding.namespace, holding.name) if holding.namespace else ("", holding.owner)
