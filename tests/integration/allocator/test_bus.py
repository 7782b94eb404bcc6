"""What the allocator counts on in the bus client, against a real nats-server: nothing is skipped silently."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from shared import subjects
from shared.bus import (
    ApiError,
    Bus,
    BusDenied,
    NoResponder,
    StreamMessage,
    StreamMismatch,
    UnknownOutcome,
    WrongSequence,
)
from tests.support.nats import NatsServer


def connected(server: NatsServer, body: Callable[[Bus], Awaitable[None]], identity: str = "admin") -> None:
    async def main() -> None:
        bus = await Bus.connect(server.settings(identity), "test")
        try:
            async with asyncio.timeout(60):
                await body(bus)
        finally:
            await bus.close()

    asyncio.run(main())


@pytest.mark.parametrize("last_per_subject", [True, False])
def test_a_follower_goes_through_restarts_and_a_replaced_stream(
    fresh_nats_server: NatsServer, last_per_subject: bool
) -> None:
    """FACTS is not synced: after a kill it may come back shorter, refilled with sequences that were handled before."""

    async def body(bus: Bus) -> None:
        await bus.ensure_stream(subjects.FACTS)
        seen: list[bytes] = []

        async def take(message: StreamMessage) -> None:
            seen.append(message.data)

        async def until(text: bytes) -> None:
            while text not in seen:
                await asyncio.sleep(0.01)

        for i in range(3):
            await bus.append(f"orb.facts.a.b.{i}", b"first %d" % i)
        follow = await bus.follow("FACTS", take, last_per_subject=last_per_subject)
        await follow.caught_up()
        assert seen == [b"first 0", b"first 1", b"first 2"]
        await asyncio.to_thread(fresh_nats_server.stop, True)
        await asyncio.to_thread(fresh_nats_server.start)
        while not bus.connection.connected:
            await asyncio.sleep(0.01)
        await bus.append("orb.facts.a.b.3", b"after the restart")
        await until(b"after the restart")
        await bus.api("STREAM.DELETE.FACTS")
        await bus.ensure_stream(subjects.FACTS)
        for i in range(5):
            await bus.append(f"orb.facts.a.b.{i}", b"new %d" % i)
        for i in range(5):
            await until(b"new %d" % i)
        await follow.stop()

    connected(fresh_nats_server, body)


@pytest.mark.parametrize("last_per_subject", [True, False])
def test_a_reading_of_nothing_ends_at_once(fresh_nats_server: NatsServer, last_per_subject: bool) -> None:
    """Also where the first messages of the stream are gone, as in every stream that keeps the last of each subject."""

    async def body(bus: Bus) -> None:
        await bus.ensure_stream(subjects.FACTS)
        for i in range(3):
            await bus.append("orb.facts.a.b.c", b"%d" % i)
        began_s = asyncio.get_running_loop().time()
        found = [
            [m.data async for m in bus.read("FACTS", subject_filter=of, last_per_subject=last_per_subject)]
            for of in ("orb.facts.a.b.c", "orb.facts.other.*.*", "orb.facts.a.b.d")
        ]
        assert found == [[b"2"], [], []]
        assert asyncio.get_running_loop().time() - began_s < 2.0, "no heartbeat was waited for"

    connected(fresh_nats_server, body)


def test_a_handler_that_fails_ends_the_following_and_is_told(fresh_nats_server: NatsServer) -> None:
    async def body(bus: Bus) -> None:
        await bus.ensure_stream(subjects.FACTS)
        await bus.append("orb.facts.a.b.c", b"x")

        async def fail(_: StreamMessage) -> None:
            raise ValueError("no")

        follow = await bus.follow("FACTS", fail)
        with pytest.raises(ValueError, match="no"):
            await follow.caught_up()
        assert isinstance(follow.failed, ValueError)
        await follow.stop()

    connected(fresh_nats_server, body)


def test_fences_outcomes_and_denials_are_told_apart(fresh_nats_server: NatsServer) -> None:
    async def body(bus: Bus) -> None:
        with pytest.raises(NoResponder):
            await bus.append("orb.lease.i.1", b"x")
        await bus.ensure_stream(subjects.LEASES)
        assert await bus.append("orb.lease.i.1", b"x", expected_last_sequence=0) == 1
        for fence in ({"expected_last_sequence": 0}, {"expected_last_subject_sequence": 0}):
            with pytest.raises(WrongSequence):
                await bus.append("orb.lease.i.1", b"x", **fence)
        assert await bus.append("orb.lease.i.2", b"y", expected_last_subject_sequence=0) == 2
        with pytest.raises(UnknownOutcome):
            await bus.append("orb.lease.i.2", b"y", timeout_s=0.0)
        changed = subjects.StreamSpec(name="LEASES", subjects=subjects.LEASES.subjects, durable=True)
        with pytest.raises(StreamMismatch, match="deny_delete"):
            await bus.ensure_stream(changed)

    connected(fresh_nats_server, body)


def test_what_an_identity_may_not_do_is_said_at_once(fresh_nats_server: NatsServer) -> None:
    async def body(bus: Bus) -> None:
        with pytest.raises(BusDenied):
            await bus.request("orb.facts.Pod.a.b", b"x", timeout_s=20.0)
        with pytest.raises(BusDenied):
            await bus.listen("orb.cni.n1", lambda _: None)

    connected(fresh_nats_server, body, "allocator")


def test_nothing_is_kept_for_a_server_that_is_away(fresh_nats_server: NatsServer) -> None:
    async def body(bus: Bus) -> None:
        await bus.ensure_stream(subjects.LEASES)
        await asyncio.to_thread(fresh_nats_server.stop)
        while bus.connection.connected:
            await asyncio.sleep(0.01)
        for _ in range(5):
            with pytest.raises(NoResponder):
                await bus.append("orb.lease.i.1", b"stale", timeout_s=0.5)
        await asyncio.to_thread(fresh_nats_server.start)
        while not bus.connection.connected:
            await asyncio.sleep(0.01)
        assert await bus.append("orb.lease.i.1", b"new") == 1
        assert [message.data async for message in bus.read("LEASES")] == [b"new"]

    connected(fresh_nats_server, body)


def test_a_node_that_fills_the_queue_of_releases_fills_its_own_share(fresh_nats_server: NatsServer) -> None:
    async def body(bus: Bus) -> None:
        await bus.ensure_stream(msgspec.structs.replace(subjects.RELEASES, subject_max_messages=2))
        for _ in range(2):
            await bus.append(subjects.release("n1"), b"one")
        with pytest.raises(ApiError, match="maximum messages per subject"):
            await bus.append(subjects.release("n1"), b"one too many")
        assert await bus.append(subjects.release("n2"), b"another's") == 3
        work = await bus.work("RELEASES", "allocator")
        (first, *_) = await work.take(10, 1.0)
        await work.ack(first)
        await bus.flush()
        assert await bus.append(subjects.release("n1"), b"there is room again") == 4
        await work.stop()

    connected(fresh_nats_server, body)
