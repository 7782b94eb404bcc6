"""The command line as a process: help, wrong usage, and a system that is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.cli.__main__ import application
from services.cli.manual import COMMANDS
from shared.failpoint import POINTS


def orbweaver(
    *words: str, stdin: str = "", cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "COLUMNS": "100", **variables}
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env=environment,
        cwd=cwd,
    )


def test_help_names_every_command_and_imports_none() -> None:
    started = time.monotonic()
    done = orbweaver("--help")
    took_s = time.monotonic() - started
    assert (done.returncode, done.stderr) == (0, "")
    for command in COMMANDS:
        assert f" {command.name.split()[0]} " in done.stdout
    # Half a second on a quiet machine; tests share it.
    assert took_s < 2
    modules = "import sys; from services.cli.__main__ import run; run(['--help']); print(sorted(sys.modules))"
    listed = subprocess.run(
        [sys.executable, "-c", modules], capture_output=True, text=True, check=True
    ).stdout
    assert "'nats'" not in listed
    assert "'services.standalone.app'" not in listed


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_each_command_is_there_and_explains_itself(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    name: str = command.name  # type: ignore[attr-defined]
    application()([*name.split(), "--help"], exit_on_error=False, result_action="return_value")
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: orbweaver {name}")
    if name != "version":
        assert f"    orbweaver {name}" in shown


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["frob"], 'Unknown command "frob"'),
        (["get"], "requires an argument"),
        (["get", "pods", "-o", "xml"], "xml"),
        (["get", "pods", "a", "sp/b"], "KIND/NAME"),
        (["get", "prod/pods/a"], "KIND/NAME"),
        (["get", "pods,"], "empty"),
        (["get", "pods,traces"], "traces are shown alone"),
        (["get", "traces", "--pool", "v4"], "--pool"),
        (["get", "attachments", "--pool", "v4"], "--pool"),
        (["get", "leases", "--pod", "prod/web-1", "-n", "shop"], "namespace shop"),
        (["up", "--manifests", ".", "--node", "a", "--node", "a=x"], "twice"),
        (["up", "--manifests", ".", "--node", "=x"], "no name"),
        (["up", "--manifests", ".", "--node", "a="], "network namespace after"),
        (["up", "--manifests", ".", "--node", "a b"], "none of them a space"),
        (["get", "pods", "--frob"], "Unknown option"),
        (["get", "leases", "--pod", "web-1"], "NAMESPACE/NAME"),
        (["get", "pods", "--pool", "v4"], "--pool"),
        (["up"], "--manifests"),
        (["explain", "node", "a/b"], "node"),
        (["explain", "pod", "web-1"], "NAMESPACE/NAME"),
        (["who", "10.0.0.300"], "10.0.0.300"),
        (["validate"], "--delete"),
        (["validate", "--delete", "Gadget/x"], "Gadget"),
        (["validate", "--delete", "SpiderIPPool/a/b"], "NAME"),
        (["cni", "install"], "--dir"),
        (["sync", "--timeout", "soon"], "soon"),
    ],
)
def test_wrong_usage_exits_2_with_one_complaint_on_stderr(
    words: list[str], complaint: str, tmp_path: Path
) -> None:
    done = orbweaver(*words, ORBWEAVER_STATE=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [[], ["cni"]])
def test_no_command_shows_help(words: list[str]) -> None:
    done = orbweaver(*words)
    assert done.returncode == 0
    assert "Usage: orbweaver" in done.stdout


def test_the_version_in_both_spellings() -> None:
    done = orbweaver("--version")
    assert (done.returncode, done.stdout) == (0, orbweaver("version").stdout)
    assert done.stdout.startswith("orbweaver ")


@pytest.mark.parametrize(
    "words",
    [
        ["get", "pods"],
        ["get", "leases", "-o", "json"],
        ["get", "traces"],
        ["who", "10.0.0.1"],
        ["explain", "pod", "a/b"],
        ["doctor"],
        ["status"],
        ["sync"],
        ["cni", "install", "--dir", "bin"],
    ],
)
def test_a_system_that_is_not_there_is_one_sentence_and_exit_1(words: list[str], tmp_path: Path) -> None:
    done = orbweaver(*words, "--state", str(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert str(tmp_path) in done.stderr
    assert "orbweaver up" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


POOL = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: v4}
spec:
  subnet: 10.6.0.0/24
  ips: [10.6.0.10-10.6.0.19]
"""


def test_validate_alone_shows_the_object_with_its_defaults(tmp_path: Path) -> None:
    done = orbweaver("validate", "-f", "-", stdin=POOL)
    assert done.returncode == 0, done.stderr
    assert '"valid": true' in done.stdout
    assert '"ipVersion": 4' in done.stdout
    file = tmp_path / "pool.yaml"
    file.write_text(POOL.replace("10.6.0.19", "10.7.0.19").replace("/24", "/99"))
    done = orbweaver("validate", "-f", str(file))
    assert done.returncode == 1
    assert '"valid": false' in done.stdout
    assert '"field": "spec.subnet"' in done.stdout
    missing = orbweaver("validate", "-f", str(tmp_path / "none.yaml"))
    assert missing.returncode == 1
    assert "none.yaml" in missing.stderr


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    command = f"{sys.executable} -m services.cli get --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_every_failpoint_is_listed() -> None:
    listed = json.loads(orbweaver("failpoints", "-o", "json").stdout)
    assert listed == [
        {"name": name, "drops": point.drops, "stands": point.stands} for name, point in POINTS.items()
    ]
    table = orbweaver("failpoints").stdout
    assert all(f"\n{name} " in table for name in POINTS)
