"""Leadership: taken over in under 2 s with the same addresses, fenced, handed over, found again after a restart of NATS."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

from shared import subjects
from shared.bus import BusError
from shared.contracts.codec import encode
from shared.contracts.ipam import ALLOCATE_REPLY, Allocated
from tests.integration.allocator.conftest import Cluster, Replicas

Run = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def test_a_killed_leader_is_followed_in_under_two_seconds_with_the_same_addresses(
    run: Run, replicas: Replicas
) -> None:
    """Best of three: the machine may be busy with other things."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1", "a2")
        before = {name: (await cluster.attach(name)).grants for name in ("one", "two", "three")}
        took_s: list[float] = []
        for _ in range(3):
            leader = await cluster.leader()
            other = "a2" if leader == "a1" else "a1"
            await cluster.ready(other)
            start_s = time.monotonic()
            replicas.kill(leader)
            await cluster.attach("one")
            took_s.append(time.monotonic() - start_s)
            for name, grants in before.items():
                assert (await cluster.attach(name)).grants == grants
            await cluster.attach(f"new-{len(took_s)}")
            replicas.start(leader)
            await cluster.ready(leader)
        await cluster.check()
        assert min(took_s) < 2.0, took_s

    run(body)


def test_a_leader_that_is_asked_to_end_hands_over_at_once(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1", "a2")
        await cluster.attach("one")
        leader = await cluster.leader()
        await cluster.ready("a2" if leader == "a1" else "a1")
        start_s = time.monotonic()
        assert replicas[leader].stop() == 0
        await cluster.attach("two")
        assert time.monotonic() - start_s < 5.0
        await cluster.check()

    run(body)


def test_a_stopped_leader_that_wakes_up_is_fenced(run: Run, replicas: Replicas) -> None:
    """Requests wait in its socket while another leads; when it wakes it decides them, and must not answer them."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1", "a2")
        await cluster.attach("one")
        stale = await cluster.leader()
        inbox = cluster.bus.connection.new_inbox()
        answers: list[bytes] = []
        await cluster.bus.listen(inbox, lambda message: answers.append(message.data))
        replicas.signal(stale, signal.SIGSTOP)
        try:
            for i in range(20):
                await cluster.bus.publish(
                    subjects.allocate("n1"), encode(cluster.command(f"waits-{i}")), reply=inbox
                )
            await cluster.leader(other_than=stale)
            for i in range(20):
                await cluster.attach(f"meanwhile-{i}")
        finally:
            replicas.signal(stale, signal.SIGCONT)
        await asyncio.to_thread(replicas[stale].logged, "term over", 20.0)
        await asyncio.sleep(0.5)
        for payload in answers:
            reply = ALLOCATE_REPLY.decode(payload)
            if isinstance(reply, Allocated):
                container = reply.attempt.removeprefix("attempt-")
                cluster.acknowledged[container] = tuple(grant.address for grant in reply.grants)
        state = await cluster.check()
        assert len(state.holdings) >= 21
        assert await cluster.leader() != stale, "a stale leader takes nothing away from the new one"

    run(body)


def test_nats_is_restarted_and_leadership_lives_in_memory_there(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1", "a2")
        before = (await cluster.attach("one")).grants
        await asyncio.to_thread(cluster.server.stop, True)
        await asyncio.to_thread(cluster.server.start)
        assert (await cluster.attach("one")).grants == before
        await cluster.attach("two")
        state = await cluster.check()
        assert state.term >= 1

    run(body)


def test_one_leads_while_the_other_stands_by(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1", "a2")
        leader = await cluster.leader()
        seen: set[str] = set()
        for _ in range(30):
            view = await cluster.view()
            assert view is not None
            seen.add(view.replica)
            await asyncio.sleep(0.05)
        assert seen == {leader}
        assert (await cluster.log()).term == 1

    run(body)


def test_requests_within_their_deadline_survive_a_fail_over(run: Run, replicas: Replicas) -> None:
    """Agents go on asking while the leader is killed: everybody is served in the end, nobody twice."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1", "a2")
        await cluster.attach("warm")
        leader = await cluster.leader()
        waiting = [asyncio.create_task(cluster.attach(f"c{i}")) for i in range(500)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        replicas.signal(leader, signal.SIGKILL)
        assert not all(task.done() for task in waiting)
        await asyncio.gather(*waiting)
        state = await cluster.check()
        assert len(state.holdings) == 501

    run(body)


def test_an_expired_request_is_dropped_not_decided(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await cluster.attach("one")
        for i in range(5):
            command = encode(cluster.command(f"late-{i}", ttl_ms=0))
            try:
                await cluster.bus.request(subjects.allocate("n1"), command, 0.2)
            except BusError:
                continue
            raise AssertionError("an expired request was answered")
        assert [*(await cluster.check()).holdings] == ["container:n1/one"]

    run(body)
