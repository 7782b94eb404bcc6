"""The lease log on a real JetStream: unknown outcomes, damage and loss are seen, settings asserted, commits grouped, snapshots good."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from services.allocator import snapshot
from services.allocator.picture import Picture
from services.allocator.state import State
from shared import subjects
from shared.bus import Bus, BusError
from shared.contracts.codec import encode
from shared.contracts.ipam import InterfaceRequest
from shared.contracts.lease import RECORD
from shared.contracts.mark import LogMark
from shared.settings import BusSettings
from tests.integration.allocator.conftest import POOLS, Cluster, Replicas
from tests.support.nats import BINARY, NatsServer

Run = Callable[..., None]


def test_an_unknown_outcome_gives_no_address_twice_and_loses_none(run: Run, replicas: Replicas) -> None:
    """The server stands still while records are appended, then dies as in a power cut, twice."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1", "a2")
        await cluster.attach("warm")
        for turn in range(2):
            waiting = [asyncio.create_task(cluster.attach(f"c{turn}-{i}", timeout_s=1.0)) for i in range(60)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            pid = _pid(cluster.server)
            os.kill(pid, signal.SIGSTOP)
            more = [asyncio.create_task(cluster.attach(f"d{turn}-{i}", timeout_s=1.0)) for i in range(60)]
            await asyncio.sleep(3.0)
            if turn == 0:
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(0.2)
            await asyncio.to_thread(cluster.server.stop, True)
            await asyncio.to_thread(cluster.server.start)
            await asyncio.gather(*waiting, *more)
        state = await cluster.check()
        assert len(cluster.acknowledged) == len(state.holdings) == 241

    run(body)


def _pid(server: NatsServer) -> int:
    process = server._process
    assert process is not None
    return process.pid


def test_a_thousand_requests_in_flight_become_few_records(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await cluster.attach("warm")
        before = (await cluster.bus.stream_state("LEASES")).messages
        await asyncio.gather(*(cluster.ask(f"c{i}", timeout_s=10.0) for i in range(1000)))
        records = (await cluster.bus.stream_state("LEASES")).messages - before
        assert records <= 200, records
        state = await cluster.check()
        assert state.lease_count() == 2 * 1001

    run(body)


def test_records_of_long_names_stay_below_the_limit(run: Run, replicas: Replicas) -> None:
    """4,000 requests whose every name is as long as it may be: each event is ten times an ordinary one."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await cluster.attach("warm")
        names = [f"{i:04}".ljust(255, "c") for i in range(1500)]
        node = "n" * 253
        for begin in range(0, len(names), 750):
            await asyncio.gather(*(cluster.ask(name, node, 20.0) for name in names[begin : begin + 750]))
        assert max(len(record.data) for record in await cluster.records()) < 512 * 1024

    run(body)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("container", [b"one", b"two", b"three"])
def test_an_altered_record_is_seen(run: Run, replicas: Replicas, container: bytes, index: bool) -> None:
    """At its next start nats-server 2.15.1 skips such a record where it has its index: the chain tells, and the count where it
    is the last. Without the index it cuts the stream before it: the chain is perfect then, and only the mark tells."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        for name in ("one", "two", "three"):
            await cluster.attach(name)
        await asyncio.to_thread(replicas["a1"].stop)
        await asyncio.to_thread(cluster.server.stop)
        streams = cluster.server.directory / "js" / "jetstream" / "ORB" / "streams"
        (block,) = (streams / "LEASES" / "msgs").glob("*.blk")
        content = bytearray(block.read_bytes())
        content[content.rindex(b"attempt-" + container) + 3] ^= 1
        block.write_bytes(content)
        if not index:
            block.with_name("index.db").unlink(missing_ok=True)
        await asyncio.to_thread(cluster.server.start)
        replicas.start("a1")
        reason = await cluster.reason("a1", "record")
        assert any(word in reason for word in ("records are lost", "missing or altered", "is damaged")), (
            reason
        )
        with pytest.raises(BusError):
            await cluster.ask("new", timeout_s=0.5)

    run(body)


def test_the_last_record_of_a_burst_is_marked_without_another(run: Run, replicas: Replicas) -> None:
    """The mark is the only witness of a log that was cut; a kill leaves it as it is."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await asyncio.gather(*(cluster.attach(f"c{i}") for i in range(50)))
        last = (await cluster.bus.stream_state("LEASES")).last_sequence

        async def marked() -> bool:
            return msgspec.json.decode(replicas.mark.read_bytes(), type=LogMark).sequence == last

        await cluster.until(marked, within_s=5.0)

    run(body)


def test_a_purged_record_is_seen(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        for name in ("one", "two", "three"):
            await cluster.attach(name)
        await asyncio.to_thread(replicas["a1"].stop)
        await cluster.bus.purge("LEASES", up_to_sequence=3)
        replicas.start("a1")
        assert "does not follow record 0: one is missing" in await cluster.reason("a1", "missing")

    run(body)


def test_an_empty_log_beside_a_mark_is_a_loss_and_nothing_is_served(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await cluster.attach("one")
        await asyncio.to_thread(replicas["a1"].stop)
        await cluster.bus.api("STREAM.DELETE.LEASES")
        replicas.start("a1")
        assert "it is lost" in await cluster.reason("a1", "the log is empty")
        with pytest.raises(BusError):
            await cluster.ask("one", timeout_s=0.5)
        assert (await cluster.bus.stream_state("LEASES")).messages == 0

    run(body)


def test_a_log_shorter_than_its_mark_is_a_loss(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await cluster.attach("one")
        await asyncio.to_thread(replicas["a1"].stop)
        mark = msgspec.json.decode(replicas.mark.read_bytes(), type=LogMark)
        replicas.mark.write_bytes(msgspec.json.encode(LogMark(incarnation=mark.incarnation, sequence=99)))
        replicas.start("a1")
        assert "records are lost" in await cluster.reason("a1", "the log ends at")
        replicas.mark.write_bytes(b"{")
        assert "cannot be read" in await cluster.reason("a1", "the mark")
        replicas.mark.write_bytes(msgspec.json.encode(LogMark(incarnation="other", sequence=1)))
        assert "the mark knows log other" in await cluster.reason("a1", "this is log")

    run(body)


def test_a_start_that_ended_between_mark_and_first_record_is_no_loss(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.mark.write_bytes(msgspec.json.encode(LogMark(incarnation="begun", sequence=0)))
        replicas.start("a1")
        assert (await cluster.attach("one")).mark.incarnation == "begun"

    run(body)


def test_a_node_that_has_seen_more_than_the_log_has_is_told_so(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        mark = (await cluster.attach("one")).mark
        for seen, fragment in (
            (msgspec.structs.replace(mark, sequence=mark.sequence + 50), "records are lost"),
            (msgspec.structs.replace(mark, incarnation="other"), "holds leases of log other"),
        ):
            command = msgspec.structs.replace(cluster.command("two"), seen=seen)
            message = await cluster.bus.request(subjects.allocate("n1"), encode(command))
            assert fragment in str(msgspec.msgpack.decode(message.data)["message"])

    run(body)


def test_servers_that_do_not_sync_always_are_refused_and_the_setting_named(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    server.start()
    server.stop()
    config = tmp_path / "server.conf"
    config.write_text(config.read_text().replace("sync_interval: always", "sync_interval: 2m"))
    config.write_text(config.read_text().replace(f'"127.0.0.1:{-1}"', f'"127.0.0.1:{server.port}"', 1))
    process = subprocess.Popen([str(BINARY), "-c", str(config), "-l", str(tmp_path / "unsafe.log")])
    replicas = Replicas(server, tmp_path)

    async def body() -> None:
        bus = await Bus.connect(server.settings(), "test")
        cluster = Cluster(bus, server)
        try:
            await cluster.facts(*POOLS)
            replicas.start("a1")
            assert "sync_interval is not `always`" in await cluster.reason("a1", "sync_interval")
            with pytest.raises(BusError):
                await cluster.ask("one", timeout_s=0.5)
        finally:
            await bus.close()

    try:
        asyncio.run(body())
    finally:
        replicas.kill()
        process.terminate()
        process.wait(10)


def test_streams_with_other_settings_end_the_process_with_the_settings_name(
    run: Run, replicas: Replicas
) -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.bus.api(
            "STREAM.CREATE.LEASES", {"name": "LEASES", "subjects": ["orb.lease.>"], "storage": "memory"}
        )
        replicas.start("a1")
        log = await asyncio.to_thread(replicas["a1"].logged, "stream LEASES")
        assert "must be" in log

    run(body)


def test_a_snapshot_and_its_tail_are_the_whole_log(run: Run, replicas: Replicas) -> None:
    """IPv6 included; a damaged one gives way to the older; the newest two are kept."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        states: list[State] = []
        for i in range(3):
            granted = await cluster.attach(f"keep-{i}")
            await cluster.attach(f"gone-{i}")
            await cluster.release(f"gone-{i}", granted.grants[0].generation + 1)

            async def released(i: int = i) -> bool:
                return f"container:n1/gone-{i}" not in (await cluster.log()).holdings

            await cluster.until(released)
            states.append(await cluster.log())
            await snapshot.store(cluster.bus, Picture(states[-1].snapshot()))
        kept = await snapshot.manifests(cluster.bus)
        assert [one.sequence for one in kept] == [one.sequence for one in states[1:]]
        newest = await snapshot.load_newest(cluster.bus)
        assert _told(newest) == _told(states[2])
        chunk = subjects.snapshot(states[2].incarnation, states[2].sequence, "0")
        await cluster.bus.purge("SNAPSHOTS", subject=chunk)
        assert _told(await snapshot.load_newest(cluster.bus)) == _told(states[1])
        await cluster.bus.append(chunk, b"something else")
        assert _told(await snapshot.load_newest(cluster.bus)) == _told(states[1])
        # the older snapshot and the tail after it serve, although the log before is gone
        await asyncio.to_thread(replicas["a1"].stop)
        await cluster.bus.purge("LEASES", up_to_sequence=states[1].sequence + 1)
        replicas.start("a1")
        held = cluster.acknowledged["keep-2"]
        assert tuple(grant.address for grant in (await cluster.attach("keep-2")).grants) == held

    run(body)


def test_a_damaged_manifest_at_the_streams_end_gives_way_to_the_older_snapshot(
    run: Run, replicas: Replicas
) -> None:
    """The server counts it and never delivers it: nobody may wait for it."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        states: list[State] = []
        for name in ("one", "two"):
            await cluster.attach(name)
            states.append(await cluster.log())
            await snapshot.store(cluster.bus, Picture(states[-1].snapshot()))
        await asyncio.to_thread(replicas["a1"].stop)
        await asyncio.to_thread(cluster.server.stop)
        streams = cluster.server.directory / "js" / "jetstream" / "ORB" / "streams"
        (block,) = (streams / "SNAPSHOTS" / "msgs").glob("*.blk")
        content = bytearray(block.read_bytes())
        content[content.rindex(b"sha256") + 20] ^= 1
        block.write_bytes(content)
        await asyncio.to_thread(cluster.server.start)
        await cluster.connected()
        assert _told(await snapshot.load_newest(cluster.bus)) == _told(states[0])
        replicas.start("a1")
        assert (await cluster.attach("two")).mark.sequence > states[1].sequence
        await cluster.check()

    run(body)


def _told(state: State) -> object:
    return msgspec.to_builtins(state.snapshot())


def test_a_snapshot_beyond_the_log_is_a_loss(run: Run, replicas: Replicas) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await cluster.attach("one")
        await asyncio.to_thread(replicas["a1"].stop)
        state = await cluster.log()
        state.sequence += 10
        await snapshot.store(cluster.bus, Picture(state.snapshot()))
        replicas.start("a1")
        assert "records are lost" in await cluster.reason("a1", "memory and snapshot go to")

    run(body)


def test_what_is_no_message_of_its_subject_is_counted_and_breaks_nothing(
    run: Run, replicas: Replicas
) -> None:
    async def body(cluster: Cluster) -> None:
        replicas.start("a1")
        await cluster.attach("one")
        before = (await cluster.log()).term
        bus = cluster.bus
        two = InterfaceRequest(ifname="eth0")
        hostile = [
            (subjects.allocate("n1"), b"\xc1garbage"),
            (subjects.allocate("n1"), b""),
            (subjects.allocate("n1"), encode(cluster.command("x"))),
            (subjects.allocate("n2"), encode(cluster.command("other-node", node="n1"))),
            (
                subjects.allocate("n1"),
                encode(msgspec.structs.replace(cluster.command("none"), interfaces=())),
            ),
            (
                subjects.allocate("n1"),
                encode(msgspec.structs.replace(cluster.command("twice"), interfaces=(two, two))),
            ),
            (subjects.allocate("n1"), encode(cluster.command("c" * 400_000))),
            (subjects.IPAM_QUERY, b"\xc1"),
            (subjects.IPAM_EXPLAIN, b"\xc1"),
            ("orb.facts.Pod.a.b", b"\xc1"),
        ]
        inbox = bus.connection.new_inbox()
        for subject, payload in hostile:
            await bus.publish(subject, payload)
            await bus.publish(subject, payload, reply=inbox)
        for payload in (b"\xc1", b"", encode(cluster.command("x"))):
            await bus.append(subjects.release("n1"), payload)
        await cluster.release("c" * 1000, 0)
        command = {"type": "release.attachment.1", "node": "n1", "container_id": "one", "ifname": "eth0"}
        for cooldown_s in (float("inf"), float("nan"), -5.0, 1e300):
            body = {**command, "attempt": "attempt-one", "generation": 0, "cooldown_s": cooldown_s}
            await bus.append(subjects.release("n1"), msgspec.msgpack.encode(body))
        await bus.append(
            subjects.release("n1"),
            msgspec.msgpack.encode({**command, "attempt": "a" * 900_000, "generation": 0}),
        )
        await cluster.attach("after")

        async def drained() -> bool:
            return (await bus.stream_state("RELEASES")).messages == 0

        await cluster.until(drained)
        await cluster.attach("still")
        view = await cluster.view()
        assert view is not None and (view.term, view.violations) == (before, ())
        assert {*(await cluster.log()).holdings} == {
            f"container:n1/{name}" for name in ("x", "after", "still")
        }

    run(body)


def test_a_record_written_by_somebody_else_fences_and_is_refused(run: Run, replicas: Replicas) -> None:
    """A foreign record ends the term; as it does not follow the chain, nobody serves any more, and says why."""

    async def body(cluster: Cluster) -> None:
        replicas.start("a1", "a2")
        mark = (await cluster.attach("one")).mark
        record = RECORD.decode((await cluster.records())[-1].data)
        await cluster.bus.append(subjects.lease(mark.incarnation, 77), encode(record))
        with pytest.raises((BusError, TimeoutError)):
            await cluster.ask("two", timeout_s=2.0)
        for name in ("a1", "a2"):
            assert "missing or altered" in await cluster.reason(name, "missing or altered")

    run(body)


def test_a_wrong_credential_ends_the_process(fresh_nats_server: NatsServer, tmp_path: Path) -> None:
    replicas = Replicas(fresh_nats_server, tmp_path)
    real = fresh_nats_server.settings

    def wrong(identity: str = "admin", node: str = "") -> BusSettings:
        return msgspec.structs.replace(real(identity, node), password="no")

    fresh_nats_server.settings = wrong  # type: ignore[method-assign]
    replicas.start("a1")
    log = replicas["a1"].logged("refuses user")
    assert "Traceback" not in log
    replicas.kill()


def test_settings_that_cannot_be_read_are_wrong_usage(tmp_path: Path) -> None:
    config = tmp_path / "bad.json"
    config.write_text('{"replica": 5}')
    ended = subprocess.run(
        [sys.executable, "-m", "services.allocator", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "replica" in ended.stderr and "Traceback" not in ended.stderr
