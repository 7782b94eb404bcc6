"""The webhook under load: 200 reviews a second over TLS, and no request is dropped while its certificate changes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from shared import subjects
from tests.integration.webhook.conftest import Webhook, controller, in_thread, pool, review
from tests.support.admission_load import Figures, load
from tests.support.nats import NatsServer

RATE_PER_S = 200.0
SECONDS = 6.0
POOLS = 300


def reviews() -> list[tuple[str, bytes]]:
    """What a cluster asks: mostly pods, some that are to be changed, a pool now and then."""
    marks = {
        "ipam.spidernet.io/ippool": '{"ipv4":["pool-7","pool-8"]}',
        "k8s.v1.cni.cncf.io/networks": "x/rail-3",
    }
    made: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "x", "annotations": marks},
        "spec": {"containers": [{"name": "c", "image": "i" * 200}] * 3},
    }
    asking = json.loads(json.dumps(made))
    asking["metadata"]["annotations"] = {"cni.spidernet.io/rdma-resource-inject": "fabric"}
    validate, mutate = "/validate--v1-pod", "/mutate--v1-pod"
    body = json.dumps(review(made, "CREATE")).encode()
    asked = json.dumps(review(asking, "CREATE")).encode()
    new = json.dumps(review(pool("new", subnet="10.255.0.0/24", ips=["10.255.0.1"]), "CREATE")).encode()
    return (
        [(validate, body)] * 7
        + [(mutate, asked)] * 2
        + [("/validate-spiderpool-spidernet-io-v2beta1-spiderippool", new)]
    )


async def facts(told: Any) -> None:
    conf = "podResourceInject: {enabled: true}\n"
    await told.tell(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "spiderpool-conf", "namespace": "kube-system"},
            "data": {"conf.yml": conf},
        }
    )
    for i in range(POOLS):
        subnet = f"10.{i // 200}.{i % 200}.0/24"
        await told.tell(pool(f"pool-{i}", subnet=subnet, ips=[subnet.replace("0/24", "10")]))
    for i in range(8):
        await told.tell(
            {
                "apiVersion": "spiderpool.spidernet.io/v2beta1",
                "kind": "SpiderMultusConfig",
                "metadata": {
                    "name": f"rail-{i}",
                    "namespace": "x",
                    "labels": {"cni.spidernet.io/rdma-resource-inject": "fabric"},
                },
                "spec": {
                    "cniType": "macvlan",
                    "macvlan": {
                        "master": [f"e{i}"],
                        "rdmaResourceName": f"r/{i}",
                        "ippools": {"ipv4": [f"pool-{i}"]},
                    },
                },
            }
        )
    await told.synced()


def test_200_reviews_a_second_while_certificates_change(
    webhook: Webhook, fresh_nats_server: NatsServer
) -> None:
    async def run() -> Figures:
        async with controller(fresh_nats_server) as told:
            await facts(told)
            await told.bus.serve(subjects.IPAM_QUERY, told.answer)
            webhook.start()
            await in_thread(webhook.wait)
            url = f"https://localhost:{webhook.port}"
            running = asyncio.create_task(
                load(
                    url,
                    webhook.certificates / "ca.crt",
                    reviews(),
                    rate_per_s=RATE_PER_S,
                    seconds=SECONDS,
                    fresh_every=10,
                )
            )
            for _ in range(2):
                await asyncio.sleep(SECONDS / 3)
                # the next look of the webhook finds no certificate, makes one of the same authority and serves with it
                (webhook.certificates / "tls.crt").unlink()
            figures = await running
        assert "certificates reloaded" in webhook.log.read_text()
        return figures

    figures = asyncio.run(run())
    assert not figures.failures
    assert len(figures.durations_ms) == int(RATE_PER_S * SECONDS)
    # how fast is measured on a quiet machine (tests/cluster/bench); here it is shown
    print(f"webhook p50 {figures.p50_ms:.1f} ms, p99 {figures.p99_ms:.1f} ms at {RATE_PER_S:.0f}/s")
