"""What goes wrong, when and for how long, from the seed; and the end of all of it.

Owns the choice of faults. Must not know what must hold under them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from shared.contracts.mark import LogMark, goes_further
from tests.simulation.hub import Stream, Weather
from tests.simulation.member import Agent, Member

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

Saved = tuple[dict[str, Stream], tuple[tuple[int, bytes], tuple[bytes, ...]]]
"""Somebody's copy of all streams, and the checker's of the log."""

SILENT_S = 25.0
"""A node may be away for longer than a rebuild waits for it."""

GAP_S = 0.9
"""Mean time between two faults."""

LOG_LOST = 2
"""How often the log is lost, beside the other faults, in the seeds that lose something."""


class Faults:
    """`count` counts them; `crash_rate` is the probability that an agent is killed at one of its own steps."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._random = cluster.random
        self.count = 0
        self.crash_rate = 0.0
        self._saved: Saved | None = None

    async def run(self) -> None:
        random = self._random
        await asyncio.sleep(0.5)
        kinds: tuple[tuple[Callable[[], None], int], ...] = (
            (self._kill_allocator, 3),
            (self._stop_allocator, 2),
            (self._cut_allocator, 2),
            (self._kill_agent, 3),
            (self._stop_agent, 1),
            (self._cut_node, 3),
            (self._hub_down, 1),
            (self._power_cut, 2),
            (self._controller_away, 1),
            (self._storm, 4),
            (self._clock, 2),
            (self._fragile, 2),
            (self._refusing_kernel, 1),
            (self._reboot, 1),
            (self._journal_lost, 1),
            (self._kill_controller, 1),
            (self._controller_lags, 1),
        )
        if self._cluster.loses:
            kinds = (*kinds, (self._log_lost, LOG_LOST), (self._older_copy, 1))
        choices = [kind for kind, weight in kinds for _ in range(weight)]
        while True:
            await asyncio.sleep(random.random() * 2 * GAP_S)
            self.count += 1
            fault = choices[int(random.random() * len(choices))]
            self._cluster.count(f"fault {fault.__name__.lstrip('_').replace('_', ' ')}")
            fault()
            if self._cluster.loses and random.random() < 0.15:
                self._saved = (self._cluster.hub.copy(), self._cluster.checker.copy())

    def heal(self) -> None:
        cluster = self._cluster
        self.crash_rate = 0.0
        cluster.hub.weather = Weather()
        for agent in cluster.agents.values():
            if agent.is_alive:
                agent.kernel.refuses = 0.0
        self._hub_up()
        for member in (*cluster.allocators, *cluster.agents.values(), cluster.controller):
            self._link(member, "up")
            member.start()
            member.process.go_on()

    # each fault ends by itself

    def _later(self, longest_s: float, act: object, *args: object) -> float:
        span_s = 0.05 + self._random.random() ** 2 * longest_s
        self._cluster.hub.process.call_later(span_s, act, *args)  # type: ignore[arg-type]
        return span_s

    def _tell(self, what: str, span_s: float) -> None:
        self._cluster.tell(f"fault: {what} for {span_s:.2f} s")

    def _an_allocator(self) -> Member:
        """The leader more often than not."""
        allocators = self._cluster.allocators
        leaders = [a for a in allocators if a.leads]
        if leaders and self._random.random() < 0.7:
            return leaders[0]
        return allocators[int(self._random.random() * len(allocators))]

    def _an_agent(self) -> Agent:
        agents = list(self._cluster.agents.values())
        return agents[int(self._random.random() * len(agents))]

    def _kill(self, member: Member, longest_s: float) -> None:
        self._tell(f"{member.name} killed", self._later(longest_s, member.start))
        member.kill()

    def _stop(self, member: Member, longest_s: float) -> None:
        if member.is_alive:
            process = member.process
            self._tell(f"{member.name} stopped", self._later(longest_s, process.go_on))
            process.stop()

    def _cut(self, member: Member, longest_s: float) -> None:
        state: Literal["silent", "closed"] = "silent" if self._random.random() < 0.5 else "closed"
        self._tell(f"{member.name} is cut off, {state}", self._later(longest_s, self._link, member, "up"))
        self._link(member, state)

    def _link(self, member: Member, state: Literal["up", "silent", "closed"]) -> None:
        before, member.link.state = member.link.state, state
        if state == "up" and before == "closed" and member.is_alive:
            member.bus.reconnect()

    def _kill_allocator(self) -> None:
        self._kill(self._an_allocator(), 2.0)

    def _stop_allocator(self) -> None:
        self._stop(self._an_allocator(), 6.0)

    def _cut_allocator(self) -> None:
        self._cut(self._an_allocator(), 6.0)

    def _kill_agent(self) -> None:
        self._kill(self._an_agent(), 2.0)

    def _stop_agent(self) -> None:
        self._stop(self._an_agent(), 5.0)

    def _cut_node(self) -> None:
        self._cut(self._an_agent(), 6.0)

    def _hub_down(self) -> None:
        self._tell("hub killed", self._later(2.0, self._hub_up))
        self._cluster.hub.go_down()

    def _marked(self, *, of_log: str, shared: bool) -> int | None:
        """How far the log went by what any allocator is told that may lead next: the mark of its machine, or the one that is `shared` where
        that goes further. None where one is told nothing, or nothing of the log `of_log`: nobody could know of a loss."""
        cluster = self._cluster
        common = cluster.controller.mark if shared else None
        known: list[LogMark] = []
        for allocator in cluster.allocators:
            own = allocator.marks.read()
            best = common if own is None or (common is not None and goes_further(common, own)) else own
            if best is None or of_log not in ("", best.incarnation):
                return None
            known.append(best)
        return min(mark.sequence for mark in known)

    def _log_lost(self) -> None:
        everything = self._random.random() < 0.4
        # where all streams are lost the controller tells its mark anew, before anybody is answered
        of_log = "" if everything else self._cluster.checker.state.incarnation
        marked = self._marked(of_log=of_log, shared=True)
        if marked is None:
            self._cluster.count("fault log lost, which nobody could know")
            return
        self._tell(
            f"the log is lost{', with all streams' if everything else ''}", self._later(2.0, self._hub_up)
        )
        self._cluster.hub.go_down()
        self._cluster.hub.lose(everything=everything, marked=marked)
        if self._random.random() < 0.4:
            self._kill(self._an_agent(), SILENT_S)
        if self._random.random() < 0.6:
            for allocator in self._cluster.allocators:  # nobody remembers the log
                self._kill(allocator, 1.0)

    def _older_copy(self) -> None:
        """Somebody puts back what he saved. The mark outside tells that there was more; where it does not, nobody could know."""
        hub, of_log = self._cluster.hub, self._cluster.checker.state.incarnation
        # the facts are put back too, and who tells them may be away
        marked = self._marked(of_log=of_log, shared=False)
        if self._saved is None or marked is None:
            return
        streams, log = self._saved
        leases, present = streams.get("LEASES"), hub.streams.get("LEASES")
        if leases is None or present is None or marked <= leases.last_sequence + 1:
            return
        self._tell(f"the store of record {leases.last_sequence} is put back", self._later(2.0, self._hub_up))
        hub.go_down()
        hub.restore(streams)
        self._cluster.checker.restored(log)
        for allocator in self._cluster.allocators:
            self._kill(allocator, 1.0)

    def _power_cut(self) -> None:
        """Of hub and allocators, in one rack."""
        self._tell("power cut", self._later(1.0, self._hub_up))
        self._cluster.hub.go_down(power_cut=True)
        for allocator in self._cluster.allocators:
            self._kill(allocator, 1.0)
        if self._random.random() < 0.7:
            self._kill(self._cluster.controller, 4.0)

    def _hub_up(self) -> None:
        hub = self._cluster.hub
        if hub.is_up:
            return
        hub.come_up()
        for member in (*self._cluster.allocators, *self._cluster.agents.values(), self._cluster.controller):
            if member.is_alive:
                member.bus.reconnect()

    def _controller_away(self) -> None:
        self._cut(self._cluster.controller, 4.0)

    def _kill_controller(self) -> None:
        self._kill(self._cluster.controller, 4.0)

    def _controller_lags(self) -> None:
        """Facts come late, all of them."""
        self._stop(self._cluster.controller, 6.0)

    def _storm(self) -> None:
        """Messages of all links fare badly for a while."""
        random = self._random.random
        self._cluster.hub.weather = Weather(
            lost=random() * 0.15,
            doubled=random() * 0.1,
            late=random() * 0.03,
            late_s=8.0 * random(),
            lying_fence=random() * 0.2 if random() < 0.5 else 0.0,
        )
        self._tell("storm", self._later(6.0, self._calm))

    def _calm(self) -> None:
        self._cluster.hub.weather = Weather()

    def _clock(self) -> None:
        member = self._an_allocator() if self._random.random() < 0.7 else self._an_agent()
        by_s = (self._random.random() - 0.5) * 48 * 3600
        member.clock.jump(by_s)
        self._cluster.tell(f"fault: the clock of {member.name} jumps by {by_s:.0f} s")

    def _reboot(self) -> None:
        agent = self._an_agent()
        self._tell(f"the machine of {agent.node} starts anew", self._later(4.0, agent.start))
        agent.start_anew()
        self._cluster.kubelet.started_anew(agent.node)

    def _journal_lost(self) -> None:
        agent = self._an_agent()
        self._kill(agent, 2.0)
        agent.disk.content = b""
        self._tell(f"the journal of {agent.node} is lost", 0.0)
        self._cluster.kubelet.journal_lost(agent.node)

    def _fragile(self) -> None:
        """Agents are killed in the middle of what they do."""
        self.crash_rate = 0.02
        self._tell("agents are fragile", self._later(3.0, self._sturdy))

    def _sturdy(self) -> None:
        self.crash_rate = 0.0

    def _refusing_kernel(self) -> None:
        agent = next(iter(self._cluster.agents.values()))
        if agent.is_alive:
            kernel = agent.kernel
            kernel.refuses = 0.2
            self._tell(
                f"the kernel of {agent.node} refuses", self._later(3.0, setattr, kernel, "refuses", 0.0)
            )
