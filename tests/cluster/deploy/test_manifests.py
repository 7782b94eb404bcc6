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


def rendered(folder: Path) -> list[dict]:
    done = subprocess.run(
        [str(build.programs() / "kubectl"), "kustomize", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def component(name: str, folder: Path) -> list[dict]:
    """The base with one component."""
    # kustomize takes relative paths only.
    up = "/".join([".."] * (len(folder.resolve().parts) - 1))
    (folder / "kustomization.yaml").write_text(
        f"resources: [{up}{DEPLOY}/base]\ncomponents: [{up}{DEPLOY}/components/{name}]\n"
    )
    return rendered(folder)


@pytest.fixture(scope="module")
def prepared(api_server: ApiServer) -> ApiServer:
    """A dry run creates no namespace and no kind for the objects after it."""
    api_server.kubectl("apply", "-k", str(DEPLOY / "crds"))
    api_server.kubectl("apply", "-k", str(DEPLOY / "crds" / "multus"))
    api_server.kubectl("apply", "-f", str(DEPLOY / "base" / "namespace.yaml"))
    for path in build.foreign_definitions():
        definition = yaml.safe_load(path.read_text())
        definition["metadata"] = {
            # The labels are a chart's templates.
            "name": definition["metadata"]["name"],
        }
        api_server.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(definition))
    api_server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
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


@pytest.mark.parametrize("name", sorted(path.name for path in (DEPLOY / "components").iterdir()))
def test_a_component_is_accepted(prepared: ApiServer, name: str, tmp_path: Path) -> None:
    objects = component(name, tmp_path)
    assert dry_run(prepared, objects).count("serverside-applied") == len(objects)


@pytest.mark.parametrize(
    ("name", "kind", "field"),
    [
        ("cert-manager", "Certificate", "dnsName"),
        ("cert-manager", "Issuer", "selfsigned"),
        ("service-monitor", "ServiceMonitor", "endpoint"),
    ],
)
def test_a_misspelt_field_of_an_operators_kind_is_refused(
    prepared: ApiServer, name: str, kind: str, field: str, tmp_path: Path
) -> None:
    one = next(one for one in component(name, tmp_path) if one["kind"] == kind)
    one["spec"][field] = "misspelt"
    with pytest.raises(AssertionError, match=field):
        dry_run(prepared, [one])


def test_a_misspelt_field_is_refused(prepared: ApiServer) -> None:
    """What the other tests rest on: the server looks at every field."""
    objects = rendered(DEPLOY / "overlays" / "dev")
    (agent,) = [
        one for one in objects if one["kind"] == "DaemonSet" and one["metadata"]["name"].endswith("agent")
    ]
    agent["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(AssertionError, match="hostPid"):
        dry_run(prepared, [agent])
