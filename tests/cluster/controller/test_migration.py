"""A cluster that Spiderpool served: its records become leases before anything is given, and stay readable to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared import subjects
from shared.bus import Message
from shared.contracts import mark
from shared.contracts.codec import encode
from shared.contracts.ipam import Mark
from shared.contracts.query import IPAM_ANSWER, AllocatorView, QueryAllocator
from shared.contracts.witness import WITNESS_QUESTION, AskDetail, Claim, WitnessDetail
from shared.settings import AllocatorSettings, ControllerSettings
from tests.cluster.controller.conftest import LEASE, OURS, Starting, attach, pod, pool, reading, wait_for
from tests.support.kube import ApiServer, namespace
from tests.support.nats import NatsServer
from tests.support.service import Service

FINALIZER = "spiderpool.spidernet.io"
MARKS = "/api/v1/namespaces/kube-system/configmaps"


def endpoint(made: dict[str, Any], address: str, of_pool: str) -> dict[str, Any]:
    """As Spiderpool's agent writes it."""
    meta = made["metadata"]
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderEndpoint",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "finalizers": [FINALIZER],
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
            ],
        },
        "status": {
            "current": {
                "uid": meta["uid"],
                "node": made["spec"]["nodeName"],
                "ips": [
                    {
                        "interface": "eth0",
                        "ipv4": f"{address}/16",
                        "ipv4Pool": of_pool,
                        "ipv4Gateway": "10.6.0.1",
                        "cleanGateway": False,
                        "vlan": 0,
                    }
                ],
            },
            "ownerControllerType": "Pod",
            "ownerControllerName": meta["name"],
        },
    }


def test_records_of_spiderpool_become_leases_and_stay_its_own(
    crds: ApiServer, starting: Starting, allocator: Service, fresh_nats_server: NatsServer
) -> None:
    place = namespace(crds)
    body = pool("rack", gateway="10.6.0.1")
    body["metadata"]["finalizers"] = [FINALIZER]
    crds.client.create(f"{OURS}/spiderippools", body)
    pods = [
        crds.client.create(f"/api/v1/namespaces/{place}/pods", pod(name)) for name in ("one", "two", "new")
    ]
    addresses = {"one": "10.6.0.13", "two": "10.6.0.10"}
    records = {
        address: {"pod": f"{place}/{name}", "podUid": made["metadata"]["uid"]}
        for made in pods
        if (address := addresses.get(name := made["metadata"]["name"]))
    }
    crds.client.request(
        "PATCH",
        f"{OURS}/spiderippools/rack/status",
        {"status": {"allocatedIPs": json.dumps(records), "allocatedIPCount": 2, "totalIPCount": 10}},
        content_type="application/merge-patch+json",
    )
    # of "two" only the pool knows: its endpoint was lost
    crds.client.create(f"{OURS}/namespaces/{place}/spiderendpoints", endpoint(pods[0], "10.6.0.13", "rack"))
    before = crds.client.get(f"{OURS}/namespaces/{place}/spiderendpoints/one")
    starting(adopt=True)

    def status() -> dict[str, Any]:
        return crds.client.get(f"{OURS}/spiderippools/rack")["status"]

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()
            # what they had is theirs, whatever order they come in; a new pod gets another one
            new = await attach(reader, pods[2], "rack")
            assert new.address.partition("/")[0] == "10.6.0.11"
            for made in pods[:2]:
                grant = await attach(reader, made, "rack")
                assert grant.address.partition("/")[0] == addresses[made["metadata"]["name"]]
            await asyncio.to_thread(wait_for, lambda: status()["allocatedIPCount"] == 3)
            told = json.loads(status()["allocatedIPs"])
            expected = {**records, "10.6.0.11": {"pod": f"{place}/new", "podUid": pods[2]["metadata"]["uid"]}}
            assert told == expected

    asyncio.run(main())
    after = crds.client.get(f"{OURS}/namespaces/{place}/spiderendpoints/one")
    assert after["status"] == before["status"], "as Spiderpool wrote it: it can take over again"
    endpoints = wait_for(
        lambda: (
            (found := crds.client.items(f"{OURS}/namespaces/{place}/spiderendpoints"))
            and len(found) == 3
            and found
        )
    )
    by_name = {one["metadata"]["name"]: one["status"]["current"] for one in endpoints}
    assert by_name["two"]["ips"][0]["ipv4"] == "10.6.0.10/16"
    assert by_name["two"]["uid"] == pods[1]["metadata"]["uid"]


def test_what_we_mirror_is_not_read_back(
    crds: ApiServer, starting: Starting, allocator: Service, fresh_nats_server: NatsServer
) -> None:
    place = namespace(crds)
    crds.client.create(f"{OURS}/spiderippools", pool("rack"))
    made = crds.client.create(f"/api/v1/namespaces/{place}/pods", pod("one"))
    service = starting(adopt=True)

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()
            await attach(reader, made, "rack")
            strange = {"10.6.0.19": {"pod": f"{place}/strange", "podUid": "x"}}
            crds.client.request(
                "PATCH",
                f"{OURS}/spiderippools/rack/status",
                {"status": {"allocatedIPs": json.dumps(strange)}},
                content_type="application/merge-patch+json",
            )
            await asyncio.to_thread(service.stop)
            service.start()

            def mended() -> bool:
                text = crds.client.get(f"{OURS}/spiderippools/rack")["status"].get("allocatedIPs", "")
                return "strange" not in text and f"{place}/one" in text

            await asyncio.to_thread(wait_for, mended)

    asyncio.run(main())


def test_the_last_record_of_spiderpool_goes_with_its_pod(
    crds: ApiServer, starting: Starting, allocator: Service, fresh_nats_server: NatsServer
) -> None:
    """What we write equals what is there, so the API server keeps it as Spiderpool's too: to say no more of it takes it not away."""
    place = namespace(crds)
    node = {"metadata": {"name": "n1"}, "spec": {}}
    crds.client.create("/api/v1/nodes", node)
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}}
    crds.client.patch("/api/v1/nodes/n1/status", ready)
    crds.client.create(f"{OURS}/spiderippools", pool("rack"))
    only = crds.client.create(f"/api/v1/namespaces/{place}/pods", pod("only"))
    records = {"10.6.0.13": {"pod": f"{place}/only", "podUid": only["metadata"]["uid"]}}
    status = {
        "allocatedIPs": json.dumps(records, separators=(",", ":")),
        "allocatedIPCount": 1,
        "totalIPCount": 10,
    }
    crds.client.request(
        "PATCH",
        f"{OURS}/spiderippools/rack/status",
        {"status": status},
        query={"fieldManager": "spiderpool-agent"},
        content_type="application/merge-patch+json",
    )
    starting(adopt=True)
    try:

        def managers() -> set[str]:
            meta = crds.client.get(f"{OURS}/spiderippools/rack")["metadata"]
            return {one["manager"] for one in meta["managedFields"] if one.get("subresource")}

        wait_for(lambda: managers() >= {"spiderpool-agent", "orbweaver-controller"})
        assert crds.client.get(f"{OURS}/spiderippools/rack")["status"] == status
        crds.client.delete(f"/api/v1/namespaces/{place}/pods/only", grace_s=0)
        empty = {"allocatedIPCount": 0, "totalIPCount": 10}
        wait_for(lambda: crds.client.get(f"{OURS}/spiderippools/rack")["status"] == empty)
    finally:
        crds.client.delete("/api/v1/nodes/n1")


def test_records_of_spiderpool_become_leases_although_the_mark_of_an_earlier_log_was_left(
    crds: ApiServer, starting: Starting, allocator: Service, fresh_nats_server: NatsServer
) -> None:
    """The index is rebuilt then, which waits for all objects to be known, and these wait for adoption."""
    place = namespace(crds)
    earlier = mark.written_mark(mark.LogMark(incarnation="0123456789abcdef", sequence=9))
    crds.client.create(MARKS, {"metadata": {"name": mark.CONFIG_MAP}, "data": earlier})
    crds.client.create(f"{OURS}/spiderippools", pool("rack", gateway="10.6.0.1"))
    one, two = (crds.client.create(f"/api/v1/namespaces/{place}/pods", pod(name)) for name in ("one", "two"))
    records = {"10.6.0.10": {"pod": f"{place}/one", "podUid": one["metadata"]["uid"]}}
    crds.client.request(
        "PATCH",
        f"{OURS}/spiderippools/rack/status",
        {"status": {"allocatedIPs": json.dumps(records), "allocatedIPCount": 1, "totalIPCount": 10}},
        content_type="application/merge-patch+json",
    )
    crds.client.create(f"{OURS}/namespaces/{place}/spiderendpoints", endpoint(one, "10.6.0.10", "rack"))
    starting(adopt=True)

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:

            async def tell(message: Message) -> None:
                """As the agent of n1: its journal is empty, and on a link of its node is what Spiderpool gave."""
                question = WITNESS_QUESTION.decode(message.data)
                if isinstance(question, AskDetail):
                    seen = Claim(container_id="", ifname="eth0", addresses=("10.6.0.10/16",), state="kernel")
                    told = WitnessDetail(
                        node="n1",
                        question=question.question,
                        seen=Mark(),
                        part=0,
                        parts=1,
                        claims=(seen,),
                        scanned=True,
                    )
                    await reader.bus.publish(subjects.witness("n1"), encode(told))

            await reader.bus.serve(subjects.ASK_WITNESS_ALL, tell)
            await reader.synced()
            assert (await attach(reader, two, "rack")).address == "10.6.0.11/16"
            assert (await attach(reader, one, "rack")).address == "10.6.0.10/16"
            answer = await reader.bus.request(subjects.IPAM_QUERY, encode(QueryAllocator()), 5.0)
            view = IPAM_ANSWER.decode(answer.data)
            assert isinstance(view, AllocatorView)
            assert view.quarantined == 0

    asyncio.run(main())
    wait_for(lambda: crds.client.get(f"{OURS}/spiderippools/rack")["status"]["allocatedIPCount"] == 2)


@contextlib.contextmanager
def installation(server: ApiServer, directory: Path) -> Iterator[NatsServer]:
    """Bus, allocator and controller, with a lease log of their own."""
    nats = NatsServer(directory / "nats")
    (directory / "nats").mkdir(parents=True)
    nats.start()
    bus = nats.settings
    allocator = AllocatorSettings(
        replica="a1", bus=bus("allocator"), system=bus("sys"), mark_file=str(directory / "mark.json")
    )
    controller = ControllerSettings(
        replica="c1", bus=bus("controller"), source="kubernetes", kubeconfig=str(server.kubeconfig)
    )
    server.client.delete(LEASE)
    server.client.delete(f"{MARKS}/{mark.CONFIG_MAP}")
    services = [
        Service("services.allocator", allocator, directory),
        Service("services.controller", controller, directory),
    ]
    try:
        for service in services:
            service.start()
        yield nats
    finally:
        for service in services:
            service.kill()
        nats.stop()


def test_back_to_spiderpool_and_here_again(crds: ApiServer, tmp_path: Path) -> None:
    """What we leave is what Spiderpool works on: it frees and gives addresses by our records, and a second installation by its."""
    place = namespace(crds)
    crds.client.create(f"{OURS}/spiderippools", pool("rack", gateway="10.6.0.1"))
    pods = f"/api/v1/namespaces/{place}/pods"
    one, two = (crds.client.create(pods, pod(name)) for name in ("one", "two"))

    def status() -> dict[str, Any]:
        return crds.client.get(f"{OURS}/spiderippools/rack")["status"]

    def endpoints() -> dict[str, Any]:
        return {
            found["metadata"]["name"]: found
            for found in crds.client.items(f"{OURS}/namespaces/{place}/spiderendpoints")
        }

    async def attached(nats: NatsServer, *made: dict[str, Any]) -> list[str]:
        async with reading(nats) as reader:
            await reader.synced()
            return [(await attach(reader, each, "rack")).address.partition("/")[0] for each in made]

    with installation(crds, tmp_path / "first") as nats:
        of_one, of_two = asyncio.run(attached(nats, one, two))
        wait_for(lambda: status().get("allocatedIPCount") == 2 and len(endpoints()) == 2)
    records = {
        address: {"pod": f"{place}/{made['metadata']['name']}", "podUid": made["metadata"]["uid"]}
        for address, made in ((of_one, one), (of_two, two))
    }
    assert json.loads(status()["allocatedIPs"]) == records

    # as Spiderpool does at the end of a pod, and at the start of the next, which gets the lowest free address
    crds.client.delete(f"{pods}/two", grace_s=0)
    ended = f"{OURS}/namespaces/{place}/spiderendpoints/two"
    crds.client.patch(ended, {"metadata": {"finalizers": None}})
    crds.client.delete(ended)
    three = crds.client.create(pods, pod("three"))
    records[of_two] = {"pod": f"{place}/three", "podUid": three["metadata"]["uid"]}
    crds.client.request(
        "PATCH",
        f"{OURS}/spiderippools/rack/status",
        {"status": {"allocatedIPs": json.dumps(records), "allocatedIPCount": 2}},
        content_type="application/merge-patch+json",
    )
    crds.client.create(f"{OURS}/namespaces/{place}/spiderendpoints", endpoint(three, of_two, "rack"))

    four = crds.client.create(pods, pod("four"))
    with installation(crds, tmp_path / "second") as nats:
        of_four, *kept = asyncio.run(attached(nats, four, one, three))
        assert kept == [of_one, of_two]
        assert of_four not in kept
        wait_for(lambda: status().get("allocatedIPCount") == 3)
