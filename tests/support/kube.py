"""A real Kubernetes API server for tests: etcd and kube-apiserver, on an address of their own, everything below one directory.

    from tests.support.kube import api_server          # one for the session, 2 to 5 s
    from tests.support.kube import fresh_api_server    # one for each test; below tests/cluster both are there already

    def test_it(api_server: ApiServer) -> None:
        api_server.client.create("/api/v1/namespaces", {"metadata": {"name": "a"}})   # the admin
        api_server.kubectl("apply", "-f", "-", stdin=MANIFESTS)
        Settings(kubeconfig=str(api_server.kubeconfig))                                # or url, ca_file, token
        as_service = api_server.client_of(api_server.service_account_token("kube-system", "name"))

Owns the control plane's processes. Must not know nodes. Every process listens on a loopback address drawn at random, so servers of
several test processes do not meet; the programs are built when they are missing (tests/cluster/build.py).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import build
from tests.support.kube_client import ApiError, Client
from tests.support.kube_pki import Authority, write_key_pair
from tests.support.kube_process import Program

START_S = 90.0
_PORT = 6443
_ETCD_PORT, _ETCD_PEER_PORT = 2379, 2380
_SERVICES = "10.96.0.0/16"
_SERVICES_FIRST = "10.96.0.1"
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ApiServer:
    """The control plane. `controllers` adds kube-controller-manager (and the admission of service accounts), `scheduler` the scheduler;
    `audit` keeps one line a request. `address` is where the API server listens, a loopback address of its own when empty."""

    def __init__(
        self,
        directory: Path,
        *,
        address: str = "",
        controllers: bool = False,
        scheduler: bool = False,
        audit: bool = False,
        flags: tuple[str, ...] = (),
        controller_flags: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self._loopback = _own_loopback()
        self.address = address or self._loopback
        self.url = f"https://{self.address}:{_PORT}"
        self.pki = Authority(directory / "pki")
        self.ca_file = self.pki.ca_file
        self.token = os.urandom(16).hex()
        self.kubeconfig = directory / "admin.kubeconfig"
        self.client = Client(self.url, self.ca_file, self.token)
        self._clients = [self.client]
        self._programs = build.programs()
        self._controllers = controllers
        self._audit = audit
        self._flags = flags
        self._write_files()
        self.etcd = self._etcd()
        self.api = self._api()
        self.others = [
            *([self._controller_manager(controller_flags)] if controllers else []),
            *([self._scheduler()] if scheduler else []),
        ]

    @property
    def etcd_url(self) -> str:
        return f"http://{self._loopback}:{_ETCD_PORT}"

    def start(self) -> None:
        """Returns when the server is ready and the namespace `default` exists. Raises RuntimeError with the log of what failed."""
        try:
            self.start_etcd()
            self.start_api()
            for program in self.others:
                program.start()
            self._await_namespace()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Nothing is kept: SIGKILL. kube-apiserver may otherwise wait 15 s for watches to end."""
        for client in self._clients:
            client.close()
        for program in (*reversed(self.others), self.api, self.etcd):
            program.stop(kill=True)
        # Hundreds of MB of preallocated log that no later look needs.
        shutil.rmtree(self.directory / "etcd", ignore_errors=True)

    def start_etcd(self) -> None:
        self.etcd.start()
        self._await("etcd", self.etcd, lambda: _listens(self._loopback, _ETCD_PORT))

    def start_api(self) -> None:
        self.api.start()
        self._await("kube-apiserver", self.api, lambda: self.client.text("/readyz") == "ok")

    def stop_api(self) -> None:
        """The API is away until `start_api`; etcd keeps what it has."""
        self.api.stop(kill=True)

    def save(self, copy: Path) -> None:
        """Copies etcd's files as they are at one moment."""
        self.etcd.signal(signal.SIGSTOP)
        try:
            shutil.copytree(self.directory / "etcd", copy)
        finally:
            self.etcd.signal(signal.SIGCONT)

    def restore(self, copy: Path) -> None:
        """Puts a `save` back, as a restored backup would be: everything since is forgotten, revisions included."""
        self.stop_api()
        self.etcd.stop(kill=True)
        shutil.rmtree(self.directory / "etcd")
        shutil.copytree(copy, self.directory / "etcd")
        self.start_etcd()
        self.start_api()

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """What kubectl prints as the admin. Raises AssertionError with its complaint unless `check` is off: then both are returned."""
        done = subprocess.run(
            [str(self._programs / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "KUBECACHEDIR": str(self.directory / "kubectl-cache"),
                "HOME": str(self.directory),
            },
        )
        if check:
            assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
            return done.stdout
        return done.stdout + done.stderr

    def client_of(self, token: str) -> Client:
        client = Client(self.url, self.ca_file, token)
        self._clients.append(client)
        return client

    def service_account_token(self, namespace: str, name: str, **spec: Any) -> str:
        """A token as a pod of this service account has it; `spec` is of TokenRequest (audiences, boundObjectRef)."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        return self.client.create(path, {"spec": spec})["status"]["token"]

    def write_kubeconfig(
        self, path: Path, *, token: str = "", certificate: str = "", server: str = ""
    ) -> Path:
        """For a token, or for what `pki.issue(certificate, …)` made."""
        user: dict[str, str] = {"token": token}
        if certificate:
            user = {
                "client-certificate": str(self.pki.certificate(certificate)),
                "client-key": str(self.pki.key(certificate)),
            }
        cluster = {"server": server or self.url, "certificate-authority": str(self.ca_file)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(document))
        path.chmod(0o600)
        return path

    def audit(self) -> Iterator[dict[str, Any]]:
        """Every request that ended so far, as audit.k8s.io/v1 Events: `verb`, `userAgent`, `user`, `objectRef`, `requestURI`."""
        assert self._audit, "ApiServer(audit=True) keeps the audit log"
        for line in (self.directory / "audit.log").read_text().splitlines():
            yield json.loads(line)

    def _write_files(self) -> None:
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        hosts = (*names, "127.0.0.1", _SERVICES_FIRST, self._loopback, self.address)
        self.pki.issue("apiserver", "kube-apiserver", hosts=tuple(dict.fromkeys(hosts)))
        self.pki.issue("kubelet-client", "kubelet-client", groups=("system:masters",))
        self.pki.issue("controllers", "system:kube-controller-manager")
        self.pki.issue("scheduler", "system:kube-scheduler")
        write_key_pair(self.pki.key("tokens"), self.directory / "pki" / "tokens.pub")
        for name in ("controllers", "scheduler"):
            self.write_kubeconfig(self.directory / f"{name}.kubeconfig", certificate=name)
        self.write_kubeconfig(self.kubeconfig, token=self.token)
        tokens = self.directory / "tokens.csv"
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        tokens.chmod(0o600)
        (self.directory / "audit-policy.json").write_text(json.dumps(_AUDIT_POLICY))

    def _etcd(self) -> Program:
        listen = f"http://{self._loopback}"
        argv = [
            build.system_program("etcd", "etcd-server"),
            "--name=test",
            f"--data-dir={self.directory / 'etcd'}",
            # Tests of ours: what a power cut would take is not what they are about.
            "--unsafe-no-fsync",
            f"--listen-client-urls={listen}:{_ETCD_PORT}",
            f"--advertise-client-urls={listen}:{_ETCD_PORT}",
            f"--listen-peer-urls={listen}:{_ETCD_PEER_PORT}",
            f"--initial-advertise-peer-urls={listen}:{_ETCD_PEER_PORT}",
            f"--initial-cluster=test={listen}:{_ETCD_PEER_PORT}",
        ]
        return Program(argv, self.directory / "etcd.log")

    def _api(self) -> Program:
        pki = self.pki
        argv = [
            str(self._programs / "kube-apiserver"),
            f"--etcd-servers=http://{self._loopback}:{_ETCD_PORT}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={_PORT}",
            f"--tls-cert-file={pki.certificate('apiserver')}",
            f"--tls-private-key-file={pki.key('apiserver')}",
            f"--client-ca-file={pki.ca_file}",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.directory / 'pki' / 'tokens.pub'}",
            f"--service-account-signing-key-file={pki.key('tokens')}",
            f"--service-cluster-ip-range={_SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={pki.certificate('kubelet-client')}",
            f"--kubelet-client-key={pki.key('kubelet-client')}",
            f"--kubelet-certificate-authority={pki.ca_file}",
            "--kubelet-preferred-address-types=InternalIP",
        ]
        if not self._controllers:
            # Nobody makes the account `default` of a namespace, so pods could not be created.
            argv.append("--disable-admission-plugins=ServiceAccount")
        if self.address == self._loopback:
            # A loopback address may not be an endpoint of the Service `kubernetes`.
            argv.append("--endpoint-reconciler-type=none")
        if self._audit:
            argv += [
                f"--audit-policy-file={self.directory / 'audit-policy.json'}",
                f"--audit-log-path={self.directory / 'audit.log'}",
            ]
        return Program([*argv, *self._flags], self.directory / "apiserver.log")

    def _controller_manager(self, flags: tuple[str, ...]) -> Program:
        argv = [
            *self._controller_argv("kube-controller-manager", "controllers", 10257),
            f"--service-account-private-key-file={self.pki.key('tokens')}",
            f"--root-ca-file={self.ca_file}",
            "--use-service-account-credentials=true",
            "--controllers=*,-nodeipam,-cloud-node-lifecycle",
            *flags,
        ]
        return Program(argv, self.directory / "controllers.log")

    def _scheduler(self) -> Program:
        return Program(
            self._controller_argv("kube-scheduler", "scheduler", 10259), self.directory / "scheduler.log"
        )

    def _controller_argv(self, program: str, user: str, port: int) -> list[str]:
        config = self.directory / f"{user}.kubeconfig"
        return [
            str(self._programs / program),
            *(f"--{use}kubeconfig={config}" for use in ("", "authentication-", "authorization-")),
            f"--bind-address={self._loopback}",
            f"--secure-port={port}",
            "--leader-elect=false",
        ]

    def _await_namespace(self) -> None:
        self._await("namespace default", self.api, lambda: self.client.exists("/api/v1/namespaces/default"))

    def _await(self, what: str, program: Program, ready: Any) -> None:
        deadline = time.monotonic() + START_S
        while True:
            program.assert_running()
            try:
                if ready():
                    return
            except (OSError, ApiError):
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} is not there after {START_S:.0f} s:\n{program.tail()}")
            time.sleep(0.05)


def namespace(server: ApiServer, prefix: str = "test", labels: Mapping[str, str] | None = None) -> str:
    """A new namespace with a name of its own, so that tests share a server."""
    body = {"metadata": {"generateName": f"{prefix}-", "labels": dict(labels or {})}}
    return server.client.create("/api/v1/namespaces", body)["metadata"]["name"]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("kube"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fresh_api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("kube"))
    server.start()
    yield server
    server.stop()


def _own_loopback() -> str:
    """An address that nobody else listens on: whoever binds a port on all addresses is met by another draw."""
    dice = random.SystemRandom()
    ports = (_PORT, _ETCD_PORT, _ETCD_PEER_PORT)
    for _ in range(100):
        address = f"127.{dice.randint(2, 254)}.{dice.randint(0, 254)}.{dice.randint(1, 254)}"
        if not any(_listens(address, port) for port in ports):
            return address
    raise RuntimeError(
        f"a server of this machine listens on port {' or '.join(map(str, ports))} of every address"
    )


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True
