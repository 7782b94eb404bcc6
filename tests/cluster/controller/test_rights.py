"""The controller works with exactly the rights that its README lists."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from tests.cluster.controller.conftest import OURS, Starting, attach, pod, pool, reading, wait_for
from tests.cluster.controller.test_networks import NADS, config, found
from tests.cluster.controller.test_status import endpoint_of, status_of
from tests.support.kube import ApiServer, namespace
from tests.support.nats import NatsServer
from tests.support.service import Service

README = Path(__file__).parents[3] / "services" / "controller" / "README.md"
ROW = re.compile(r"\| `([^`]*)` \| ([^|]+) \| ([^|]+) \| (cluster|installation|kube-system) \|")
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def rules(*places: str) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for group, resources, verbs, place in ROW.findall(README.read_text()):
        if place not in places:
            continue
        kinds, _, names = resources.partition(" named ")
        rule = {
            "apiGroups": [group],
            "resources": [one.strip() for one in kinds.split(",")],
            "verbs": [one.strip() for one in verbs.split(",")],
        }
        if names:
            rule["resourceNames"] = [one.strip() for one in names.split(",")]
        out.append(rule)
    assert out
    return out


def grant(server: ApiServer) -> str:
    """A service account with the rights of the table; its token."""
    accounts = "/api/v1/namespaces/kube-system/serviceaccounts"
    server.client.apply(
        f"{accounts}/controller",
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "controller"}},
    )
    subject = [{"kind": "ServiceAccount", "namespace": "kube-system", "name": "controller"}]
    for kind, place, granted in (
        ("ClusterRole", "", rules("cluster")),
        ("Role", "/namespaces/kube-system", rules("installation", "kube-system")),
    ):
        plural = f"{kind.lower()}s"
        api = "rbac.authorization.k8s.io/v1"
        server.client.apply(
            f"{RBAC}{place}/{plural}/controller",
            {"apiVersion": api, "kind": kind, "metadata": {"name": "controller"}, "rules": granted},
        )
        server.client.apply(
            f"{RBAC}{place}/{kind.lower()}bindings/controller",
            {
                "apiVersion": api,
                "kind": f"{kind}Binding",
                "metadata": {"name": "controller"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "controller"},
                "subjects": subject,
            },
        )
    return server.service_account_token("kube-system", "controller")


def test_it_works_with_the_rights_of_its_readme(
    crds: ApiServer, starting: Starting, allocator: Service, fresh_nats_server: NatsServer, tmp_path: Path
) -> None:
    token = grant(crds)
    kubeconfig = crds.write_kubeconfig(tmp_path / "controller.kubeconfig", token=token)
    place = namespace(crds)
    body = pool("rack")
    body["metadata"]["finalizers"] = ["spiderpool.spidernet.io"]
    crds.client.create(f"{OURS}/spiderippools", body)
    subnet = {**pool("net", ips=("10.6.0.1-10.6.0.100",)), "kind": "SpiderSubnet"}
    crds.client.create(f"{OURS}/spidersubnets", subnet)
    crds.client.create(f"{OURS}/namespaces/{place}/spidermultusconfigs", config("net"))
    coordinator = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderCoordinator",
        "metadata": {"name": "default"},
        "spec": {"podCIDRType": "cilium", "podRPFilter": 0},
    }
    crds.client.create(f"{OURS}/spidercoordinators", coordinator)
    made = crds.client.create(f"/api/v1/namespaces/{place}/pods", pod("web"))
    service = starting(kubeconfig=str(kubeconfig), adopt=True)

    def subnet_status() -> dict[str, Any]:
        return crds.client.get(f"{OURS}/spidersubnets/net").get("status") or {}

    async def main() -> None:
        async with reading(fresh_nats_server) as reader:
            await reader.synced()
            await attach(reader, made, "rack")
            await asyncio.to_thread(wait_for, lambda: status_of(crds, "rack").get("allocatedIPCount") == 1)
            assert await reader.ask("Pod", "web", place) is not None

    asyncio.run(main())
    wait_for(lambda: endpoint_of(crds, place, "web"))
    wait_for(lambda: found(crds, f"{NADS}/namespaces/{place}/network-attachment-definitions/net"))
    wait_for(lambda: subnet_status().get("allocatedIPCount") == 10)
    wait_for(lambda: crds.client.get(f"{OURS}/spidercoordinators/default").get("status", {}).get("phase"))
    log = service.log.read_text()
    assert "forbidden" not in log, log
