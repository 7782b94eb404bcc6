"""The allocator as nodes and people ask it: attaches and detaches of containers on n1, and why a pool would serve or not."""

from __future__ import annotations

import asyncio
from typing import Any

from shared import subjects
from shared.bus import Bus
from shared.contracts.codec import encode
from shared.contracts.ipam import ALLOCATE_REPLY, Allocate, Allocated, InterfaceRequest, Release
from shared.contracts.query import EXPLAINED, Explain, Explained
from tests.cluster.admission.conftest import Cluster


def asking(cluster: Cluster, questions: list[tuple[str, Any]]) -> list[bytes]:
    async def ask() -> list[bytes]:
        bus = await Bus.connect(cluster.nats.settings(), "test")
        try:
            return [
                one.data
                for one in await asyncio.gather(*(bus.request(s, encode(q), 10.0) for s, q in questions))
            ]
        finally:
            await bus.close()

    return asyncio.run(ask())


def attach(cluster: Cluster, label: str, count: int, *pools: str) -> list[Allocated | str]:
    """So many containers at once, each of any of these pools: what each is given, or why not."""
    asked = (InterfaceRequest(ifname="eth0", ipv4=pools),)
    commands = [
        Allocate(
            attempt=f"{label}-{i}",
            node="n1",
            container_id=f"{label}-{i}",
            ifname="eth0",
            interfaces=asked,
            ttl_ms=10_000,
        )
        for i in range(count)
    ]
    answers = asking(cluster, [(subjects.allocate("n1"), command) for command in commands])
    replies = [ALLOCATE_REPLY.decode(answer) for answer in answers]
    return [reply if isinstance(reply, Allocated) else reply.error for reply in replies]


def reasons(cluster: Cluster, *pools: str) -> dict[str, str]:
    """Why each pool would or would not serve, as `orbweaver explain` shows it; of a pod that is there."""
    question = Explain(pod_namespace="default", pod_name="asks", ipv4=pools)
    found = EXPLAINED.decode(asking(cluster, [(subjects.IPAM_EXPLAIN, question)])[0])
    assert isinstance(found, Explained)
    return {verdict.pool: verdict.reason for verdict in found.verdicts}


def detach(cluster: Cluster, label: str, given: Allocated) -> None:
    """As the DEL of the attach of this label, its first."""
    command = Release(
        node="n1",
        container_id=f"{label}-0",
        ifname="eth0",
        attempt=f"{label}-0",
        generation=given.grants[0].generation,
    )

    async def publish() -> None:
        bus = await Bus.connect(cluster.nats.settings(), "test")
        try:
            await bus.append(subjects.release("n1"), encode(command))
        finally:
            await bus.close()

    asyncio.run(publish())
