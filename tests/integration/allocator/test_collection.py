"""Adoption and collection by real replicas on a real nats-server; the test is controller, agents and kubelet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import msgspec

from shared import subjects
from shared.bus import Message
from shared.contracts.adopt import (
    ADOPTION_VIEW,
    AdoptedAddress,
    Adoption,
    AdoptionView,
    AdoptRecords,
    AskAdoption,
    EndAdoption,
)
from shared.contracts.codec import encode
from shared.contracts.collect import ASK_DETACH, VERDICTS, AskDetach, Collect, DetachAnswer, Verdicts
from shared.contracts.ipam import ALLOCATE_REPLY, Allocated, Mark
from shared.contracts.witness import WitnessReport, digest_of
from tests.integration.allocator.conftest import POOLS, Cluster, Replicas
from tests.support.pure_allocator import manifest

Run = Callable[..., None]


def machine(name: str, ready: str = "True", taint: str = "") -> str:
    taints = [{"key": taint, "effect": "NoExecute"}] if taint else []
    status = json.dumps({"conditions": [{"type": "Ready", "status": ready}]})
    return f"{manifest('Node', name, {'taints': taints})}status: {status}\n"


def live(name: str, node: str = "n1") -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, uid: uid-{name}}}\n"
        f"spec: {{nodeName: {node}}}\nstatus: {{phase: Running, podIPs: [{{ip: 10.0.1.0}}]}}\n"
    )


async def verdicts(cluster: Cluster, *, dry_run: bool = True) -> Verdicts:
    async def told() -> Verdicts | None:
        reply = await cluster.bus.request(subjects.IPAM_COLLECT, encode(Collect(dry_run=dry_run)), 2.0)
        page = VERDICTS.decode(reply.data)
        return None if page.held_back else page

    return await cluster.until(told)


async def adoption(cluster: Cluster, request: Adoption) -> AdoptionView:
    async def told() -> AdoptionView:
        reply = await cluster.bus.request(subjects.IPAM_ADOPT, encode(request), 5.0)
        return ADOPTION_VIEW.decode(reply.data)

    return await cluster.until(told)


def record(number: int) -> AdoptedAddress:
    return AdoptedAddress(
        address=f"10.0.1.{number}/16",
        pod_namespace="shop",
        pod_name=f"web-{number}",
        pod_uid=f"uid-web-{number}",
        pool="v4",
        node="n1",
        ifname="eth0",
    )


def test_what_another_ipam_gave_is_leased_before_anything_is_given(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.facts(*POOLS, synced=False)
        replicas.start("a1")
        assert (await adoption(cluster, AskAdoption())).open
        told = await adoption(
            cluster, AdoptRecords(records=tuple(record(i) for i in range(20)), facts_at_least=2)
        )
        assert (told.open, told.adopted, told.refused) == (True, 20, ())
        replicas.kill("a1")
        replicas.start("a2")
        assert (await adoption(cluster, AskAdoption())).open, (
            "the controller tells the rest to the next leader"
        )
        again = await adoption(cluster, AdoptRecords(records=tuple(record(i) for i in range(25))))
        assert (again.adopted, again.refused) == (25, ())
        refused = await cluster.ask("c1", timeout_s=2.0)
        assert getattr(refused, "error", "") == "try_later"
        assert not (await adoption(cluster, EndAdoption())).open
        late = await adoption(cluster, AdoptRecords(records=(record(99),)))
        assert (late.open, late.adopted) == (False, 0)
        await cluster.facts()
        given = await cluster.attach("c1")
        assert "10.0.1.25/16" in [grant.address for grant in given.grants]
        state = await cluster.log()
        assert sum(holding.namespace == "shop" for holding in state.holdings.values()) == 25

    run(body, facts=False)


def test_a_first_allocation_ends_adoption(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await cluster.attach("c1")
        assert not (await adoption(cluster, AskAdoption())).open
        assert not (await adoption(cluster, AdoptRecords(records=(record(9),)))).open

    run(body)


def test_a_pod_that_is_gone_is_detached_by_its_agent_first(run: Run, replicas: Replicas) -> None:
    """The agent's release comes through the queue as that of a DEL; a verdict about an older generation changes nothing."""

    async def body(cluster: Cluster) -> None:
        asked: list[AskDetach] = []

        async def on_ask(message: Message) -> bytes:
            ask = ASK_DETACH.decode(message.data)
            asked.append(ask)
            if len(asked) == 1:
                return encode(DetachAnswer(outcome="failed", message="busy"))
            await cluster.release(ask.container_id, ask.generation)
            return encode(DetachAnswer(outcome="detached"))

        await cluster.facts(machine("n1"), live("web"))
        replicas.start("a1")
        async with cluster.objects_known():
            serving = await cluster.bus.serve(subjects.ask_detach("n1"), on_ask)
            reporting = asyncio.create_task(_report(cluster, "n1"))
            given = await attach_pod(cluster, "web", "c1")
            kept = await verdicts(cluster)
            assert [(one.action, one.rule) for one in kept.verdicts] == [("keep", "has addresses")] * 2
            await cluster.gone("Pod", "shop", "web")

            async def awaited() -> bool:
                waits = await verdicts(cluster)
                assert waits.counts == {"keep": 2}
                return "a DEL is awaited" in waits.verdicts[0].reason

            await cluster.until(awaited)
            assert not asked, "a dry run asks nobody"
            assert (await verdicts(cluster, dry_run=False)).counts == {"detach": 2}
            await cluster.until(lambda: _is(len(asked) == 1))
            assert (await cluster.log()).lease_count() == 2, "nobody detached it"
            await verdicts(cluster, dry_run=False)
            await cluster.until(lambda: _freed(cluster))
            assert {ask.generation for ask in asked} == {given.grants[0].generation}
            reporting.cancel()
            await serving.stop()

    run(body)


def test_an_address_on_an_unreachable_node_is_released_and_given_to_nobody(
    run: Run, replicas: Replicas
) -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.facts(machine("n1"), machine("n2"), live("web"), live("web-2"))
        replicas.start("a1")
        async with cluster.objects_known():
            first = await attach_pod(cluster, "web", "c1")
            second = await attach_pod(cluster, "web-2", "c2")
            await cluster.facts(machine("n1", ready="Unknown"))
            for name in ("web", "web-2"):
                await cluster.gone("Pod", "shop", name)
            assert {one.action for one in (await verdicts(cluster)).verdicts} == {"keep"}, "it is given time"

            async def silent() -> bool:
                await verdicts(cluster, dry_run=False)
                await asyncio.sleep(0.5)
                return await _freed(cluster)

            await cluster.until(silent, within_s=60.0)
            state = await cluster.log()
            assert state.lease_count() == 0 and len(state.quarantine) == 4
            taken = {grant.address for one in (first, second) for grant in one.grants}
            other = await cluster.attach("other", node="n2")
            assert not taken & {grant.address for grant in other.grants}
            await cluster.facts(machine("n1", ready="Unknown", taint="node.kubernetes.io/out-of-service"))
            await cluster.until(lambda: _unkept(cluster))
            again = await cluster.attach("again", node="n2")
            assert {grant.address for grant in again.grants} == {grant.address for grant in first.grants}

    run(body)


def test_nothing_is_collected_while_nobody_can_say_what_is_there(run: Run, replicas: Replicas) -> None:
    """The reference's row of look-ups that fail: a leader that the controller has not told that all is told judges nothing."""

    async def body(cluster: Cluster) -> None:
        await cluster.facts(machine("n1"), live("web"))
        replicas.start("a1")
        async with cluster.objects_known():
            given = await attach_pod(cluster, "web", "c1")
            await cluster.release("c1", given.grants[0].generation)
            await cluster.until(lambda: _detached(cluster))
        replicas.kill("a1")
        await cluster.gone("Pod", "shop", "web")
        replicas.start("a2")

        async def held_back() -> str:
            reply = await cluster.bus.request(subjects.IPAM_COLLECT, encode(Collect(dry_run=False)), 2.0)
            return VERDICTS.decode(reply.data).held_back

        assert "asked of the controller" in await cluster.until(held_back)
        await asyncio.sleep(2.0)
        assert await held_back() and (await cluster.log()).lease_count() == 2
        async with cluster.objects_known():
            await cluster.until(lambda: _freed(cluster))

    run(body)


async def attach_pod(cluster: Cluster, name: str, container: str) -> Allocated:
    """As the agent of n1 asks, until it is allocated."""
    command = msgspec.structs.replace(
        cluster.command(container), pod_namespace="shop", pod_name=name, pod_uid=f"uid-{name}"
    )

    async def once() -> Allocated | None:
        reply = await cluster.bus.request(subjects.allocate("n1"), encode(command), 2.0)
        answer = ALLOCATE_REPLY.decode(reply.data)
        return answer if isinstance(answer, Allocated) else None

    return await cluster.until(once)


async def _is(value: bool) -> bool:
    await asyncio.sleep(0.05)
    return value


async def _detached(cluster: Cluster) -> bool:
    await asyncio.sleep(0.1)
    holdings = (await cluster.log()).holdings.values()
    return all(held.detached for holding in holdings for held in holding.interfaces.values())


async def _freed(cluster: Cluster) -> bool:
    await asyncio.sleep(0.1)
    return (await cluster.log()).lease_count() == 0


async def _unkept(cluster: Cluster) -> bool:
    await asyncio.sleep(0.1)
    return not (await cluster.log()).quarantine


async def _report(cluster: Cluster, node: str) -> None:
    """The node is heard of, and says that something is under way with what it has."""
    while True:
        report = WitnessReport(node=node, seen=Mark(), digest=digest_of(()), attachments=1, unsettled=("c1",))
        await cluster.bus.publish(subjects.witness(node), encode(report))
        await asyncio.sleep(0.5)
