"""The running allocator reads its own log anew and judges it as the simulator does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from services.allocator.log import LeaseLog
from shared import subjects
from shared.contracts.codec import encode
from shared.contracts.lease import LeaseItem, LeasesAllocated, LeasesReleased
from shared.contracts.query import IPAM_ANSWER, AllocatorView, QueryAllocator
from tests.integration.allocator.conftest import Cluster, Replicas

Run = Callable[[Callable[[Cluster], Awaitable[None]]], None]


async def violations(cluster: Cluster) -> tuple[str, ...]:
    async def audited() -> AllocatorView | None:
        message = await cluster.bus.request(subjects.IPAM_QUERY, encode(QueryAllocator(audit=True)), 20.0)
        answer = IPAM_ANSWER.decode(message.data)
        return answer if isinstance(answer, AllocatorView) else None

    return (await cluster.until(audited)).violations


def test_what_no_leader_may_have_written_is_told(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        held = (await cluster.attach("c1")).grants[0].address.partition("/")[0]
        assert await violations(cluster) == ()
        replicas.kill("a1")
        state = await cluster.log()
        log = LeaseLog(cluster.bus, state.incarnation, state.term + 1, state.sequence, state.digest)
        item = LeaseItem(ifname="eth0", address=held, pool="v4", prefix_len=16)
        await log.append(
            (
                LeasesReleased(owner="ghost", ifnames=("eth0",), reason="no reason"),
                LeasesAllocated(
                    owner="container:n2/c2",
                    node="n2",
                    container_id="c2",
                    attempt="a",
                    generation=state.generation + 1,
                    items=(item,),
                    attached=("eth0",),
                ),
            ),
            state.at_ns,
        )
        replicas.start("a1")
        told = await violations(cluster)
        assert "ghost eth0 is released and holds nothing" in told
        assert f"{held} is given to container:n2/c2 and held by container:n1/c1" in told

    run(body)
