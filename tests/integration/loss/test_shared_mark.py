"""Allocators on several nodes, each with a mark file of its own: what an older one, or none, makes of a log that was lost meanwhile,
and the mark that all of them share. The test stands for the controller."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import msgspec
import pytest

from shared import subjects
from shared.bus import BusError, Message
from shared.contracts.codec import encode
from shared.contracts.facts import SyncAnswer
from shared.contracts.ipam import ALLOCATE_REPLY, Allocated, Mark
from shared.contracts.mark import CONFIG_MAP, KEEP_MARK, LogMark, written_mark
from shared.failpoint import VARIABLE
from shared.limits import MARK_SHARE_INTERVAL_S
from tests.integration.allocator.conftest import POOLS, Cluster, Replicas, replicas, run
from tests.integration.loss.test_claims import FakeNode, attached
from tests.integration.loss.test_rebuild import STEPS, Run, has_all, sound

__all__ = ["replicas", "run"]


def start_on_node(replicas: Replicas, *names: str) -> None:
    """Each replica on a node of its own."""
    for name in names:
        replicas.mark = replicas.directory / f"{name}.json"
        replicas.start(name)


def noted(replicas: Replicas, name: str) -> LogMark:
    return msgspec.json.decode((replicas.directory / f"{name}.json").read_bytes(), type=LogMark)


def rebuilds(replicas: Replicas, *names: str) -> int:
    return sum(replicas[name].log.read_text().count("log rebuilt") for name in names)


async def keep(cluster: Cluster, mark: LogMark) -> None:
    """As the controller tells of the ConfigMap in which it keeps the mark."""
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": "orbweaver-system"},
        "data": written_mark(mark),
    }
    await cluster.facts(msgspec.json.encode(body).decode(), synced=False)


def test_an_older_mark_on_another_node_begins_no_second_rebuild(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        for name in ("a1", "a2"):
            start_on_node(replicas, name)
            node.claims += [await attached(cluster, f"{name}-{i}") for i in range(5)]
            await cluster.until(lambda name=name: _has_noted(cluster, replicas, name))
            replicas.kill(name)
        await cluster.bus.api("STREAM.DELETE.LEASES")
        start_on_node(replicas, "a1")
        node.claims.append(await attached(cluster, "new"))
        after = (await cluster.until(cluster.view)).mark.incarnation
        assert after != noted(replicas, "a2").incarnation
        for _ in range(2):
            replicas.kill()
            start_on_node(replicas, "a2")
            await cluster.leader(other_than="a1")
            await has_all(cluster, node)
            assert (await cluster.until(lambda: sound(cluster))).mark.incarnation == after
            replicas.kill()
            start_on_node(replicas, "a1")
            await cluster.leader(other_than="a2")
        assert rebuilds(replicas, "a1", "a2") == 1

    run(body)


async def _has_noted(cluster: Cluster, replicas: Replicas, name: str) -> bool:
    await asyncio.sleep(0.02)
    last = (await cluster.bus.stream_state("LEASES")).last_sequence
    return noted(replicas, name).sequence == last


@pytest.mark.parametrize("step", STEPS)
def test_a_rebuild_is_killed_on_two_nodes(
    run: Run, replicas: Replicas, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Neither knows how far the other has come: the one's mark is from before the loss wherever the other died."""

    async def body(cluster: Cluster) -> None:
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        monkeypatch.setenv(VARIABLE, step)
        start_on_node(replicas, "a1")
        node.claims = [await attached(cluster, f"c{i}") for i in range(10)]
        replicas.kill("a1")
        start_on_node(replicas, "a2")
        monkeypatch.delenv(VARIABLE)
        again = await cluster.attach("c0")
        node.seen = Mark(incarnation=again.mark.incarnation, sequence=10_000, digest="aa")
        monkeypatch.setenv(VARIABLE, step)
        start_on_node(replicas, "a1")
        monkeypatch.delenv(VARIABLE)

        async def died() -> bool:
            await node.report()
            await asyncio.sleep(0.2)
            return all(f"failpoint {step}:1:kill" in replicas[name].log.read_text() for name in ("a1", "a2"))

        await cluster.until(died)
        replicas.kill()
        start_on_node(replicas, "a1", "a2")
        await has_all(cluster, node)
        view = await cluster.until(lambda: sound(cluster))
        assert view.mark.incarnation != again.mark.incarnation and view.silent == ()
        # what the killed ones left is put away
        incarnations = {record.subject.split(".")[2] for record in await cluster.records()}
        assert incarnations == {view.mark.incarnation}

    run(body)


@pytest.mark.parametrize("known", ["before", "late"])
def test_a_fresh_node_sees_by_the_shared_mark_that_all_was_lost(
    run: Run, replicas: Replicas, known: str
) -> None:
    """Nobody remembers but the cluster: the store is wiped, the node that leads is new, and no agent has a journal of the old log.
    The mark may come only after the new log was begun: the objects do, and nobody is answered before."""

    async def body(cluster: Cluster) -> None:
        await cluster.facts(*POOLS, synced=False)
        mark = LogMark(incarnation="lost", sequence=700, digest="aa")
        if known == "before":
            await keep(cluster, mark)
            await cluster.facts()
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        start_on_node(replicas, "a1")
        if known == "late":
            await cluster.until(lambda: _leads_another(cluster))
            with suppress(BusError):
                reply = await cluster.ask("early", timeout_s=2.0)
                assert not isinstance(reply, Allocated), "given before the objects were known"
            await keep(cluster, mark)
            await cluster.facts()
        await asyncio.to_thread(replicas["a1"].logged, "log rebuilt", 20.0)
        told = await attached(cluster, "new")
        assert told.addresses
        log = replicas["a1"].log.read_text()
        sentence = "the mark knows log lost" if known == "late" else "record 700 of log lost was acknowledged"
        assert sentence in log and rebuilds(replicas, "a1") == 1
        assert noted(replicas, "a1").epoch == 1

    run(body, facts=False)


async def _leads_another(cluster: Cluster) -> bool:
    with suppress(BusError):
        return (await cluster.bus.stream_state("LEASES")).last_sequence > 0
    return False


def test_a_store_that_was_put_back_with_its_facts_is_seen_before_a_fresh_node_leads(
    run: Run, replicas: Replicas
) -> None:
    """The facts in it are of the same day as the log: only the controller knows the mark of today, and tells it when it is asked."""

    async def body(cluster: Cluster) -> None:
        start_on_node(replicas, "a1")
        node = FakeNode(cluster.bus, "n1")
        await node.listen()
        node.claims = [await attached(cluster, f"c{i}") for i in range(3)]
        replicas.kill("a1")
        last = (await cluster.bus.stream_state("LEASES")).last_sequence
        incarnation = noted(replicas, "a1").incarnation
        await keep(cluster, LogMark(incarnation=incarnation, sequence=last - 1))
        asked: list[int] = []

        async def tell(_: Message) -> bytes:
            if not asked:
                await keep(cluster, LogMark(incarnation=incarnation, sequence=last + 50))
            asked.append((await cluster.bus.stream_state("FACTS")).last_sequence)
            return encode(SyncAnswer(facts_sequence=asked[-1], objects=0))

        await cluster.bus.serve(subjects.ASK_SYNC, tell)
        start_on_node(replicas, "a2")
        log = await asyncio.to_thread(replicas["a2"].logged, "log rebuilt", 20.0)
        assert f"record {last + 50} was acknowledged" in log
        assert '"leading"' not in log.partition("log rebuilt")[0], "it was believed first"
        await has_all(cluster, node)

    run(body)


def test_a_leader_tells_the_mark_until_it_is_kept(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        told: list[LogMark] = []

        def take(message: Message) -> None:
            told.append(KEEP_MARK.decode(message.data).mark)

        await cluster.bus.listen(subjects.MARK, take)
        start_on_node(replicas, "a1")
        first = await attached(cluster, "one")
        assert first.generation
        last = (await cluster.bus.stream_state("LEASES")).last_sequence
        began_s = time.monotonic()

        async def has_told() -> bool:
            await asyncio.sleep(0.05)
            return bool(told) and told[-1].sequence >= last

        await cluster.until(has_told, within_s=3 * MARK_SHARE_INTERVAL_S)
        assert len(told) <= 2 + (time.monotonic() - began_s) / MARK_SHARE_INTERVAL_S
        assert told[-1].nodes == () and told[-1].digest == noted(replicas, "a1").digest
        await keep(cluster, told[-1])
        await asyncio.sleep(0.5)
        count = len(told)
        await asyncio.sleep(MARK_SHARE_INTERVAL_S + 1.0)
        assert len(told) == count, "it is kept: nobody needs to be told"

    run(body)


def test_a_shared_mark_that_cannot_be_read_is_no_first_start(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.facts(*POOLS, synced=False)
        mark = LogMark(incarnation="i", sequence=1)
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CONFIG_MAP, "namespace": "orbweaver-system"},
            "data": {**written_mark(mark), "mark": "what?"},
        }
        await cluster.facts(msgspec.json.encode(body).decode())
        start_on_node(replicas, "a1")
        reason = await cluster.reason("a1", CONFIG_MAP)
        assert "delete it if nothing was ever given" in reason
        await cluster.gone("ConfigMap", "orbweaver-system", CONFIG_MAP)
        await attached(cluster, "one")
        # where the log is there, it is not needed
        await cluster.facts(msgspec.json.encode(body).decode())
        reply = await cluster.bus.request(subjects.allocate("n1"), encode(cluster.command("two")), 2.0)
        assert isinstance(ALLOCATE_REPLY.decode(reply.data), Allocated)

    run(body, facts=False)
