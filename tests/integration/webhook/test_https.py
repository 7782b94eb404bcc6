"""The webhook as the API server meets it: a process, HTTPS verified by its CA, real AdmissionReviews, facts over a real bus."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import ssl
import time
from pathlib import Path
from typing import Any

from services.webhook.certificate import ensure_certificates
from shared import subjects
from shared.contracts.codec import encode
from shared.contracts.query import SERVICE_VIEW, LeaseView, QueryService
from tests.integration.webhook.conftest import Webhook, controller, in_thread, pool, review
from tests.support.nats import NatsServer


def test_it_serves_health_before_the_facts_are_there_and_judges_nothing_then(webhook: Webhook) -> None:
    webhook.start()
    webhook.wait(ready=False)
    answer = webhook.review("validate", pool("a"))
    assert not answer["allowed"]
    assert answer["status"]["code"] == 503
    assert webhook.stop() == 0


def test_reviews_against_facts_and_leases(webhook: Webhook, fresh_nats_server: NatsServer) -> None:
    async def run() -> None:
        async with controller(fresh_nats_server) as told:
            stored = pool("a")
            await told.tell(stored)
            await told.synced()
            await told.bus.serve(subjects.IPAM_QUERY, told.answer)
            webhook.start()
            await in_thread(webhook.wait)

            mutated = await in_thread(webhook.review, "mutate", pool("b", ips=["10.6.1.2", "10.6.1.1"]))
            assert mutated["allowed"] and mutated["patchType"] == "JSONPatch"
            operations = json.loads(base64.b64decode(mutated["patch"]))
            assert {"op": "replace", "path": "/spec/ips/0", "value": "10.6.1.1-10.6.1.2"} in operations
            assert {"op": "remove", "path": "/spec/ips/1"} in operations
            added = {one["path"]: one.get("value") for one in operations}
            assert added["/metadata/finalizers"] == ["spiderpool.spidernet.io"]

            overlapping = await in_thread(webhook.review, "validate", pool("b", gateway="10.7.0.1"))
            status = overlapping["status"]
            assert status["code"] == 422 and status["reason"] == "Invalid"
            fields = [cause["field"] for cause in status["details"]["causes"]]
            assert fields == ["spec.gateway", "spec.ips[0]"]
            assert "overlap with IPPool a in IP ranges [10.6.0.10-10.6.0.20]" in status["message"]

            again = await in_thread(webhook.review, "validate", pool("a"))
            assert again["status"]["code"] == 409

            told.leases = (
                LeaseView(address="10.6.0.12", pool="a", interface="eth0", pod_namespace="x", pod_name="p"),
            )
            shrunk = pool("a", ips=["10.6.0.13-10.6.0.20"])
            in_use = await in_thread(webhook.review, "validate", shrunk, "UPDATE", stored)
            assert in_use["status"]["code"] == 422
            assert "10.6.0.12 that is being used by Pod x/p" in in_use["status"]["message"]
            assert told.asked == ["a"]
            grown = pool("a", ips=["10.6.0.10-10.6.0.30"])
            assert (await in_thread(webhook.review, "validate", grown, "UPDATE", stored))["allowed"]
            assert told.asked == ["a"], "nobody is asked when nothing is taken away"

            view = SERVICE_VIEW.decode(
                (
                    await told.bus.request(
                        f"{subjects.ask_service('webhook')}.webhook-0", encode(QueryService())
                    )
                ).data
            )
            assert view.ready and view.facts["facts_sequence"] == "2"

            await told.tell(pool("c", ips=["10.6.9.1"]))
            await _until(webhook, pool("d", ips=["10.6.9.1"]), allowed=False)

    asyncio.run(run())


async def _until(webhook: Webhook, raw: dict[str, Any], allowed: bool) -> None:
    deadline = time.monotonic() + 5
    while (await in_thread(webhook.review, "validate", raw))["allowed"] is not allowed:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_taking_addresses_waits_for_an_allocator(webhook: Webhook, fresh_nats_server: NatsServer) -> None:
    async def run() -> None:
        async with controller(fresh_nats_server) as told:
            await told.tell(pool("a"))
            await told.synced()
            webhook.start()
            await in_thread(webhook.wait)
            shrunk = pool("a", ips=["10.6.0.10"])
            answer = await in_thread(webhook.review, "validate", shrunk, "UPDATE", pool("a"))
            assert answer["status"]["code"] == 503

    asyncio.run(run())


def test_pods_are_judged_and_not_changed(webhook: Webhook, fresh_nats_server: NatsServer) -> None:
    async def run() -> None:
        async with controller(fresh_nats_server) as told:
            await told.synced()
            webhook.start()
            await in_thread(webhook.wait)
            pod: dict[str, Any] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": "p",
                    "namespace": "x",
                    "annotations": {"ipam.spidernet.io/ippool": '{"ipv4":["later"]}'},
                },
            }
            untouched = await in_thread(webhook.review, "mutate", pod)
            assert untouched == {"uid": untouched["uid"], "allowed": True}
            warned = await in_thread(webhook.review, "validate", pod)
            assert warned["allowed"]
            assert "SpiderIPPool later is not found" in warned["warnings"][0]
            pod["metadata"]["annotations"]["ipam.spidernet.io/ippool"] = "{"
            assert (await in_thread(webhook.review, "validate", pod))["status"]["code"] == 422

    asyncio.run(run())


def test_what_is_no_review_is_answered(webhook: Webhook) -> None:
    webhook.start()
    webhook.wait(ready=False)
    path = "/validate-spiderpool-spidernet-io-v2beta1-spiderippool"
    other = review(pool("a"), "CREATE")
    other["apiVersion"] = "admission.k8s.io/v1beta1"
    for body, status in (("{", 400), ("[" * 100_000, 400), (json.dumps(other), 400), (" " * (9 << 20), 413)):
        connection = webhook.connection()
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        assert connection.getresponse().status == status
        connection.close()
    for method, where, status in (("GET", path, 405), ("POST", "/elsewhere", 404)):
        connection = webhook.connection()
        connection.request(method, where)
        assert connection.getresponse().status == status
        connection.close()


def test_nobody_else_is_trusted(webhook: Webhook, tmp_path: Path) -> None:
    webhook.start()
    webhook.wait(ready=False)
    other = ensure_certificates(tmp_path / "other", ["localhost"])
    context = ssl.create_default_context(cafile=str(other.ca))
    connection = http.client.HTTPSConnection("localhost", webhook.port, context=context, timeout=10)
    try:
        connection.request("GET", "/webhook-health-check")
        raise AssertionError("another CA must not verify this server")
    except ssl.SSLCertVerificationError:
        pass
    finally:
        connection.close()


def test_certificates_change_under_open_connections(webhook: Webhook, tmp_path: Path) -> None:
    webhook.start()
    webhook.wait(ready=False)
    before = webhook.connection()
    before.request("GET", "/webhook-health-check")
    before.getresponse().read()
    open_socket = before.sock
    for name in ("ca.key", "ca.crt", "tls.crt"):
        (webhook.certificates / name).unlink()
    deadline = time.monotonic() + 15
    while True:
        try:
            after = webhook.connection()
            after.request("GET", "/webhook-health-check")
            assert after.getresponse().status == 200
            after.close()
            break
        except (OSError, ssl.SSLError):
            assert time.monotonic() < deadline, webhook.log.read_text()
            time.sleep(0.1)
    before.request("GET", "/webhook-health-check")
    assert before.getresponse().status == 200
    assert before.sock is open_socket
    before.close()


def test_a_second_start_keeps_the_certificates(webhook: Webhook) -> None:
    webhook.start()
    webhook.wait(ready=False)
    ca = (webhook.certificates / "ca.crt").read_bytes()
    assert webhook.stop() == 0
    webhook.start()
    webhook.wait(ready=False)
    assert (webhook.certificates / "ca.crt").read_bytes() == ca
