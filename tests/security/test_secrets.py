"""No secret leaves the files that hold it, and nobody but root reads those: over a whole life of a pod."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.standalone import demo_exec
from services.standalone.demo_system import marked
from services.standalone.layout import Layout
from tests.integration.cli.stage import NETWORK, NODES, Stage
from tests.security.attacker import Attacker

SHORTEST = 20
"""A generated password has 43 characters; shorter members of credentials.json are names."""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, str):
        yield value


@pytest.fixture(scope="module")
def layout(stage: Stage) -> Layout:
    return Layout(stage.system.state)


@pytest.fixture(scope="module")
def secrets(layout: Layout) -> list[bytes]:
    found = [text.encode() for text in _texts(json.loads(layout.credentials_file.read_text()))]
    key = (layout.certificates / "tls.key").read_bytes().splitlines()[1]
    found.append(key)
    assert len(found) > 10 and all(len(secret) >= SHORTEST for secret in found)
    return found


@pytest.fixture(scope="module")
def life(stage: Stage) -> dict[str, str]:
    """Everything that commands print while pods come and go, the failures included."""
    printed: dict[str, str] = {}
    attached = [stage.attach("web-1"), stage.attach("web-2")]
    for one in attached:
        assert stage.call("CHECK", one).exit_code == 0
    for words in (
        ("status",),
        ("status", "-o", "json"),
        ("get", "traces", "-o", "json"),
        ("get", "events", "-o", "json"),
        ("get", "leases", "-o", "json"),
        ("get", "attachments", "-o", "json"),
        ("get", "pods", "-o", "json"),
        ("explain", "pod", "prod/web-1", "-o", "json"),
        ("doctor",),
        ("doctor", "-o", "json"),
        ("sync",),
    ):
        done = stage.cli(*words)
        printed[" ".join(words)] = done.stdout + done.stderr
    for trace in stage.items("traces")[-3:]:
        printed[trace["traceID"]] = stage.done("get", "traces", trace["traceID"], "-o", "json")
    for one in attached:
        stage.detach(one)
        stage.lab.remove(one.netns)
    return printed


def test_what_commands_print(life: dict[str, str], secrets: list[bytes]) -> None:
    for words, text in life.items():
        assert text, words
        assert not [secret for secret in secrets if secret in text.encode()], words


def test_what_services_log(stage: Stage, layout: Layout, life: dict[str, str], secrets: list[bytes]) -> None:
    logs = [stage.system.up_log, *layout.log.iterdir()]
    assert len(logs) > len(NODES) * 3
    for log in logs:
        text = log.read_bytes()
        assert not [secret for secret in secrets if secret in text], log


def test_what_metrics_and_health_tell(attacker: Attacker, life: dict[str, str], secrets: list[bytes]) -> None:
    for entry in attacker.system.services:
        for path in ("metrics", "healthz", "readyz") if entry.http else ():
            with urllib.request.urlopen(f"http://{entry.http}/{path}", timeout=5) as answer:
                text = answer.read()
            assert not [secret for secret in secrets if secret in text], (entry.instance, path)


def test_what_processes_show(stage: Stage, life: dict[str, str], secrets: list[bytes]) -> None:
    processes = marked(stage.system.state.parent)
    assert len(processes) > len(NODES) * 3
    for process in processes:
        for name in ("cmdline", "environ", "comm"):
            text = Path(f"/proc/{process.pid}/{name}").read_bytes()
            assert not [secret for secret in secrets if secret in text], (process, name)


def test_which_files_hold_secrets(layout: Layout, life: dict[str, str], secrets: list[bytes]) -> None:
    """Settings, the servers' configurations, the key: no journal, no stream, no mark."""
    for path in layout.state.rglob("*"):
        if (
            path.is_file()
            and path != layout.shim_netns
            and any(secret in path.read_bytes() for secret in secrets)
        ):
            assert path.parent == layout.conf or path == layout.certificates / "tls.key", path


def test_nobody_else_reads_the_state(layout: Layout, life: dict[str, str]) -> None:
    for path in (layout.state, *layout.state.rglob("*")):
        if path == layout.shim_netns:
            continue  # a namespace is mounted there, which has a mode of its own
        found = path.lstat()
        assert found.st_uid == 0, path
        others = 0o033 if path.suffix == ".crt" else 0o077
        assert not stat.S_IMODE(found.st_mode) & others, f"{path} has mode {stat.S_IMODE(found.st_mode):o}"
        assert not path.is_symlink(), path


def test_nobody_else_reads_the_plugins_credential(stage: Stage, secrets: list[bytes]) -> None:
    directory = stage.system.state.parent / "bin" / NODES[0]
    files = {path.name: path for path in directory.iterdir()}
    assert stat.S_IMODE(files.pop("orbweaver.json").stat().st_mode) == 0o600
    for path in files.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        assert not any(secret in path.read_bytes() for secret in secrets), path


def test_a_refused_credential_is_not_told(stage: Stage, tmp_path: Path) -> None:
    directory = tmp_path / "bin"
    shutil.copytree(stage.system.state.parent / "bin" / NODES[0], directory)
    config = json.loads((directory / "orbweaver.json").read_text())
    config["password"] = wrong = "w" * 43
    (directory / "orbweaver.json").write_text(json.dumps(config))
    variables = demo_exec.environment("ADD", container_id="c1", netns="/run/netns/none")
    answer = demo_exec.call(directory / "orbweaver", variables, json.dumps(NETWORK).encode())
    assert json.loads(answer.stdout)["code"] == 116
    assert wrong.encode() not in answer.stdout + answer.stderr
    for log in Layout(stage.system.state).log.iterdir():
        assert wrong.encode() not in log.read_bytes(), log


_AS_NOBODY = """\
import contextlib, io, os, sys
from services.cli.__main__ import run
with contextlib.redirect_stdout(io.StringIO()):
    assert run(sys.argv[1:]) == 0
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(run(sys.argv[1:]))
"""
"""Root's own question comes first and loads what the command needs: the other user may not be able to read our sources."""


def test_root_alone_asks(stage: Stage) -> None:
    """Without the state directory there is no credential: another user's command ends with a sentence, and no password."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _AS_NOBODY, "status"],
        env={**stage.system.environment, "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
