"""A rebuild is killed at any of its steps, by both replicas in turn, and a leader of the lost log wakes up in the new one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from shared import subjects
from shared.contracts.codec import encode
from shared.contracts.ipam import ALLOCATE_REPLY, Allocated, Mark
from shared.contracts.lease import RECORD
from shared.contracts.query import IPAM_ANSWER, AllocatorView, QueryAllocator
from shared.failpoint import POINTS, VARIABLE
from tests.integration.allocator.conftest import Cluster, Replicas, replicas, run
from tests.integration.loss.test_claims import FakeNode, attached, claim

__all__ = ["replicas", "run"]
Run = Callable[[Callable[[Cluster], Awaitable[None]]], None]
STEPS = tuple(name for name in POINTS if name.startswith("allocator.rebuild."))


async def sound(cluster: Cluster) -> AllocatorView | None:
    message = await cluster.bus.request(subjects.IPAM_QUERY, encode(QueryAllocator(audit=True)), 5.0)
    view = IPAM_ANSWER.decode(message.data)
    assert isinstance(view, AllocatorView)
    assert view.violations == ()
    return view


async def has_all(cluster: Cluster, node: FakeNode) -> None:
    """Every container has its addresses still, and a new one others."""
    for one in node.claims:
        again = await cluster.attach(one.container_id, node.node, timeout_s=2.0)
        assert tuple(grant.address for grant in again.grants) == one.addresses
    fresh = await attached(cluster, "fresh")
    assert not set(fresh.addresses) & {address for one in node.claims for address in one.addresses}


@pytest.mark.parametrize("step", STEPS)
def test_a_rebuild_is_killed(
    run: Run, replicas: Replicas, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async def body(cluster: Cluster) -> None:
        monkeypatch.setenv(VARIABLE, step)
        replicas.start("a1", "a2")
        monkeypatch.delenv(VARIABLE)
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        node.claims = [await attached(cluster, f"c{i}") for i in range(10)]
        first = (await cluster.until(cluster.view)).mark.incarnation
        node.seen = Mark(incarnation=first, sequence=10_000, digest="aa")

        # where the old log is gone, the other goes on with the new one
        die = 1 if step == "allocator.rebuild.purged" else 2

        async def died() -> bool:
            await node.report()
            await asyncio.sleep(0.2)
            line = f"failpoint {step}:1:kill"
            return sum(line in replicas[name].log.read_text() for name in ("a1", "a2")) == die

        await cluster.until(died)
        replicas.kill()
        replicas.start("a1", "a2")
        await has_all(cluster, node)
        view = await cluster.until(lambda: sound(cluster))
        assert view.mark.incarnation != first
        assert view.silent == ()

    run(body)


def test_a_leader_of_a_lost_log_wakes_up_where_its_number_fits_again(run: Run, replicas: Replicas) -> None:
    """The stream was lost, rebuilt and filled to the very sequence that the old leader appends after."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        node.claims = [await attached(cluster, f"c{i}") for i in range(20)]
        replicas.start("a2")
        await cluster.ready("a2")
        old = (await cluster.until(cluster.view)).mark
        answers: list[bytes] = []
        inbox = cluster.bus.connection.new_inbox()
        await cluster.bus.listen(f"{inbox}.*", lambda message: answers.append(message.data))
        replicas.signal("a1", signal.SIGSTOP)
        try:
            last = (await cluster.bus.stream_state("LEASES")).last_sequence
            await cluster.bus.api("STREAM.DELETE.LEASES")
            await cluster.leader(other_than="a1")
            number = 0
            while (await cluster.bus.stream_state("LEASES")).last_sequence < last - 1:
                number += 1
                node.claims.append(await attached(cluster, f"d{number}"))
            # one waits for both: it brings the new log to `last`, and is what the old leader appends after it
            command = encode(cluster.command("both"))
            await cluster.bus.publish(subjects.allocate("n1"), command, reply=f"{inbox}.1")
            await cluster.until(lambda: _answered(answers))
            assert (await cluster.bus.stream_state("LEASES")).last_sequence == last
        finally:
            replicas.signal("a1", signal.SIGCONT)
        await asyncio.to_thread(replicas["a1"].logged, "term over", 20.0)
        await cluster.ready("a1")
        replies = [ALLOCATE_REPLY.decode(payload) for payload in answers]
        given = {reply.grants for reply in replies if isinstance(reply, Allocated)}
        assert len(given) == 1
        assert all(
            reply.mark.incarnation != old.incarnation for reply in replies if isinstance(reply, Allocated)
        )
        records = [RECORD.decode(record.data) for record in await cluster.records()]
        assert all(record.incarnation != old.incarnation for record in records)
        (both,) = given
        node.claims.append(claim("both", tuple(grant.address for grant in both), both[0].generation))
        await has_all(cluster, node)
        await cluster.until(lambda: sound(cluster))

    run(body)


async def _answered(answers: list[bytes]) -> bool:
    await asyncio.sleep(0.01)
    return bool(answers)
