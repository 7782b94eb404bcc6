"""Images without a registry: an archive as `docker save` writes it, from a folder, and the two small ones that every cluster needs.

Owns the archive's form. Must not know who imports it.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.cluster import build

PAUSE = "localhost/pause:test"
BUSYBOX = "localhost/busybox:test"
_APPLETS = (
    "sh",
    "sleep",
    "ping",
    "ping6",
    "ip",
    "wget",
    "nc",
    "httpd",
    "cat",
    "echo",
    "true",
    "false",
    "ls",
    "hostname",
)
_PAUSE_SOURCE = r"""
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int number) { exit(0); }
static void reap(int number) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
  signal(SIGINT, end); signal(SIGTERM, end); signal(SIGCHLD, reap);
  for (;;) pause();
}
"""


def small_images(folder: Path) -> list[Path]:
    """Archives of PAUSE and BUSYBOX (which sleeps until it is told to end), made in `folder`."""
    pause = folder / "pause"
    pause.mkdir(parents=True)
    command = ["gcc", "-O1", "-static", "-xc", "-", "-o", str(pause / "pause")]
    subprocess.run(command, input=_PAUSE_SOURCE.encode(), check=True)
    busybox = folder / "busybox" / "bin"
    busybox.mkdir(parents=True)
    shutil.copy(build.system_program("busybox", "busybox-static"), busybox / "busybox")
    for applet in _APPLETS:
        (busybox / applet).symlink_to("busybox")
    shutil.copy(pause / "pause", busybox / "pause")
    return [
        write_archive(pause, PAUSE, folder / "pause.tar", ("/pause",)),
        write_archive(busybox.parent, BUSYBOX, folder / "busybox.tar", ("/bin/pause",)),
    ]


def write_archive(root: Path, name: str, archive: Path, entrypoint: tuple[str, ...]) -> Path:
    """One layer that is `root`; returns `archive`, which `ctr images import` takes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        for entry in sorted(root.iterdir()):
            layer.add(entry, arcname=entry.name)
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{digest}/layer.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]).encode()
    with tarfile.open(archive, "w") as image:
        for file_name, content in (
            (config_name, config),
            (layer_name, packed.getvalue()),
            ("manifest.json", manifest),
        ):
            entry = tarfile.TarInfo(file_name)
            entry.size = len(content)
            image.addfile(entry, io.BytesIO(content))
    return archive
