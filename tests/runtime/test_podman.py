"""podman, which knows nothing of Kubernetes: two containers on the machine itself, through the conflist that we install."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.standalone import demo_netns
from services.standalone.demo_system import System
from tests.runtime.conftest import MACHINE, PARENT, PLACE, nothing_held

_CGROUPS = Path("/sys/fs/cgroup")
_CONFIGURATION = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "unlimited"
tmp_dir = "{root}/tmp"
static_dir = "{root}/static"
volume_path = "{root}/volumes"
[engine.runtimes]
unlimited = ["{runtime}"]
[network]
network_backend = "cni"
network_config_dir = "{root}/net.d"
cni_plugin_dirs = ["{plugins}"]
"""


@dataclass
class Podman:
    """podman with everything it keeps below `root`."""

    root: Path

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            [
                "podman",
                "--root",
                f"{self.root}/storage",
                "--runroot",
                f"{self.root}/run",
                "--storage-driver",
                "vfs",
                *words,
            ],
            env={**os.environ, "CONTAINERS_CONF": f"{self.root}/containers.conf"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60.0,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.strip()

    def start(self, name: str) -> str:
        return self(
            "run",
            "--detach",
            "--name",
            name,
            "--network",
            "underlay",
            "--rootfs",
            f"{self.root}/rootfs",
            "sleep",
            "600",
        )


@pytest.fixture
def podman(system: System) -> Iterator[Podman]:
    # Not below pytest's own directory: conmon's socket paths must stay short.
    root = PLACE.root / "podman"
    root.mkdir()
    plugins, network = root / "plugins", root / "net.d"
    network.mkdir()
    system.install(MACHINE, plugins, "--conflist", str(network / "10-underlay.conflist"), "--parent", PARENT)
    runtime = Path(__file__).with_name("runc-unlimited")
    (root / "containers.conf").write_text(_CONFIGURATION.format(root=root, runtime=runtime, plugins=plugins))
    for directory in ("bin", "dev", "etc", "proc", "run", "sys", "tmp"):
        (root / "rootfs" / directory).mkdir(parents=True)
    shutil.copy2("/usr/bin/busybox", root / "rootfs" / "bin")
    for applet in ("sh", "sleep", "ping", "ip"):
        (root / "rootfs" / "bin" / applet).symlink_to("busybox")
    groups, kept = set(_CGROUPS.glob("*/libpod_parent")), Path("/var/lib/cni").exists()
    podman = Podman(root)
    try:
        yield podman
    finally:
        podman("rm", "--all", "--force", "--time", "0")
        demo_netns.run("find", str(root), "-xdev", "-depth", "-delete")
        _remove_cgroups(set(_CGROUPS.glob("*/libpod_parent")) - groups)
        if not kept:
            shutil.rmtree("/var/lib/cni", ignore_errors=True)


def _remove_cgroups(groups: set[Path]) -> None:
    """podman leaves its parent groups, which are empty now; a cgroup directory is removed by rmdir, files and all."""
    for group in groups:
        for inner in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
            inner.rmdir()
        group.rmdir()


def test_two_containers_ping_each_other(system: System, podman: Podman) -> None:
    names = ("orbrt-a", "orbrt-b")
    addresses: dict[str, list[str]] = {}
    for name in names:
        podman.start(name)
        links = json.loads(
            demo_netns.run(
                "nsenter",
                "-t",
                podman("inspect", "-f", "{{.State.Pid}}", name),
                "-n",
                "ip",
                "-j",
                "addr",
                "show",
                "dev",
                "eth0",
            )
        )
        addresses[name] = [a["local"] for a in links[0]["addr_info"] if a["scope"] == "global"]
        assert len(addresses[name]) == 2
    for name, other in (names, names[::-1]):
        for address in addresses[other]:
            podman("exec", name, "ping", "-c", "1", "-W", "3", address)
    leases = system.get("leases")
    assert {lease["address"].partition("/")[0] for lease in leases} == {
        a for both in addresses.values() for a in both
    }
    assert {lease["node"] for lease in leases} == {MACHINE}
    podman("rm", "--force", "--time", "0", *names)
    nothing_held(system)
