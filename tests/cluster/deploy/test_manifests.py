"""A real API server takes everything that deploy/ has, as it is applied: on the server, with every field known."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster import build
from tests.support.kube import ApiServer

DEPLOY = Path(__file__).parents[3] / "deploy"
OVERLAYS = ("dev", "prod")
FOREIGN_GROUPS = ("cert-manager.io/", "monitoring.coreos.com/")
"""Kinds that only the cluster of a user who has these operators knows."""


def rendered(folder: Path) -> list[dict]:
    done = subprocess.run(
        [str(build.programs() / "kubectl"), "kustomize", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@pytest.fixture(scope="module")
def prepared(api_server: ApiServer) -> ApiServer:
    """A dry run creates no namespace and no kind for the objects after it."""
    api_server.kubectl("apply", "-k", str(DEPLOY / "crds"))
    api_server.kubectl("apply", "-k", str(DEPLOY / "crds" / "multus"))
    api_server.kubectl("apply", "-f", str(DEPLOY / "base" / "namespace.yaml"))
    return api_server


def dry_run(server: ApiServer, objects: list[dict]) -> str:
    return server.kubectl(
        "apply",
        "--server-side",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        "-",
        stdin=yaml.safe_dump_all(objects),
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_accepted(prepared: ApiServer, overlay: str) -> None:
    objects = rendered(DEPLOY / "overlays" / overlay)
    said = dry_run(prepared, objects)
    assert said.count("serverside-applied") == len(objects), said


@pytest.mark.parametrize("component", sorted(path.name for path in (DEPLOY / "components").iterdir()))
def test_a_component_is_accepted(prepared: ApiServer, component: str, tmp_path: Path) -> None:
    # kustomize takes relative paths only.
    up = "/".join([".."] * (len(tmp_path.resolve().parts) - 1))
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{up}{DEPLOY}/base]\ncomponents: [{up}{DEPLOY}/components/{component}]\n"
    )
    known = [one for one in rendered(tmp_path) if not one["apiVersion"].startswith(FOREIGN_GROUPS)]
    assert dry_run(prepared, known).count("serverside-applied") == len(known)


def test_a_misspelt_field_is_refused(prepared: ApiServer) -> None:
    """What the other tests rest on: the server looks at every field."""
    objects = rendered(DEPLOY / "overlays" / "dev")
    (agent,) = [
        one for one in objects if one["kind"] == "DaemonSet" and one["metadata"]["name"].endswith("agent")
    ]
    agent["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(AssertionError, match="hostPid"):
        dry_run(prepared, [agent])
