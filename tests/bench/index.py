"""A log as large as a cluster's: how long an allocator reads it until its first answer, and what the index takes in memory.

1,000,000 leases in 200 pools: 900,000 in the snapshot, each of the others in a record of its own behind it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from services.allocator import snapshot
from services.allocator.mark import MarkFile
from services.allocator.picture import Picture
from services.allocator.state import HeldInterface, Holding, Lease, Snapshot, halves
from shared import subjects
from shared.bus import Bus
from shared.contracts.codec import encode
from shared.contracts.lease import LeaseItem, LeasesAllocated, Record, digest
from shared.contracts.mark import LogMark
from shared.net.ranges import format_address
from tests.bench.fleet import NAMESPACE
from tests.bench.stage import POOLS, Object, pool, publish_facts, rss_bytes, stage
from tests.support.nats import NatsServer

POOLS_OF_FAMILY = 100
LEASES_OF_POOL = 5000
RECORDS = 100_000
NODES = 1000
_INCARNATION = "bench"
_ACKED_EVERY = 1000
_START_S = 120.0


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """`replay_s`: start of the process to its first answer; `rss_gib` then."""

    replay_s: float
    rss_gib: float
    snapshot_mib: float


async def measure(directory: Path) -> Replay:
    """Raises RuntimeError when the allocator does not have all leases."""
    server = NatsServer(directory)
    # what is read has been written before: writing it need not wait for the disk each time
    server.sync_interval = "10s"
    server.start()
    try:
        async with stage(server, directory, ()) as writing:
            size_bytes = await _write(writing.bus, writing.replicas.mark)
        server.stop()
        server.sync_interval = "always"
        server.start()
        async with stage(server, directory, ("n0",)) as reading:
            replicas, fleet = reading.replicas, reading.fleet
            start_s = time.monotonic()
            replicas.start("a1")
            await fleet.attach(fleet.request("n0"), within_s=_START_S)
            replay_s = time.monotonic() - start_s
            found_bytes = rss_bytes(replicas["a1"].pid)
            view = await reading.cluster.until(reading.cluster.view)
    finally:
        server.stop(kill=True)
    if view.leases != 2 * POOLS_OF_FAMILY * LEASES_OF_POOL + 2:
        raise RuntimeError(f"an index of another size: {view}")
    return Replay(replay_s=replay_s, rss_gib=found_bytes / 2**30, snapshot_mib=size_bytes / 2**20)


def _pools() -> Iterator[Object]:
    yield from POOLS
    for number in range(POOLS_OF_FAMILY):
        yield pool(f"p{number}-v4", f"100.{number}.0.0/16", f"100.{number}.0.10-100.{number}.200.0")
        yield pool(
            f"p{number}-v6", f"fd00:{number:x}::/64", f"fd00:{number:x}::10-fd00:{number:x}::ffff:ffff"
        )


async def _write(bus: Bus, mark_file: Path) -> int:
    """The whole log, as allocators have left it. The snapshot's size."""
    for spec in (subjects.LEASES, subjects.SNAPSHOTS):
        await bus.ensure_stream(spec)
    await publish_facts(bus, _pools())
    last = Record(incarnation=_INCARNATION, term=1, at_ns=time.time_ns(), previous=b"", events=())
    payload = encode(last)
    sequence = await bus.append(subjects.lease(_INCARNATION, 1), payload)
    manifest = await snapshot.store(bus, Picture(_snapshot(last.at_ns, sequence, digest(payload))))
    previous = digest(payload)
    for number, event in enumerate(_events(), 1):
        record = Record(
            incarnation=_INCARNATION, term=1, at_ns=last.at_ns, previous=previous, events=(event,)
        )
        payload = encode(record)
        previous = digest(payload)
        if number % _ACKED_EVERY:
            await bus.publish(subjects.lease(_INCARNATION, 1), payload)
        else:
            sequence = await bus.append(subjects.lease(_INCARNATION, 1), payload)
    MarkFile(mark_file).write(
        LogMark(incarnation=_INCARNATION, sequence=sequence, digest=previous.hex(), nodes=())
    )
    return manifest.size_bytes


def _address(number: int, family: int) -> tuple[int, str]:
    """Of the lease with this number of a family, and its pool."""
    pool_number, host = number % POOLS_OF_FAMILY, 0x10 + number // POOLS_OF_FAMILY
    if family == 4:
        return (100 << 24) + (pool_number << 16) + host, f"p{pool_number}-v4"
    return (0xFD00 << 112) + (pool_number << 96) + host, f"p{pool_number}-v6"


_DUAL = POOLS_OF_FAMILY * LEASES_OF_POOL - RECORDS // 2
"""Pods with a lease of each family; those of the records have one."""


def _snapshot(at_ns: int, sequence: int, last_digest: bytes) -> Snapshot:
    return Snapshot(
        incarnation=_INCARNATION,
        term=1,
        sequence=sequence,
        digest=last_digest,
        at_ns=at_ns,
        generation=_DUAL,
        holdings=[_holding(number) for number in range(_DUAL)],
        resting=[],
        voided={},
    )


def _holding(number: int) -> Holding:
    leases: list[Lease] = []
    for family, prefix_len in ((4, 16), (6, 64)):
        address, pool_name = _address(number, family)
        leases.append(Lease(family, *halves(address), pool_name, prefix_len))
    held = HeldInterface(generation=number + 1, leases=leases, attached=True, attempt=f"{number:032x}")
    return Holding(
        owner=_uid(number),
        namespace=NAMESPACE,
        name=f"pod-{number}",
        node=f"node-{number % NODES}",
        container_id=f"{number:064x}",
        attempt=f"{number:032x}",
        interfaces={"eth0": held},
    )


def _events() -> Iterator[LeasesAllocated]:
    """One lease each, the families in turn."""
    for number in range(RECORDS):
        family, pod_number = (4, 6)[number % 2], _DUAL + number
        address, pool_name = _address(_DUAL + number // 2, family)
        yield LeasesAllocated(
            owner=_uid(pod_number),
            node=f"node-{pod_number % NODES}",
            container_id=f"{pod_number:064x}",
            attempt=f"{pod_number:032x}",
            generation=pod_number + 1,
            items=(
                LeaseItem(
                    ifname="eth0",
                    address=format_address(address, family),
                    pool=pool_name,
                    prefix_len={4: 16, 6: 64}[family],
                ),
            ),
            attached=("eth0",),
            pod_namespace=NAMESPACE,
            pod_name=f"pod-{pod_number}",
        )


def _uid(number: int) -> str:
    """As long as a real one."""
    return f"00000000-0000-4000-8000-{number:012x}"
