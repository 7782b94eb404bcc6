"""What the controller writes back to a real API server about leases of a real allocator."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from tests.cluster.controller.conftest import (
    OURS,
    Starting,
    attach,
    detach,
    pod,
    pool,
    reading,
    wait_for,
)
from tests.support.kube import ApiServer, namespace
from tests.support.kube_client import ApiError
from tests.support.nats import NatsServer
from tests.support.service import Service


def status_of(server: ApiServer, name: str) -> dict[str, Any]:
    return server.client.get(f"{OURS}/spiderippools/{name}").get("status", {})


def endpoint_of(server: ApiServer, place: str, name: str) -> dict[str, Any] | None:
    try:
        return server.client.get(f"{OURS}/namespaces/{place}/spiderendpoints/{name}")
    except ApiError as error:
        assert error.status == 404
        return None


def test_leases_are_mirrored_to_pool_status_and_endpoint(
    crds: ApiServer, starting: Starting, allocator: Service, fresh_nats_server: NatsServer
) -> None:
    place = namespace(crds)
    crds.client.create(f"{OURS}/spiderippools", pool("rack", gateway="10.6.0.1"))
    made = crds.client.create(f"/api/v1/namespaces/{place}/pods", pod("web"))
    starting()

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()
            grant = await attach(reader, made, "rack")
            address = grant.address.partition("/")[0]

            await asyncio.to_thread(wait_for, lambda: status_of(crds, "rack").get("allocatedIPCount") == 1)
            status = status_of(crds, "rack")
            assert status["totalIPCount"] == 10
            records = json.loads(status["allocatedIPs"])
            assert records == {address: {"pod": f"{place}/web", "podUid": made["metadata"]["uid"]}}

            found = await asyncio.to_thread(wait_for, lambda: endpoint_of(crds, place, "web"))
            detail = found["status"]["current"]["ips"][0]
            assert detail["interface"] == "eth0"
            assert detail["ipv4"] == f"{address}/16"
            assert detail["ipv4Pool"] == "rack"
            assert detail["ipv4Gateway"] == "10.6.0.1"
            assert detail["vlan"] == 0
            assert detail["cleanGateway"] is False
            assert found["status"]["current"]["uid"] == made["metadata"]["uid"]
            assert found["status"]["current"]["node"] == "n1"
            assert found["status"]["ownerControllerType"] == "Pod"
            assert found["metadata"]["finalizers"] == ["spiderpool.spidernet.io"]
            assert found["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]

            crds.client.delete(f"/api/v1/namespaces/{place}/pods/web", grace_s=0)
            await detach(reader, made, grant)
            await asyncio.to_thread(wait_for, lambda: status_of(crds, "rack").get("allocatedIPCount") == 0)
            assert "allocatedIPs" not in status_of(crds, "rack")
            loose = await asyncio.to_thread(wait_for, lambda: without_finalizer(crds, place, "web"))
            assert "deletionTimestamp" not in loose["metadata"], "one write a second: first nothing holds it"
            await asyncio.to_thread(wait_for, lambda: endpoint_of(crds, place, "web") is None)

    asyncio.run(main())


def without_finalizer(server: ApiServer, place: str, name: str) -> dict[str, Any] | None:
    found = endpoint_of(server, place, name)
    return found if found is not None and not found["metadata"].get("finalizers") else None


def test_an_endpoint_that_neither_a_lease_nor_a_pod_stands_for_goes(
    crds: ApiServer, starting: Starting, allocator: Service
) -> None:
    """Whatever `enableCleanOutdatedEndpoint` says, which is off here; the pod is asked for, unlike in the reference."""
    place = namespace(crds)
    crds.client.create(f"{OURS}/spiderippools", pool("rack"))
    living = crds.client.create(f"/api/v1/namespaces/{place}/pods", pod("living"))
    for name, uid in (("living", living["metadata"]["uid"]), ("gone", "0a1b"), ("other", "0a1b")):
        allocation = {"uid": uid, "node": "n1", "ips": [{"interface": "eth0", "ipv4Pool": "rack", "vlan": 0}]}
        crds.client.create(
            f"{OURS}/namespaces/{place}/spiderendpoints",
            {
                "apiVersion": "spiderpool.spidernet.io/v2beta1",
                "kind": "SpiderEndpoint",
                "metadata": {"name": name, "finalizers": ["spiderpool.spidernet.io"]},
                "status": {
                    "current": allocation,
                    "ownerControllerType": "Pod",
                    "ownerControllerName": name,
                },
            },
        )
    crds.client.create(f"/api/v1/namespaces/{place}/pods", pod("other"))
    starting()
    for name in ("gone", "other"):
        wait_for(lambda name=name: endpoint_of(crds, place, name) is None)
    found = endpoint_of(crds, place, "living")
    assert found is not None and "deletionTimestamp" not in found["metadata"]


def test_a_deleted_pool_stays_until_its_last_lease_is_gone(
    crds: ApiServer, starting: Starting, allocator: Service, fresh_nats_server: NatsServer
) -> None:
    place = namespace(crds)
    body = pool("rack")
    body["metadata"]["finalizers"] = ["spiderpool.spidernet.io"]
    crds.client.create(f"{OURS}/spiderippools", body)
    made = crds.client.create(f"/api/v1/namespaces/{place}/pods", pod("web"))
    starting()

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()
            grant = await attach(reader, made, "rack")
            crds.client.delete(f"{OURS}/spiderippools/rack")
            await asyncio.sleep(2.5)
            assert crds.client.exists(f"{OURS}/spiderippools/rack")
            crds.client.delete(f"/api/v1/namespaces/{place}/pods/web", grace_s=0)
            await detach(reader, made, grant)
            await asyncio.to_thread(wait_for, lambda: not crds.client.exists(f"{OURS}/spiderippools/rack"))

    asyncio.run(main())


def changes_of(server: ApiServer, plural: str, name: str, since: str) -> list[dict[str, Any]]:
    """What a watch tells of the object, from this version on until now."""
    query = f"watch=true&timeoutSeconds=2&resourceVersion={since}&fieldSelector=metadata.name%3D{name}"
    lines = server.kubectl("get", "--raw", f"{OURS}/{plural}?{query}").splitlines()
    return [json.loads(line)["object"] for line in lines]


def test_many_changes_of_one_pool_are_few_writes(
    crds: ApiServer, starting: Starting, allocator: Service, fresh_nats_server: NatsServer
) -> None:
    place = namespace(crds)
    crds.client.create(f"{OURS}/spiderippools", pool("rack", ips=("10.6.1.1-10.6.1.100",)))
    pods = [crds.client.create(f"/api/v1/namespaces/{place}/pods", pod(f"p{number}")) for number in range(30)]
    starting()

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()
            first = crds.client.get(f"{OURS}/spiderippools/rack")["metadata"]["resourceVersion"]
            began_s = time.monotonic()
            for one in pods:
                await attach(reader, one, "rack")
                await asyncio.sleep(0.1)
            await asyncio.to_thread(wait_for, lambda: status_of(crds, "rack").get("allocatedIPCount") == 30)
            took_s = time.monotonic() - began_s
            await asyncio.to_thread(
                wait_for, lambda: len(crds.client.items(f"{OURS}/namespaces/{place}/spiderendpoints")) == 30
            )
            writes = changes_of(crds, "spiderippools", "rack", first)
            # two seconds grace: the first is written at once, and the second that is under way counts whole
            assert 1 < len(writes) <= took_s + 2 < len(pods) / 2, (writes, took_s)
            counts = [one["status"]["allocatedIPCount"] for one in writes]
            assert counts == sorted(counts) and counts[-1] == 30

    asyncio.run(main())
    managers = crds.client.get(f"{OURS}/spiderippools/rack")["metadata"]["managedFields"]
    ours = [one for one in managers if one["manager"] == "orbweaver-controller"]
    assert [one["operation"] for one in ours] == ["Apply"]
    assert ours[0]["subresource"] == "status"
