"""How much of the API server our system uses: requests a pod's attach costs, and those of a minute in which nothing happens.

Counted from the API server's audit log, by user: whoever is not ours is not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path

from shared.bus import Bus
from tests.bench.fleet import Fleet
from tests.cluster.bench.stage import Services
from tests.support.kube import ApiServer, namespace
from tests.support.kube_cluster import Cluster, await_true
from tests.support.kube_workload import deployment

OURS = "orbweaver-"
"""Every user of ours is called so; agents are none."""
PODS = 60
IDLE_S = 60.0
AGENTS = 200
_SETTLE_S = 10.0
"""After that all that is written about an attach has been written: it is coalesced over a second."""
_QUIET_S = 5.0
_WRITES = {"create", "update", "patch", "delete"}
_ELECTION = "leases"
"""Of coordination.k8s.io: the election costs the same whatever attaches, so it belongs to the idle minute."""


def writes_per_attach(cluster: Cluster, say: Callable[[str], None]) -> float:
    space = namespace(cluster.server, "writes")
    account = f"/api/v1/namespaces/{space}/serviceaccounts/default"
    await_true("the namespace's service account", lambda: cluster.server.client.exists(account))
    time.sleep(_QUIET_S)
    before = _ours(cluster.server)
    cluster.server.client.create(f"/apis/apps/v1/namespaces/{space}/deployments", deployment("web", PODS))
    cluster.await_pods(space, PODS, timeout_s=180)
    time.sleep(_SETTLE_S)
    spent = _ours(cluster.server) - before
    say(
        f"{PODS} attaches cost "
        + (", ".join(f"{n} {verb} {what}" for (verb, what), n in spent.items()) or "nothing")
    )
    cluster.server.kubectl("delete", "namespace", space, "--timeout=120s")
    return sum(n for (verb, what), n in spent.items() if verb in _WRITES and what != _ELECTION) / PODS


def idle_per_min(server: ApiServer, say: Callable[[str], None], what: str, idle_s: float = IDLE_S) -> float:
    """Requests of ours in a minute in which nobody does anything; a watch that goes on counts when it ends."""
    time.sleep(_QUIET_S)
    before = _ours(server)
    time.sleep(idle_s)
    spent = _ours(server) - before
    say(
        f"idle with {what}: "
        + (", ".join(f"{n} {verb} {kind}" for (verb, kind), n in spent.items()) or "nothing")
    )
    return sum(spent.values()) * 60.0 / idle_s


def idle_with_many_agents(directory: Path, say: Callable[[str], None], idle_s: float = IDLE_S) -> float:
    """As `idle_per_min`, in a cluster of AGENTS nodes whose agents are simulated: one process sends the messages of all."""
    nodes = tuple(f"n{number}" for number in range(AGENTS))
    server = ApiServer(directory / "server", audit=True)
    with Services(directory, server) as services:
        for node in nodes:
            server.client.create("/api/v1/nodes", {"metadata": {"name": node}})
        services.start()
        with _reporting(services, nodes):
            return idle_per_min(server, say, f"{AGENTS} agents", idle_s)


@contextlib.contextmanager
def _reporting(services: Services, nodes: tuple[str, ...]) -> Generator[None]:
    """Meanwhile the agents of `nodes` report what they hold, as real ones do."""

    async def report() -> None:
        bus = await Bus.connect(services.nats.settings("admin"), "fleet")
        try:
            fleet = Fleet(bus, nodes)
            await fleet.listen()
            async with fleet.reporting():
                while not ended.is_set():
                    await asyncio.sleep(0.1)
        finally:
            await bus.close()

    ended = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(report()))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _ours(server: ApiServer) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for event in server.audit():
        if event["user"].get("username", "").startswith(OURS):
            found[event["verb"], event.get("objectRef", {}).get("resource", "")] += 1
    return found
