"""Our system as a user installs it: the image built here, `kubectl apply -k` of the development overlay, and its removal.

    with Cluster(directory) as cluster, Installation(cluster, image(), archive) as system: …

Owns building, loading, applying and what an installation leaves. Must not know what is tested.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from services.bus.settings import AUTHORITY_FILE, BUS_CONFIG_MAP, PEER_PREFIX
from services.bus.vault import identity_secret
from shared import subjects
from shared.settings import BusSettings
from tests.support.kube_cluster import Cluster, await_true
from tests.support.kube_ours import ADDRESSES_V4, ADDRESSES_V6, OurSystem
from tests.support.kube_question import Questions
from tests.support.kube_workload import pool

DEPLOY = Path(__file__).parents[2] / "deploy"
NAMESPACE = "orbweaver-system"
TAGS = ("dev", "next")
"""Two images: upgrades go from the first to the second."""
_ROLLOUT = "--timeout=180s"
_KINDS = ("spiderippools", "spidersubnets", "spidermultusconfigs", "spidercoordinators", "spiderreservedips")


def build_image(archive: Path, tag: str) -> Path:
    """The image as an archive that `ctr images import` takes; layers that did not change come from the cache."""
    command = [str(DEPLOY / "images" / "build"), "--tag", f"localhost/orbweaver:{tag}", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return archive


class Installation(OurSystem):
    """`archives` are the images that the nodes get, whose tags `apply_overlay` may name; `overlay` is one of deploy/; `components` are those of deploy/ beside the
    overlay's; `begins_with` are the variables of what an installation begins with."""

    def __init__(
        self,
        cluster: Cluster,
        archives: Sequence[Path],
        *,
        overlay: str = "dev",
        components: Sequence[str] = (),
        begins_with: Mapping[str, str] | None = None,
    ) -> None:
        self.cluster = cluster
        self._overlay = overlay
        # No kube-proxy here: what is in a pod of ours reaches the API server at its own address.
        self._components = ("api-address", *components)
        self._begins_with = begins_with or {}
        self.directory = cluster.directory / "installation"
        self._base = self.directory / "base"
        self._base.mkdir(parents=True)
        self._archives = archives
        self.ask = Questions(self._tools_bus, [node.name for node in cluster.nodes])

    def __enter__(self) -> Self:
        self.load()
        self.apply_overlay(TAGS[0])
        self.await_rollout()
        self.apply(
            pool("underlay-v4", "10.232.0.0/16", ADDRESSES_V4, gateway="10.232.0.1"),
            pool("underlay-v6", "fd00:232::/64", ADDRESSES_V6, gateway="fd00:232::1"),
        )
        self.cluster.await_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The cluster goes with everything in it."""

    def load(self) -> None:
        """Every node has the images."""
        for node in self.cluster.nodes:
            node.load(*self._archives)

    def apply_overlay(self, tag: str, *options: str) -> None:
        """`kubectl apply -k`: the overlay, with this cluster's API server and an image of `archives`."""
        host, _, port = self.cluster.server.url.removeprefix("https://").partition(":")
        deploy = os.path.relpath(DEPLOY, self._base)
        _write_kustomization(
            self._base,
            resources=[f"{deploy}/overlays/{self._overlay}"],
            components=[f"{deploy}/components/{name}" for name in self._components],
        )
        address = {
            "name": "orbweaver-api",
            "namespace": NAMESPACE,
            "behavior": "merge",
            "literals": [f"KUBERNETES_SERVICE_HOST={host}", f"KUBERNETES_SERVICE_PORT={port}"],
        }
        begins_with = {
            "name": "orbweaver-init",
            "namespace": NAMESPACE,
            "literals": [f"{name}={text}" for name, text in self._begins_with.items()],
        }
        _write_kustomization(
            self.directory,
            resources=[self._base.name],
            configMapGenerator=[address, *([begins_with] if self._begins_with else [])],
            # overlays/prod names the image as its user is to replace it.
            images=[
                {"name": name, "newName": "localhost/orbweaver", "newTag": tag}
                for name in ("localhost/orbweaver", "orbweaver")
            ],
        )
        self.cluster.server.kubectl("apply", *options, "-k", str(self.directory))

    def await_rollout(self) -> None:
        """Every workload of ours runs what was applied last."""
        for workload in self.workloads():
            said = self.kubectl("rollout", "status", workload, _ROLLOUT, check=False)
            assert "successfully" in said or "complete" in said, f"{said}\n{self.why()}"

    def workloads(self) -> list[str]:
        return self.kubectl("get", "statefulsets,deployments,daemonsets", "-o", "name").split()

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        return self.cluster.server.kubectl("-n", NAMESPACE, *arguments, check=check)

    def why(self) -> str:
        """What one looks at when something does not start."""
        said = self.kubectl("get", "pods", "-o", "wide", check=False)
        for pod in self.cluster.pods(NAMESPACE):
            name = pod["metadata"]["name"]
            said += f"\n--- {name}\n" + self.kubectl(
                "logs", name, "--all-containers", "--tail=8", check=False
            )
        return said + self.kubectl("get", "events", check=False)[-3000:]

    def uninstall(self) -> None:
        """As docs/deploy.md has it: the objects first, while the controller that keeps their finalizers runs."""
        self.cluster.server.kubectl("delete", ",".join(_KINDS), "--all", "-A", _ROLLOUT)
        self.cluster.server.kubectl("delete", "-k", str(self.directory), _ROLLOUT)

    def _tools_bus(self, node: str) -> BusSettings:
        told = self._data("configmaps", BUS_CONFIG_MAP)
        authority = self.directory / "bus-ca.crt"
        authority.write_text(told[AUTHORITY_FILE])
        secret = self._data("secrets", identity_secret("tools"))
        return BusSettings(
            servers=tuple(url for key, url in told.items() if key.startswith(PEER_PREFIX)),
            user="tools",
            password=base64.b64decode(secret["password"]).decode(),
            inbox_prefix=subjects.tools_inbox(node) if node else subjects.inbox("tools"),
            tls_ca_file=str(authority),
        )

    def _data(self, kind: str, name: str) -> dict[str, Any]:
        path = f"/api/v1/namespaces/{NAMESPACE}/{kind}/{name}"
        await_true(f"{kind} {name} is filled", lambda: "data" in self.cluster.server.client.get(path))
        return self.cluster.server.client.get(path)["data"]


def _write_kustomization(folder: Path, **fields: Any) -> None:
    document = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **fields}
    (folder / "kustomization.yaml").write_text(json.dumps(document))
