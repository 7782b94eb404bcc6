"""Allocations over the bus as an agent asks for them: one at a time, then many in flight. A process of its own.

`python -m tests.bench.allocate AGENT_SETTINGS SECONDS` prints one JSON object.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from shared.bus import Bus
from shared.contracts.codec import encode
from shared.contracts.ipam import ALLOCATE_REPLY, Allocate, Allocated, InterfaceRequest
from shared.settings import AgentSettings, read_settings
from shared.subjects import allocate

_IN_FLIGHT = 64
_INTERFACES = (InterfaceRequest(ifname="eth0", ipv4=("bench-v4",), ipv6=("bench-v6",)),)


class Allocations(msgspec.Struct, frozen=True, kw_only=True):
    allocate_p50_ms: float
    allocate_p99_ms: float
    allocs_per_s: float


def _request(node: str) -> bytes:
    """A container that no pod stands behind: distinct, and needs no facts."""
    return encode(
        Allocate(
            attempt=secrets.token_hex(16),
            node=node,
            container_id=secrets.token_hex(32),
            ifname="eth0",
            interfaces=_INTERFACES,
            ttl_ms=10_000,
        )
    )


async def measure(settings: AgentSettings, seconds: float) -> Allocations:
    """Raises RuntimeError when an allocation is refused or lacks a family."""
    bus = await Bus.connect(settings.bus, "bench")
    subject = allocate(settings.node)

    async def one(payload: bytes) -> None:
        reply = ALLOCATE_REPLY.decode((await bus.request(subject, payload, timeout_s=10.0)).data)
        if not isinstance(reply, Allocated) or {grant.family for grant in reply.grants} != {4, 6}:
            raise RuntimeError(f"not allocated: {reply}")

    try:
        single_ms: list[float] = []
        for _ in range(320):
            payload = _request(settings.node)
            start_s = time.perf_counter()
            await one(payload)
            single_ms.append((time.perf_counter() - start_s) * 1e3)
        single_ms = single_ms[20:]
        done = 0
        start_s = time.perf_counter()
        deadline_s = start_s + seconds

        async def keep_one_in_flight() -> None:
            nonlocal done
            while time.perf_counter() < deadline_s:
                await one(_request(settings.node))
                done += 1

        await asyncio.gather(*(keep_one_in_flight() for _ in range(_IN_FLIGHT)))
        took_s = time.perf_counter() - start_s
    finally:
        await bus.close()
    return Allocations(
        allocate_p50_ms=statistics.median(single_ms),
        allocate_p99_ms=statistics.quantiles(single_ms, n=100)[98],
        allocs_per_s=done / took_s,
    )


def in_process(settings_file: Path, seconds: float) -> Allocations:
    """Measures in a process of its own, as the node whose agent has these settings. Raises RuntimeError."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.allocate", str(settings_file), str(seconds)],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the load on the allocator failed: {done.stderr.decode(errors='replace')[-800:]}")
    return msgspec.json.decode(done.stdout, type=Allocations)


if __name__ == "__main__":
    found = uvloop.run(measure(read_settings(Path(sys.argv[1]), AgentSettings), float(sys.argv[2])))
    print(msgspec.json.encode(found).decode())
