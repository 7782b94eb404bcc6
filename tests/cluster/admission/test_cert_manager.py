"""The webhook with a certificate of somebody else's, as the component cert-manager has it: the certificate comes as a Secret of type
kubernetes.io/tls, the kubelet brings it to the folder, another one writes the caBundle. These three are played here, each at its own pace;
the API server, its TLS and the webhook are real."""

from __future__ import annotations

import base64
import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.webhook.certificate import read_certificate
from tests.cluster.admission.conftest import (
    NAMESPACE,
    OURS,
    REGISTRATION,
    Cluster,
    eventually,
    pool,
    standing,
)
from tests.support.kube_client import ApiError
from tests.support.kube_pki import Authority

SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
SECRET = "orbweaver-webhook-tls"
KINDS = ("validating", "mutating")
HOSTS = ("127.0.0.1", f"orbweaver-webhook.{NAMESPACE}.svc")
KUBELET_S = 3.0
"""So much later than the Secret the folder has it; in a cluster a minute or more."""


def texts(pair: dict[str, Path]) -> dict[str, str]:
    return {key: base64.b64encode(path.read_bytes()).decode() for key, path in pair.items()}


class Issuer:
    """What cert-manager and its cainjector do."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self._cluster = cluster
        self._directory = directory
        self._number = 0
        self.authority = Authority(directory / "ca-0")

    def issue(self) -> None:
        """The next certificate of the same authority, as a Secret."""
        self._number += 1
        name = f"tls-{self._number}"
        self.authority.issue(name, "orbweaver-webhook", hosts=HOSTS)
        files = {
            "ca.crt": self.authority.ca_file,
            "tls.crt": self.authority.certificate(name),
            "tls.key": self.authority.key(name),
        }
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": NAMESPACE},
            "type": "kubernetes.io/tls",
            "data": texts(files),
        }
        self._cluster.client.apply(f"{SECRETS}/{SECRET}", body)

    def inject(self) -> None:
        """cert-manager.io/inject-ca-from: whatever else stands there as caBundle is put right."""
        bundle = self._cluster.client.get(f"{SECRETS}/{SECRET}")["data"]["ca.crt"]
        for kind in KINDS:
            found = self._cluster.configuration(kind)
            if any(entry["clientConfig"].get("caBundle") != bundle for entry in found["webhooks"]):
                for entry in found["webhooks"]:
                    entry["clientConfig"]["caBundle"] = bundle
                with contextlib.suppress(ApiError):  # somebody was faster
                    self._cluster.client.replace(
                        f"{REGISTRATION}/{kind}webhookconfigurations/orbweaver", found
                    )


def project(cluster: Cluster, folder: Path) -> None:
    """As the kubelet mounts a Secret: a folder of its own for each content, exchanged by one rename."""
    data = cluster.client.get(f"{SECRETS}/{SECRET}")["data"]
    fresh = folder / f"..{time.monotonic_ns()}"
    fresh.mkdir(parents=True)
    for key, text in data.items():
        (fresh / key).write_bytes(base64.b64decode(text))
    (folder / "..new").symlink_to(fresh.name)
    (folder / "..new").rename(folder / "..data")
    for key in data:
        if not (folder / key).is_symlink():
            (folder / key).symlink_to(f"..data/{key}")


@contextlib.contextmanager
def again_and_again(do: Callable[[], None]) -> Iterator[None]:
    done = threading.Event()

    def run() -> None:
        while not done.wait(0.1):
            do()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with standing(tmp_path_factory) as found:
        found.client.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        yield found


def serial(port: int) -> int:
    return read_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode()).serial_number


def generations(cluster: Cluster) -> list[Any]:
    return [cluster.configuration(kind)["metadata"]["generation"] for kind in KINDS]


def test_a_certificate_of_somebody_else(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    issuer = Issuer(cluster, tmp_path / "issuer")
    issuer.issue()
    project(cluster, folder)
    cluster.install(folder)
    failures: list[str] = []

    def apply() -> None:
        """A change of a pool, which nobody may make without the webhook."""
        client = cluster.server.client_of(cluster.server.token)
        try:
            client.request(
                "POST", f"{OURS}/spiderippools", pool("x", "10.41.0.0/24"), query={"dryRun": "All"}
            )
        except (ApiError, OSError) as error:
            failures.append(str(error))
        finally:
            client.close()

    with again_and_again(issuer.inject):
        eventually(lambda: not failures_of(apply, failures), "a pool is judged")
        # Nobody writes over what the injector wrote.
        before = generations(cluster)
        time.sleep(3.0)
        assert generations(cluster) == before
        with again_and_again(apply):
            for _ in range(2):
                old = serial(cluster.ports[0])
                issuer.issue()
                time.sleep(KUBELET_S)
                project(cluster, folder)
                eventually(lambda old=old: serial(cluster.ports[0]) != old, "the new certificate is served")
        assert failures == []
        assert generations(cluster) == before
        # Another authority: what the folder has of the old one must not come back over what the injector wrote.
        issuer.authority = Authority(tmp_path / "issuer" / "ca-1", "the next authority")
        issuer.issue()
        time.sleep(KUBELET_S)
        assert generations(cluster) == [number + 1 for number in before]
        project(cluster, folder)
        eventually(lambda: not failures_of(apply, failures), "a pool is judged")
        # An administrator applies the manifests again, which have no caBundle.
        cluster.register(cluster.ports[0])
        eventually(lambda: not failures_of(apply, failures), "a pool is judged")
    assert not cluster.client.exists(f"{SECRETS}/orbweaver-webhook-ca"), "no authority of our own"


def failures_of(apply: Callable[[], None], failures: list[str]) -> list[str]:
    """Those of one try."""
    failures.clear()
    apply()
    found = list(failures)
    failures.clear()
    return found
