"""What nodes claim to a real allocator: the test speaks for the nodes, as an agent that is sick, lost its journal, or lies would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared import subjects
from shared.bus import Bus, Message
from shared.contracts.codec import encode
from shared.contracts.disagreement import (
    DISAGREEMENT_EVENT,
    DisagreementAppeared,
    DisagreementEvent,
    DisagreementSettled,
)
from shared.contracts.ipam import Mark
from shared.contracts.query import AllocatorView
from shared.contracts.witness import (
    WITNESS_QUESTION,
    Adopt,
    AskDetail,
    Claim,
    WitnessDetail,
    WitnessReport,
    digest_of,
)
from tests.integration.allocator.conftest import Cluster, Replicas, replicas, run

__all__ = ["replicas", "run"]
Run = Callable[[Callable[[Cluster], Awaitable[None]]], None]
PER_MESSAGE = 500


class FakeNode:
    """Answers questions with `claims`; reports when it is told to."""

    def __init__(self, bus: Bus, node: str) -> None:
        self._bus = bus
        self.node = node
        self.claims: list[Claim] = []
        self.seen = Mark()
        self.unsettled: tuple[str, ...] = ()
        self.adopted: list[Mark] = []
        self.asked = 0

    async def listen(self) -> None:
        for subject in (subjects.ASK_WITNESS_ALL, subjects.ask_witness(self.node)):
            await self._bus.serve(subject, self._on_question)

    async def _on_question(self, message: Message) -> None:
        question = WITNESS_QUESTION.decode(message.data)
        if isinstance(question, AskDetail):
            self.asked += 1
            parts = max(1, -(-len(self.claims) // PER_MESSAGE))
            for part in range(parts):
                detail = WitnessDetail(
                    node=self.node,
                    question=question.question,
                    seen=self.seen,
                    part=part,
                    parts=parts,
                    claims=tuple(self.claims[part * PER_MESSAGE : (part + 1) * PER_MESSAGE]),
                    scanned=True,
                )
                await self._bus.publish(subjects.witness(self.node), encode(detail))
        elif isinstance(question, Adopt):
            self.adopted.append(question.mark)
            self.seen = question.mark
        else:
            await self.report()

    async def report(self) -> None:
        report = WitnessReport(
            node=self.node,
            seen=self.seen,
            digest=digest_of(
                (c.container_id, c.ifname, c.generation, tuple(sorted(c.addresses)))
                for c in self.claims
                if c.container_id
            ),
            attachments=len(self.claims),
            unsettled=self.unsettled,
        )
        await self._bus.publish(subjects.witness(self.node), encode(report))

    async def insist(self, cluster: Cluster, until: Callable[[AllocatorView], bool]) -> AllocatorView:
        """Reports again and again, as time goes by, until the leader's view is as wanted."""

        async def once() -> AllocatorView | None:
            await self.report()
            await asyncio.sleep(0.2)
            view = await cluster.view()
            return view if view is not None and until(view) else None

        return await cluster.until(once)


def claim(container: str, addresses: tuple[str, ...], generation: int) -> Claim:
    return Claim(container_id=container, ifname="eth0", addresses=addresses, generation=generation, live=True)


async def attached(cluster: Cluster, container: str, node: str = "n1") -> Claim:
    reply = await cluster.attach(container, node)
    return claim(container, tuple(g.address for g in reply.grants), reply.grants[0].generation)


def test_a_node_that_agrees_is_never_asked(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        node.claims = [await attached(cluster, f"c{i}") for i in range(5)]
        for _ in range(5):
            await node.report()
        view = await cluster.view()
        assert view is not None
        assert (node.asked, view.disagreements, view.quarantined) == (0, (), 0)

    run(body)


def test_a_sick_node_that_claims_ten_thousand_addresses(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await attached(cluster, "honest")
        sick = FakeNode(cluster.bus, "n2")
        await sick.listen()
        sick.claims = [claim(f"x{i}", (f"10.0.{1 + i // 256}.{i % 256}/16",), 1 << 40) for i in range(10_000)]
        view = await sick.insist(cluster, lambda view: view.quarantined > 0)
        assert view.quarantined <= 256
        assert view.disagreements
        for i in range(20):
            await attached(cluster, f"later-{i}")
        state = await cluster.check()
        kept = {kept.address for kept in state.quarantine.values()}
        assert not kept & state.taken[4].keys() - {0x0A000100}
        # the agent is well again
        sick.claims = []
        await sick.insist(cluster, lambda view: view.quarantined == 0 and not view.disagreements)

    run(body)


def test_of_two_live_claimants_the_one_in_the_log_keeps_it(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        rightful = await attached(cluster, "rightful")
        other = FakeNode(cluster.bus, "n2")
        await other.listen()
        other.claims = [claim("other", rightful.addresses, rightful.generation + 7)]
        view = await other.insist(cluster, lambda view: view.quarantined == 2)
        sentences = [one.sentence for one in view.disagreements]
        assert any("container rightful" in s and "container other on n2 uses it too" in s for s in sentences)
        # the rightful holder leaves: the address is still in use on n2
        await cluster.release("rightful", rightful.generation)
        del cluster.acknowledged["rightful"]
        await cluster.until(lambda: _gone(cluster, "container:n1/rightful"))
        fresh = await attached(cluster, "fresh")
        assert not set(fresh.addresses) & set(rightful.addresses)

    run(body)


async def _gone(cluster: Cluster, owner: str) -> bool:
    return owner not in (await cluster.log()).holdings


def test_a_container_that_its_node_no_longer_has_is_released(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        await attached(cluster, "forgotten")
        kept = await attached(cluster, "kept")
        node.claims = [kept]
        await node.insist(cluster, lambda view: view.leases == 2)
        del cluster.acknowledged["forgotten"]
        state = await cluster.check()
        assert "container:n1/kept" in state.holdings

    run(body)


def test_a_lease_that_ended_in_error_is_made_anew(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        mine = await attached(cluster, "mine")
        node.claims = [mine]
        await cluster.release("mine", mine.generation)
        await cluster.until(lambda: _gone(cluster, "container:n1/mine"))
        view = await node.insist(cluster, lambda view: view.leases == 2)
        assert view.quarantined == 0
        await node.insist(cluster, lambda view: not view.disagreements)
        await cluster.check()  # `acknowledged` has it under the same addresses
        told = [event for event in await _told(cluster) if isinstance(event, DisagreementAppeared)]
        assert any("whose lease the log has ended" in event.sentence for event in told)
        # its DEL names the generation that it always had
        node.claims = []
        await cluster.release("mine", mine.generation)
        del cluster.acknowledged["mine"]
        await cluster.until(lambda: _gone(cluster, "container:n1/mine"))

    run(body)


async def _told(cluster: Cluster) -> list[DisagreementEvent]:
    return [
        DISAGREEMENT_EVENT.decode(message.data)
        async for message in cluster.bus.read(subjects.DISAGREEMENTS.name)
    ]


def test_a_disagreement_is_told_when_it_appears_and_when_it_is_settled(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1", "a2")
        await attached(cluster, "c1")
        stranger = FakeNode(cluster.bus, "n2")
        await stranger.listen()
        stranger.claims = [claim("theirs", ("10.0.9.1/16",), 3)]
        await stranger.insist(cluster, lambda view: view.quarantined == 1)

        async def appeared() -> list[DisagreementEvent] | None:
            told = await _told(cluster)
            return told if len(told) == 2 else None

        first = await cluster.until(appeared)
        assert all(isinstance(one, DisagreementAppeared) and one.node == "n2" for one in first)
        assert {one.addresses for one in first} == {("10.0.9.1",)}
        # another leader tells nothing again that was told, and settles what the one before left open
        leads = await cluster.leader()
        replicas.kill(leads)
        await cluster.leader(other_than=leads)
        await stranger.insist(cluster, lambda view: bool(view.disagreements))
        assert len(await _told(cluster)) == 2
        stranger.claims = []
        await stranger.insist(cluster, lambda view: view.quarantined == 0 and not view.disagreements)

        async def settled() -> bool:
            told = await _told(cluster)
            over = {one.id for one in told if isinstance(one, DisagreementSettled)}
            return over == {one.id for one in first}

        await cluster.until(settled)

    run(body)


def test_nothing_is_asked_while_something_is_under_way(run: Run, replicas: Replicas) -> None:
    """What differs is a container that the report names as unsettled: no exchange, however long."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        node.claims = [await attached(cluster, "settled")]
        await attached(cluster, "moving")
        node.unsettled = ("moving",)
        for _ in range(4):
            await node.report()
            await asyncio.sleep(0.2)
        assert node.asked == 0
        node.unsettled = ()
        await node.report()
        await asyncio.sleep(0.3)
        assert node.asked == 0, "one report is not enough"
        await node.report()
        await cluster.until(lambda: _asked(node))

    run(body)


async def _asked(node: FakeNode) -> bool:
    await asyncio.sleep(0.02)
    return node.asked > 0


def test_a_mark_beyond_the_log_is_believed_once(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        node.claims = [await attached(cluster, "c1")]
        view = await cluster.view()
        assert view is not None
        first = view.mark.incarnation
        node.seen = Mark(incarnation=first, sequence=10_000, digest="aa")
        await node.insist(cluster, lambda view: view.mark.incarnation != first)
        second = (await cluster.until(cluster.view)).mark.incarnation
        assert [mark.incarnation for mark in node.adopted] == [second]
        assert (await cluster.attach("c1")).grants[0].address == node.claims[0].addresses[0]
        node.seen = Mark(incarnation=second, sequence=20_000, digest="aa")
        view = await node.insist(cluster, lambda view: bool(view.disagreements))
        assert view.mark.incarnation == second

    run(body)


def test_a_rebuilt_log_without_its_snapshot_is_rebuilt_again(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        reply = await cluster.attach("c1")
        node.claims = [claim("c1", tuple(g.address for g in reply.grants), reply.grants[0].generation)]
        first = reply.mark.incarnation
        node.seen = Mark(incarnation=first, sequence=10_000, digest="aa")
        second = (await node.insist(cluster, lambda view: view.mark.incarnation != first)).mark.incarnation
        replicas.kill("a1")
        await cluster.bus.purge("SNAPSHOTS")
        replicas.start("a1", "a2")
        again = await cluster.attach("c1")
        assert again.mark.incarnation not in (first, second)
        assert tuple(g.address for g in again.grants) == node.claims[0].addresses

    run(body)


def test_a_node_from_another_log_is_heard_before_it_takes_part(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await attached(cluster, "c1")
        stranger = FakeNode(cluster.bus, "n2")
        await stranger.listen()
        stranger.seen = Mark(incarnation="elsewhere", sequence=5, digest="aa")
        stranger.claims = [claim("theirs", ("10.0.1.1/16", "fd00::1:1/64"), 3)]
        await stranger.insist(cluster, lambda _: bool(stranger.adopted))
        view = await cluster.until(cluster.view)
        assert view.quarantined == 2
        fresh = await attached(cluster, "c2")
        assert not set(fresh.addresses) & set(stranger.claims[0].addresses)

    run(body)
