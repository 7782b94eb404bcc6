"""A loss that nobody remembers, and a node that is silent: what the objects of Kubernetes tell of it takes the place of its word until it
reports. The test stands for the controller and for both nodes."""

from __future__ import annotations

import asyncio
import time

import pytest

from shared import limits, subjects
from shared.bus import Message
from shared.contracts.adopt import AdoptedAddress
from shared.contracts.codec import encode
from shared.contracts.ipam import Allocated, Mark, Refused
from shared.contracts.mark import LogMark, Mirrored
from shared.contracts.mirrored import ASK_MIRRORED, MirroredPage
from shared.contracts.witness import Claim
from tests.integration.allocator.conftest import Cluster, Replicas, replicas, run
from tests.integration.loss.test_claims import FakeNode, attached
from tests.integration.loss.test_rebuild import Run, has_all, sound
from tests.integration.loss.test_shared_mark import keep, start_on_node
from tests.support.pure_allocator import node as node_object

__all__ = ["replicas", "run"]


class Endpoints:
    """Answers as the controller does, two to a page."""

    def __init__(self, through: Mirrored | None, claims: list[Claim]) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._through = through
        self._addresses = [
            AdoptedAddress(
                address=address,
                pod_namespace="shop",
                pod_name=claim.container_id,
                pod_uid=claim.container_id,
                pool="v4",
                node="n2",
                ifname="eth0",
            )
            for claim in claims
            for address in claim.addresses
        ]

    async def on_ask(self, message: Message) -> bytes:
        ask = ASK_MIRRORED.decode(message.data)
        self.asked.append(ask.nodes)
        begin = int(ask.after or "0")
        rest = len(self._addresses) > begin + 2
        return encode(
            MirroredPage(
                through=self._through,
                addresses=tuple(self._addresses[begin : begin + 2]),
                next_after=str(begin + 2) if rest else "",
            )
        )


async def lose(
    cluster: Cluster, replicas: Replicas, *, behind: int = 0, unmirrored: tuple[str, ...] = ()
) -> tuple[FakeNode, FakeNode, Endpoints]:
    """Two nodes with containers; then all streams of the log are gone, and who leads is new. The second node is silent."""
    await cluster.facts(node_object("n1"), node_object("n2"))
    start_on_node(replicas, "a1")
    nodes = FakeNode(cluster.bus, "n1"), FakeNode(cluster.bus, "n2")
    for one in nodes:
        one.claims = [await attached(cluster, f"{one.node}-c{i}", one.node) for i in range(3)]
    replicas.kill("a1")
    last = (await cluster.bus.stream_state("LEASES")).last_sequence
    incarnation = (await cluster.records())[-1].subject.split(".")[2]
    for one in nodes:
        one.seen = Mark(incarnation=incarnation, sequence=last)
    for stream in ("LEASES", "SNAPSHOTS"):
        await cluster.bus.api(f"STREAM.DELETE.{stream}")
    await keep(cluster, LogMark(incarnation=incarnation, sequence=last, unmirrored=unmirrored))
    endpoints = Endpoints(Mirrored(incarnation=incarnation, sequence=last - behind), nodes[1].claims)
    await cluster.bus.serve(subjects.ASK_MIRRORED, endpoints.on_ask)
    await nodes[0].listen()
    start_on_node(replicas, "a2")
    return *nodes, endpoints


def test_what_endpoints_tell_of_a_silent_node_lets_others_go_on(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        here, away, endpoints = await lose(cluster, replicas)
        began_s = time.monotonic()
        given = await attached(cluster, "new")
        assert time.monotonic() - began_s < limits.REBUILD_WAIT_S + 6.0
        assert endpoints.asked and set(endpoints.asked) == {("n2",)}
        theirs = {address for claim in away.claims for address in claim.addresses}
        assert not theirs & set(given.addresses)
        here.claims.append(given)
        await has_all(cluster, here)
        view = await cluster.until(lambda: sound(cluster))
        assert view.silent == ("n2",) and view.quarantined == len(theirs)
        # a restart of who leads changes nothing of it
        replicas.kill("a2")
        start_on_node(replicas, "a3")
        assert not theirs & set((await attached(cluster, "fresher")).addresses)
        await away.listen()
        view = await away.insist(cluster, lambda view: view.silent == () and not view.quarantined)
        assert view.disagreements == ()
        await has_all(cluster, away)
        await cluster.until(lambda: sound(cluster))

    run(body)


@pytest.mark.parametrize(("behind", "unmirrored"), [(1, ()), (0, ("n2",))])
def test_where_endpoints_may_not_tell_all_the_node_is_waited_for(
    run: Run, replicas: Replicas, behind: int, unmirrored: tuple[str, ...]
) -> None:
    async def body(cluster: Cluster) -> None:
        here, away, _ = await lose(cluster, replicas, behind=behind, unmirrored=unmirrored)
        for one in here.claims:
            again = await cluster.attach(one.container_id, timeout_s=2.0)
            assert tuple(grant.address for grant in again.grants) == one.addresses
        refused = await cluster.ask("fresh", timeout_s=2.0)
        assert isinstance(refused, Refused) and refused.error == "log_unsafe" and "n2" in refused.message
        await away.listen()
        await away.insist(cluster, lambda view: view.silent == ())
        await has_all(cluster, away)

    run(body)


def test_without_a_controller_the_node_is_waited_for(run: Run, replicas: Replicas) -> None:
    """And no longer than where nobody asks for endpoints."""

    async def body(cluster: Cluster) -> None:
        await cluster.facts(node_object("n2"))
        await keep(cluster, LogMark(incarnation="lost", sequence=40))
        began_s = time.monotonic()
        start_on_node(replicas, "a1")
        await asyncio.to_thread(replicas["a1"].logged, "log rebuilt", 30.0)
        assert time.monotonic() - began_s < limits.REBUILD_WAIT_S + 6.0

        async def answered() -> Allocated | Refused | None:
            return await cluster.ask("fresh", timeout_s=1.0)

        refused = await cluster.until(answered)
        assert isinstance(refused, Refused) and "n2" in refused.message
        await cluster.gone("Node", "", "n2")
        await cluster.attach("new")

    run(body)
