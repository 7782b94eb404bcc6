"""What Tilt makes of the Tiltfile, done to a real cluster by hand: the manifests that it applies run, changed sources go into their
containers, the ports that it forwards answer, and the scripts behind its buttons work."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import ssl
import subprocess
import tarfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.cluster import build
from tests.support.kube_cluster import Cluster, await_true
from tests.support.kube_installation import NAMESPACE, TAGS, Installation, build_image
from tests.support.kube_process import Program
from tests.support.kube_space import Space
from tests.support.kube_workload import deployment
from tests.tidy.test_tilt import TILT, Tilt

_MARK = "CHANGED_BY_TILT = True\n"


class LabTilt(Tilt):
    """Its kustomization is the overlay with what a cluster of the lab needs beside."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def record(self, name: str, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if name == "kustomize":
            assert positional == ("../deploy/overlays/dev",)
            return super().record(name, (str(self._folder),), named)
        return super().record(name, positional, named)


class Developed(Installation):
    """Applied as Tilt does it."""

    tilt: Tilt

    def apply_overlay(self, tag: str, *options: str) -> None:
        super().apply_overlay(tag, "--dry-run=client")
        self.tilt = LabTilt(self.directory)
        self.tilt.run()
        (applied,) = self.tilt.of("k8s_yaml")
        self.cluster.server.kubectl("apply", "-f", "-", stdin=applied["yaml"])

    def containers(self) -> list[tuple[str, str]]:
        """Pod and container of each that runs, whose image Tilt would update."""
        return [
            (pod["metadata"]["name"], container["name"])
            for pod in self.cluster.pods(NAMESPACE)
            for container in pod["spec"]["containers"]
        ]


@pytest.fixture(scope="module")
def developed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Developed]:
    directory = tmp_path_factory.mktemp("tilt")
    archive = build_image(directory / "image.tar", TAGS[0])
    with Cluster(directory / "cluster", nodes=1) as cluster, Developed(cluster, [archive]) as system:
        yield system


def test_changed_sources_go_into_running_containers_whose_services_start_again(developed: Developed) -> None:
    (image,) = developed.tilt.of("docker_build")
    syncs = {
        step["local_path"]: step["remote_path"] for step in image["live_update"] if step["call"] == "sync"
    }
    run = image["live_update"][-1]["cmd"]
    local = "../shared"
    changed = (TILT / local / "__init__.py").read_text() + _MARK
    archive = _tar({f"{syncs[local]}/__init__.py": changed})
    before = {key: _pid(developed, *key) for key in developed.containers()}
    assert {container for _, container in before} >= {
        "nats",
        "allocator",
        "controller",
        "webhook",
        "leaf",
        "agent",
    }
    assert len(set(before.values())) > 1
    for pod, container in before:
        # As Tilt does both: it has `tar` read the archive from its input, and a shell run the step.
        developed.cluster.server.kubectl(
            "-n",
            NAMESPACE,
            "exec",
            "-i",
            pod,
            "-c",
            container,
            "--",
            "sh",
            "-c",
            "base64 -d | tar -C / -x -f -",
            stdin=archive,
        )
        developed.kubectl("exec", pod, "-c", container, "--", "sh", "-c", run)
    for pod, container in before:
        await_true(
            f"{pod}/{container} has started again",
            lambda pod=pod, container=container: _pid(developed, pod, container) != before[pod, container],
        )
        said = developed.kubectl(
            "exec",
            pod,
            "-c",
            container,
            "--",
            "python3",
            "-P",
            "-c",
            "import shared; print(shared.CHANGED_BY_TILT)",
        )
        assert said.strip() == "True"
    assert set(before) == set(developed.containers()), "no pod is another"
    developed.await_rollout()
    restarts = [
        status["restartCount"]
        for pod in developed.cluster.pods(NAMESPACE)
        for status in pod["status"]["containerStatuses"]
    ]
    assert set(restarts) == {0}
    space = Space(developed.cluster, developed)
    space.apply(deployment("web", 3))
    space.await_pods(3)
    assert space.unreachable() == []
    space.delete()


def test_ports_that_are_forwarded_answer(developed: Developed, tmp_path: Path) -> None:
    kinds = {name.rpartition("/")[2]: name for name in developed.workloads()}
    for resource in developed.tilt.of("k8s_resource"):
        secure = {
            one["url"].removeprefix("https://localhost:").partition("/")[0]: one["url"]
            for one in resource["links"]
        }
        for forward in resource["port_forwards"]:
            with _forwarded(
                developed, kinds[resource["workload"]], forward["container_port"], tmp_path
            ) as port:
                if url := secure.get(str(forward["local_port"])):
                    address = url.replace(str(forward["local_port"]), str(port))
                    context = ssl.create_default_context()
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                    answer = urlopen(address, timeout=10, context=context)
                else:
                    answer = urlopen(f"http://localhost:{port}/{forward['link_path']}", timeout=10)
                with answer:
                    assert answer.status == 200 and answer.read(), resource["workload"]


def test_the_scripts_behind_the_buttons_work(developed: Developed) -> None:
    environment = {
        **os.environ,
        "KUBECONFIG": str(developed.cluster.server.kubeconfig),
        "PATH": f"{build.programs()}:{os.environ['PATH']}",
        "SEEDS": "1",
    }

    def act(script: str) -> str:
        done = subprocess.run(
            ["bash", f"actions/{script}"],
            cwd=TILT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "10.232." in act("attach").splitlines()[-1]
    assert "underlay-v4" in act("explain")
    await_true("a trace of the attach", lambda: "cni ADD" in act("traces"))
    act("detach")
    act("simulate")


def _pid(system: Developed, pod: str, container: str) -> str:
    (image,) = system.tilt.of("docker_build")
    path = image["live_update"][-1]["cmd"].removeprefix("kill -TERM $(cat ").removesuffix(")")
    return system.kubectl("exec", pod, "-c", container, "--", "cat", path, check=False).strip()


def _tar(files: dict[str, str]) -> str:
    """As base64. Owner and group are 0, as Tilt sets them."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size = len(text.encode())
            entry.mtime = 2_000_000_000
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    return base64.b64encode(content.getvalue()).decode()


@contextlib.contextmanager
def _forwarded(system: Developed, workload: str, port: int, directory: Path) -> Generator[int]:
    """The port on this machine behind which the workload's is."""
    log = directory / f"{workload.replace('/', '-')}-{port}.log"
    kubectl = str(build.programs() / "kubectl")
    argv = [kubectl, "--kubeconfig", str(system.cluster.server.kubeconfig), "-n", NAMESPACE]
    program = Program([*argv, "port-forward", workload, f":{port}"], log)
    program.start()
    try:
        await_true(
            f"{workload} is forwarded",
            lambda: "Forwarding from 127.0.0.1:" in program.tail(),
            why=program.tail,
        )
        yield int(program.tail().partition("Forwarding from 127.0.0.1:")[2].partition(" ")[0])
    finally:
        program.stop(kill=True)
