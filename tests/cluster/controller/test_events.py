"""Events on a real API server, and settings that apply at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from shared import subjects
from shared.contracts.attach import AttachFailed
from shared.contracts.codec import encode
from shared.contracts.disagreement import DisagreementAppeared
from tests.cluster.controller.conftest import Starting, pod, reading, wait_for
from tests.support.kube import ApiServer, namespace
from tests.support.nats import NatsServer
from tests.support.service import Service


def events(server: ApiServer, place: str, reason: str) -> list[dict[str, Any]]:
    return [
        one for one in server.client.items(f"/api/v1/namespaces/{place}/events") if one["reason"] == reason
    ]


def test_failures_and_disagreements_are_events_and_repetitions_count_up(
    crds: ApiServer, starting: Starting, allocator: Service, fresh_nats_server: NatsServer
) -> None:
    place = namespace(crds)
    made = crds.client.create(f"/api/v1/namespaces/{place}/pods", pod("web"))
    starting()
    failed = AttachFailed(
        at_ns=time.time_ns(),
        node="n1",
        container_id="c",
        ifname="eth0",
        pod_namespace=place,
        pod_name="web",
        pod_uid=made["metadata"]["uid"],
        error="pool_exhausted",
        message="all IP addresses used out",
        duration_ms=1.0,
        trace_id="",
    )
    differ = DisagreementAppeared(
        id="d1",
        at_ns=time.time_ns(),
        node="n1",
        sentence="node n1 has 10.6.0.9 without a lease",
        settles="its DEL",
        pod_namespace=place,
        pod_name="web",
        pod_uid=made["metadata"]["uid"],
    )

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()

            async def told() -> list[dict[str, Any]]:
                await reader.bus.append(subjects.attach("n1"), encode(failed))
                return await asyncio.to_thread(events, crds, place, "AttachFailed")

            # the controller follows from the moment that it leads on
            await reader.until(lambda: _some(told))
            for _ in range(5):
                await reader.bus.append(subjects.attach("n1"), encode(failed))
            await asyncio.to_thread(wait_for, lambda: events(crds, place, "AttachFailed")[0]["count"] >= 6)
            (found,) = events(crds, place, "AttachFailed")
            assert found["type"] == "Warning"
            assert found["message"] == "interface eth0 on node n1: all IP addresses used out"
            assert found["involvedObject"]["uid"] == made["metadata"]["uid"]
            assert found["firstTimestamp"] < found["lastTimestamp"], "a second at least between two writes"
            (manager,) = found["metadata"]["managedFields"]
            assert (manager["manager"], manager["operation"]) == ("orbweaver-controller", "Apply")

            async def disagreed() -> list[dict[str, Any]]:
                await reader.bus.append(subjects.disagreement("n1"), encode(differ))
                return await asyncio.to_thread(events, crds, place, "LeaseDisagreement")

            (found,) = await reader.until(lambda: _some(disagreed))
            assert found["message"] == "node n1 has 10.6.0.9 without a lease; what settles it: its DEL"

    asyncio.run(main())


async def _some(found: Any) -> list[dict[str, Any]] | None:
    return await found() or None


def test_a_change_of_the_settings_is_told_at_once(
    crds: ApiServer, starting: Starting, fresh_nats_server: NatsServer
) -> None:
    maps = "/api/v1/namespaces/kube-system/configmaps"
    starting()

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()
            for text in ("enableIPv6: false", "enableIPv6: true"):
                body = {"metadata": {"name": "spiderpool-conf"}, "data": {"conf.yml": text}}
                crds.client.apply(
                    f"{maps}/spiderpool-conf", {"apiVersion": "v1", "kind": "ConfigMap", **body}
                )

                async def said(text: str = text) -> bool:
                    found = await reader.object("ConfigMap", "spiderpool-conf", "kube-system")
                    return bool(found) and found["data"]["conf.yml"] == text

                await reader.until(said)

    try:
        asyncio.run(main())
    finally:
        crds.client.delete(f"{maps}/spiderpool-conf")
