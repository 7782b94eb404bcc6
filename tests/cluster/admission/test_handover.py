"""Two replicas share one authority and hand over to the next while people apply pools: nothing fails."""

from __future__ import annotations

import itertools
import ssl
import threading
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography import x509

from services.webhook.authority import SETTLED, Authority, from_secret
from services.webhook.certificate import new_authority, read_certificate
from tests.cluster.admission.conftest import NAMESPACE, OURS, Cluster, eventually, pool
from tests.support.kube_client import ApiError

SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/orbweaver-webhook-ca"
UNTIL_SIGNING = timedelta(seconds=6)


def authority(cluster: Cluster) -> Authority:
    found = from_secret(cluster.client.get(SECRET)["data"])
    assert found is not None
    return found


def issuer(port: int) -> x509.Name:
    return read_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode()).issuer


def look(cluster: Cluster, count: itertools.count[int]) -> None:
    """Every replica looks when a setting changes that the configurations depend on."""
    cluster.settings(f"podResourceInject: {{namespacesExclude: [n{next(count)}]}}\n")


def test_two_replicas_hand_over_to_the_next_authority(cluster: Cluster) -> None:
    cluster.add_replica()
    first, second = cluster.ports
    old = authority(cluster)
    subject = read_certificate(old.current.certificate).subject
    eventually(lambda: issuer(second) == subject, "the second replica signs with the shared authority")
    assert issuer(first) == subject

    failures: list[str] = []
    done = threading.Event()

    def people() -> None:
        client = cluster.server.client_of(cluster.server.token)
        while not done.is_set():
            try:
                client.request(
                    "POST", f"{OURS}/spiderippools", pool("x", "10.40.0.0/24"), query={"dryRun": "All"}
                )
            except (ApiError, OSError) as error:
                failures.append(str(error))

    thread = threading.Thread(target=people)
    thread.start()
    try:
        count = itertools.count()
        following = new_authority(datetime.now(UTC) - SETTLED + UNTIL_SIGNING)
        stored = cluster.client.get(SECRET)
        trusted = msgspec.structs.replace(old, next=following)
        cluster.client.replace(SECRET, {**stored, "data": trusted.to_secret()})

        def both_trusted() -> bool:
            look(cluster, count)
            entries = cluster.configuration("validating")["webhooks"]
            bundles = {entry["clientConfig"]["caBundle"] for entry in entries}
            return len(bundles) == 1 and len(bundles.pop()) > 1.5 * len(stored["data"]["ca.crt"])

        eventually(both_trusted, "the next one is trusted")

        def signs() -> bool:
            look(cluster, count)
            name = read_certificate(following.certificate).subject
            return issuer(first) == name == issuer(second)

        eventually(signs, "the next one signs at both replicas")
        assert authority(cluster).former == old.current.certificate
        cluster.register(second)
        eventually(lambda: not failures, "and people notice nothing", within_s=1)
    finally:
        done.set()
        thread.join()
    assert not failures
