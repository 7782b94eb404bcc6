"""Two controllers on one API server: one leads; kill -9 and stop and continue."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

from shared import subjects
from shared.bus import BusError
from shared.contracts.codec import encode
from shared.contracts.facts import FACT, FactsTerm
from shared.contracts.query import SERVICE_VIEW, QueryService, ServiceView
from tests.cluster.controller.conftest import LEASE, OURS, Reader, Starting, pool, reading, wait_for
from tests.support.kube import ApiServer
from tests.support.nats import NatsServer


async def view(reader: Reader, replica: str) -> ServiceView | None:
    subject = f"{subjects.ask_service('controller')}.{replica}"
    with contextlib.suppress(BusError):
        return SERVICE_VIEW.decode((await reader.bus.request(subject, encode(QueryService()), 2.0)).data)
    return None


async def leader(reader: Reader, *replicas: str) -> str | None:
    """The one that leads and has told everything."""
    for replica in replicas:
        found = await view(reader, replica)
        if found is not None and found.facts.get("leader") == "true" and found.facts.get("synced") == "true":
            return replica
    return None


async def term(reader: Reader) -> FactsTerm:
    message = await reader.bus.get_last("FACTS", subjects.FACTS_TERM)
    assert message is not None
    found = FACT.decode(message.data)
    assert isinstance(found, FactsTerm)
    return found


def test_a_killed_leader_is_followed_and_a_graceful_one_at_once(
    crds: ApiServer, starting: Starting, fresh_nats_server: NatsServer
) -> None:
    services: dict[str, Any] = {replica: starting(replica) for replica in ("c1", "c2")}

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            first = await reader.until(lambda: leader(reader, "c1", "c2"))
            second = "c2" if first == "c1" else "c1"
            standing_by = await reader.until(lambda: view(reader, second))
            assert standing_by.ready
            assert standing_by.facts["leader"] == "false"
            assert (await term(reader)).replica == first

            services[first].kill()
            crds.client.create(f"{OURS}/spiderippools", pool("meanwhile"))
            assert await reader.until(lambda: leader(reader, second)) == second
            assert await reader.until(lambda: reader.object("SpiderIPPool", "meanwhile"))
            assert (await term(reader)).replica == second

            services[first].start()
            await reader.until(lambda: view(reader, first))
            await asyncio.to_thread(services[second].stop)
            holder = crds.client.get(LEASE)["spec"]["holderIdentity"]
            assert holder == "" or holder.startswith(first), "it made room when it was asked to stop"
            assert await reader.until(lambda: leader(reader, first)) == first

    asyncio.run(main())


def test_a_leader_that_was_stopped_and_wakes_up_late_tells_and_writes_nothing(
    crds: ApiServer, starting: Starting, fresh_nats_server: NatsServer
) -> None:
    services: dict[str, Any] = {replica: starting(replica) for replica in ("c1", "c2")}

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            first = await reader.until(lambda: leader(reader, "c1", "c2"))
            second = "c2" if first == "c1" else "c1"
            os.kill(services[first].pid, signal.SIGSTOP)
            assert await reader.until(lambda: leader(reader, second)) == second
            crds.client.create(f"{OURS}/spiderippools", pool("late"))
            told = await reader.until(lambda: reader.last("SpiderIPPool", "late"))
            os.kill(services[first].pid, signal.SIGCONT)
            assert await asyncio.to_thread(services[first].wait, 60.0) == 1, "it ends, to begin anew"
            assert await reader.last("SpiderIPPool", "late") == told
            assert (await term(reader)).replica == second
            assert crds.client.get(LEASE)["spec"]["holderIdentity"].startswith(second)

    asyncio.run(main())


def test_the_api_server_is_away_and_the_leader_stays(
    crds: ApiServer, starting: Starting, fresh_nats_server: NatsServer
) -> None:
    crds.client.create(f"{OURS}/spiderippools", pool("goes"))
    service = starting()

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.until(lambda: leader(reader, "c1"))
            crds.stop_api()
            await asyncio.sleep(12)
            assert await reader.ask("SpiderIPPool", "goes") is not None, "what is known is answered"
            crds.start_api()
            crds.client.delete(f"{OURS}/spiderippools/goes")
            crds.client.create(f"{OURS}/spiderippools", pool("comes"))
            await reader.until(lambda: reader.object("SpiderIPPool", "comes"))
            await reader.until(lambda: gone(reader, "goes"))
            found = await reader.until(lambda: view(reader, "c1"))
            assert found.pid == service.pid

    asyncio.run(main())


async def gone(reader: Reader, name: str) -> bool:
    return await reader.object("SpiderIPPool", name) is None


def test_an_api_server_restored_from_a_backup_is_believed(
    crds: ApiServer, starting: Starting, fresh_nats_server: NatsServer, tmp_path: Any
) -> None:
    crds.client.create(f"{OURS}/spiderippools", pool("kept"))
    copy = tmp_path / "backup"
    crds.save(copy)
    starting()

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.until(lambda: leader(reader, "c1"))
            for number in range(20):
                crds.client.patch(f"{OURS}/spiderippools/kept", {"metadata": {"labels": {"n": str(number)}}})
            crds.client.create(f"{OURS}/spiderippools", pool("forgotten"))
            await reader.until(lambda: reader.object("SpiderIPPool", "forgotten"))
            crds.restore(copy)
            await reader.until(lambda: gone(reader, "forgotten"))
            crds.client.patch(f"{OURS}/spiderippools/kept", {"metadata": {"labels": {"n": "after"}}})

            async def newest() -> bool:
                found = await reader.object("SpiderIPPool", "kept")
                return found["metadata"].get("labels", {}).get("n") == "after"

            await reader.until(newest)

    asyncio.run(main())
    wait_for(lambda: crds.client.exists(f"{OURS}/spiderippools/kept"))
