"""What is deleted at once goes at once: kinds, objects with finalizers, account and rights, on a real API server with the rights of deploy/."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.controller.kube import KubeClient
from services.controller.leaving import ACCOUNT, HOLD, KINDS_FOLLOW_S, RIGHTS, Leaving
from services.controller.reflector import Item, Put
from services.controller.watched import table
from tests.cluster import build
from tests.support.kube import ApiServer

DEPLOY = Path(__file__).parents[3] / "deploy"
NAMESPACE = "orbweaver-system"
OURS = "/apis/spiderpool.spidernet.io/v2beta1"
FINALIZER = "spiderpool.spidernet.io"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
HELD = (
    f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}",
    f"{RBAC}/clusterroles/{RIGHTS}",
    f"{RBAC}/clusterrolebindings/{RIGHTS}",
)
POOLS, ENDPOINTS = 40, 60
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One of our own: what is deleted here, others' tests have installed."""
    server = ApiServer(tmp_path_factory.mktemp("kube"), controllers=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def installed(server: ApiServer) -> Iterator[ApiServer]:
    """The development overlay, none of whose pods runs, and objects that are in use."""
    await_true("nothing of before", lambda: not server.client.exists(f"/api/v1/namespaces/{NAMESPACE}"))
    server.kubectl("apply", "-k", str(DEPLOY / "overlays" / "dev"))
    server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    # Nobody answers for them.
    for kind in ("validating", "mutating"):
        server.kubectl("delete", f"{kind}webhookconfiguration", "orbweaver")
    for number in range(POOLS):
        server.client.create(f"{OURS}/spiderippools", held("SpiderIPPool", f"pool-{number}"))
    for number in range(ENDPOINTS):
        current = {"uid": "u", "node": "n", "ips": []}
        status = {"current": current, "ownerControllerName": "web", "ownerControllerType": "Pod"}
        body = held("SpiderEndpoint", f"endpoint-{number}") | {"status": status}
        server.client.create(f"{OURS}/namespaces/default/spiderendpoints", body)
    yield server
    for path in HELD:
        with contextlib.suppress(Exception):
            server.client.patch(path, {"metadata": {"finalizers": None}})
    for plural in {"spiderippools", "spiderendpoints"} & definitions(server):
        for one in server.client.items(f"{OURS}/{plural}"):
            place = f"/namespaces/{space}" if (space := one["metadata"].get("namespace")) else ""
            path = f"{OURS}{place}/{plural}/{one['metadata']['name']}"
            server.client.patch(path, {"metadata": {"finalizers": None}})
    server.kubectl("delete", "-k", str(DEPLOY / "overlays" / "dev"), "--ignore-not-found", "--timeout=60s")


def held(kind: str, name: str) -> dict[str, Any]:
    spec = {"spec": {"subnet": "10.6.0.0/16", "ips": ["10.6.0.10"]}} if kind == "SpiderIPPool" else {}
    meta = {"name": name, "finalizers": [FINALIZER]}
    return {"apiVersion": f"{FINALIZER}/v2beta1", "kind": kind, "metadata": meta, **spec}


def await_true(what: str, found: Any) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not found():
        assert time.monotonic() < deadline, f"not within {LIMIT_S:.0f} s: {what}"
        time.sleep(0.1)


@contextlib.asynccontextmanager
async def leaving(server: ApiServer, tmp_path: Path) -> AsyncIterator[Leaving]:
    """As the controller's pod is: with its account's token and the rights of deploy/."""
    token = server.service_account_token(NAMESPACE, ACCOUNT)
    client = await KubeClient.open(str(server.write_kubeconfig(tmp_path / "kubeconfig", token=token)))
    try:
        yield Leaving(client, NAMESPACE)
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def leading(server: ApiServer, one: Leaving) -> AsyncIterator[None]:
    running = asyncio.create_task(one.run())
    try:
        await asyncio.to_thread(await_true, "all is held", lambda: all(holds(server, path) for path in HELD))
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def holds(server: ApiServer, path: str) -> bool:
    return HOLD in server.client.get(path)["metadata"].get("finalizers", [])


def definitions(server: ApiServer) -> set[str]:
    found = server.client.items("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    return {one["spec"]["names"]["plural"] for one in found if one["spec"]["group"] == FINALIZER}


def test_one_command_leaves_nothing(installed: ApiServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with leaving(installed, tmp_path) as one, leaving(installed, tmp_path) as standby:
            async with leading(installed, one):
                pass
            deleting = asyncio.create_task(
                asyncio.to_thread(
                    installed.kubectl, "delete", "-k", str(DEPLOY / "overlays" / "dev"), "--timeout=60s",
                    "--ignore-not-found",
                )
            )  # fmt: skip
            # The kubelet tells both replicas when the first object, the namespace, is on its way.
            await asyncio.to_thread(
                await_true,
                "the namespace is being deleted",
                lambda: terminating(installed, f"/api/v1/namespaces/{NAMESPACE}"),
            )
            await asyncio.gather(one.leave(), standby.leave())
            await deleting

    asyncio.run(scenario())
    assert not installed.client.exists(f"/api/v1/namespaces/{NAMESPACE}")
    assert definitions(installed) == set()
    assert not [path for path in HELD if installed.client.exists(path)]


def test_where_no_controller_runs_the_documented_commands_do(installed: ApiServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with leaving(installed, tmp_path) as one, leading(installed, one):
            pass

    asyncio.run(scenario())
    installed.kubectl("delete", "-k", str(DEPLOY / "overlays" / "dev"), "--wait=false", "--ignore-not-found")
    manual = (
        (DEPLOY.parent / "docs" / "deploy.md")
        .read_text()
        .partition("Where no controller can run any more")[2]
    )
    lines = itertools.takewhile(lambda line: not line or line.startswith("    "), manual.splitlines()[2:])
    (tmp_path / "kubectl").symlink_to(build.programs() / "kubectl")
    # Of what is gone already kubectl complains: what counts is what is left.
    subprocess.run(
        ["bash", "-c", "\n".join(line[4:] for line in lines)],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "KUBECONFIG": str(installed.kubeconfig),
            "HOME": str(tmp_path),
        },
        check=False,
    )
    await_true("the kinds are gone", lambda: definitions(installed) == set())
    for path in (*HELD, f"/api/v1/namespaces/{NAMESPACE}"):
        await_true(f"{path} is gone", lambda path=path: not installed.client.exists(path))


def terminating(server: ApiServer, path: str) -> bool:
    return not server.client.exists(path) or "deletionTimestamp" in server.client.get(path)["metadata"]


def test_a_rollout_takes_no_finalizer_off(installed: ApiServer, tmp_path: Path) -> None:
    async def scenario() -> float:
        async with leaving(installed, tmp_path) as one:
            async with leading(installed, one):
                pass
            began = time.monotonic()
            await one.leave()
            return time.monotonic() - began

    assert asyncio.run(scenario()) < KINDS_FOLLOW_S / 2
    assert all(holds(installed, path) for path in HELD)
    for plural in ("spiderippools", "spiderendpoints"):
        found = installed.client.items(f"{OURS}/{plural}")
        assert found and all(one["metadata"]["finalizers"] == [FINALIZER] for one in found)


def test_the_kinds_stay_where_only_the_namespace_is_deleted(installed: ApiServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with leaving(installed, tmp_path) as one:
            async with leading(installed, one):
                pass
            installed.client.delete(f"/api/v1/namespaces/{NAMESPACE}")
            await one.leave()

    asyncio.run(scenario())
    await_true("the namespace goes", lambda: not installed.client.exists(f"/api/v1/namespaces/{NAMESPACE}"))
    pools = installed.client.items(f"{OURS}/spiderippools")
    assert len(pools) == POOLS and all(one["metadata"]["finalizers"] == [FINALIZER] for one in pools)
    assert not any(holds(installed, path) for path in HELD if installed.client.exists(path))


def test_the_leader_lets_a_kind_go_that_is_deleted_alone(installed: ApiServer, tmp_path: Path) -> None:
    watched = next(
        row for row in table(NAMESPACE, ("kube-system", "cilium-config")) if row.kind == "SpiderIPPool"
    )

    async def scenario() -> None:
        async with leaving(installed, tmp_path) as one, leading(installed, one):
            # A pool alone that is deleted stays: it may have leases.
            installed.client.delete(f"{OURS}/spiderippools/pool-0")
            one.on_change(watched, notice(installed, "pool-0"))
            await asyncio.sleep(2.0)
            assert installed.client.exists(f"{OURS}/spiderippools/pool-0")
            installed.kubectl("delete", "crd", f"spiderippools.{FINALIZER}", "--wait=false")
            one.on_change(watched, notice(installed, "pool-0"))
            await asyncio.to_thread(
                await_true, "the kind is gone", lambda: "spiderippools" not in definitions(installed)
            )

    asyncio.run(scenario())
    assert len(installed.client.items(f"{OURS}/spiderendpoints")) == ENDPOINTS


def notice(server: ApiServer, name: str) -> Put:
    """What the reflector tells of a pool."""
    watched = next(
        row for row in table(NAMESPACE, ("kube-system", "cilium-config")) if row.kind == "SpiderIPPool"
    )
    raw = server.kubectl("get", "spiderippool", name, "-o", "json").encode()
    body = watched.reduce(raw)
    assert body is not None
    return Put(("", name), Item("uid", 1, body))
