"""Objects of a real API server as facts on a real JetStream."""

from __future__ import annotations

import asyncio

from shared.contracts.facts import FactsSynced, ObjectFact, ObjectGone
from tests.cluster.controller.conftest import OURS, Starting, pod, pool, reading
from tests.support.kube import ApiServer, namespace
from tests.support.nats import NatsServer


def test_objects_become_facts_and_deletions_tombstones(
    crds: ApiServer, starting: Starting, fresh_nats_server: NatsServer
) -> None:
    place = namespace(crds)
    crds.client.create(f"{OURS}/spiderippools", pool("before"))
    starting()

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()
            facts = await reader.facts()
            # What changes from then on is told behind it.
            (end,) = (index for index, fact in enumerate(facts) if isinstance(fact, FactsSynced))
            assert any(isinstance(fact, ObjectFact) and fact.name == "before" for fact in facts[:end])
            assert await reader.object("Namespace", place)

            crds.client.create(f"{OURS}/spiderippools", pool("later", ips=("10.6.0.30",)))
            created = crds.client.create(
                f"/api/v1/namespaces/{place}/pods",
                pod(
                    "p",
                    labels={"app": "a"},
                    annotations={"ipam.spidernet.io/ippool": '{"ipv4":["later"]}', "other/large": "x" * 1000},
                ),
            )
            assert await reader.until(lambda: reader.object("SpiderIPPool", "later"))
            told = await reader.until(lambda: reader.object("Pod", "p", place))
            assert told["metadata"]["uid"] == created["metadata"]["uid"]
            assert told["metadata"]["labels"] == {"app": "a"}
            assert list(told["metadata"]["annotations"]) == ["ipam.spidernet.io/ippool"]
            assert told["spec"]["nodeName"] == "n1"

            crds.client.delete(f"/api/v1/namespaces/{place}/pods/p", grace_s=0)
            gone = await reader.until(lambda: gone_of(reader, "Pod", "p", place))
            assert gone.uid == created["metadata"]["uid"]

    asyncio.run(main())


async def gone_of(reader, kind: str, name: str, place: str = ""):
    found = await reader.last(kind, name, place)
    return found if isinstance(found, ObjectGone) else None


def test_an_object_that_is_asked_for_is_read_through(
    crds: ApiServer, starting: Starting, fresh_nats_server: NatsServer
) -> None:
    place = namespace(crds)
    starting()

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()
            for number in range(20):
                crds.client.create(f"/api/v1/namespaces/{place}/pods", pod(f"p{number}"))
                fact = await reader.ask("Pod", f"p{number}", place)
                assert fact is not None
                told = await reader.last("Pod", f"p{number}", place)
                assert isinstance(told, ObjectFact)
                assert told.version >= fact.version
                crds.client.delete(f"/api/v1/namespaces/{place}/pods/p{number}", grace_s=0)
                assert await reader.ask("Pod", f"p{number}", place) is None
            assert await reader.ask("Pod", "nobody", place) is None

    asyncio.run(main())
