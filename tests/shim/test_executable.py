"""The static executable as a file: where it runs, what it carries, how it is built and put in place."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cni import freeze, install
from tests.shim.conftest import Agent, Installed, Server, free_port, wait_for

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="no compiler: the launcher alone is tested"
)
BUDGET = {"builtins", "sys", "posix", "_socket", "cni.config", "cni.wire", "cni.shim"}
"""Every module of the frozen shim, those of the interpreter itself included."""
FORMS = pytest.mark.parametrize("form", ["static", "python"])
REPORT = "\nimport sys, posix\nposix.write(1, ' '.join(sys.modules).encode())\n"


@pytest.fixture
def installed(tmp_path: Path, server: Server) -> Installed:
    return Installed(tmp_path / "bin", server.address)


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"orbshim-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


def test_it_runs_in_an_empty_chroot(installed: Installed, agent: Agent) -> None:
    def enter() -> None:
        os.chroot(installed.directory)
        os.chdir("/")

    done = subprocess.run(
        ["/coordinator"],
        input=b"{}",
        env={"CNI_COMMAND": "ADD"},
        capture_output=True,
        preexec_fn=enter,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b'{"ok":true}\n', b"")
    assert agent.requests[0][0]["Orb-Name"] == "coordinator"


def test_it_needs_no_library(installed: Installed) -> None:
    headers = subprocess.run(
        ["readelf", "--program-headers", str(installed.directory / "orbweaver")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "INTERP" not in headers
    assert "DYNAMIC" not in headers


def test_from_another_network_namespace_the_leaf_is_reached(
    tmp_path: Path, netns: str, server: Server, agent: Agent
) -> None:
    inside = ("nsenter", f"--net=/run/netns/{netns}")
    own = f"/proc/{os.getpid()}/ns/net"
    lost = Installed(tmp_path / "lost", server.address, deadlines_s={"ADD": 0.3})
    assert lost("ADD", before=inside).error["code"] == 11
    found = Installed(tmp_path / "found", server.address, netns=own)
    assert found("ADD", before=inside).exit_code == 0
    assert found("ADD").exit_code == 0


@FORMS
def test_a_leaf_in_a_node_namespace_is_reached(
    tmp_path: Path, netns: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_form(form, tmp_path, monkeypatch)
    inside = Server(tmp_path, free_port(), enter=("nsenter", f"--net=/run/netns/{netns}"))
    inside.start()
    installed = Installed(
        tmp_path / "bin", inside.address, netns=f"/run/netns/{netns}", deadlines_s={"ADD": 1}
    )
    run = installed("ADD")
    inside.stop()
    # The leaf is there and takes the credential; nobody serves the subject.
    assert run.error["details"] == "nobody serves orb.cni.n1; see `orbweaver status`"


@pytest.fixture
def mount_point(netns: str, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Where a system that is up mounts its namespace, and how it does so."""
    path = tmp_path / "netns"

    def mount() -> None:
        path.touch(mode=0o400)
        subprocess.run(["mount", "--bind", f"/run/netns/{netns}", str(path)], check=True)

    yield path, mount
    subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)


def in_form(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "python":
        monkeypatch.setattr(install, "shim_path", lambda: freeze.build_launcher(tmp_path / "launcher"))


@FORMS
def test_what_can_never_be_a_namespace_is_5_at_once(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_form(form, tmp_path, monkeypatch)
    for path in ("/dev/null", str(tmp_path)):
        run = Installed(tmp_path / "bin", "127.0.0.1:1", netns=path)("ADD")
        assert run.error["code"] == 5
        assert f"{path} cannot be entered: Invalid argument" in str(run.error["msg"])


@FORMS
@pytest.mark.parametrize("left", ["nothing", "mount point"])
def test_a_system_that_is_down_is_awaited(
    tmp_path: Path, form: str, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`down` takes the mount of its namespace away: that is as if nothing listened."""
    in_form(form, tmp_path, monkeypatch)
    path = tmp_path / "netns"
    if left == "mount point":
        path.touch(mode=0o400)
    installed = Installed(
        tmp_path / "bin", "127.0.0.1:1", netns=str(path), deadlines_s={"ADD": 0.4, "DEL": 0.4}
    )
    for verb, code, least_s in (("ADD", 11, 0.4), ("DEL", 11, 0.4), ("STATUS", 50, 0.9)):
        run = installed(verb)
        assert run.error["code"] == code
        assert str(path) in str(run.error["details"]) and "run `orbweaver up`" in str(run.error["details"])
        assert least_s <= run.took_s < 3


@FORMS
def test_a_namespace_that_comes_back_is_entered(
    tmp_path: Path,
    netns: str,
    form: str,
    mount_point: tuple[Path, Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_form(form, tmp_path, monkeypatch)
    path, mount = mount_point
    inside = Server(tmp_path, free_port(), enter=("nsenter", f"--net=/run/netns/{netns}"))
    inside.start()
    timer = threading.Timer(0.4, mount)
    timer.start()
    run = Installed(tmp_path / "bin", inside.address, netns=str(path), deadlines_s={"DEL": 2})("DEL")
    timer.join()
    inside.stop()
    # The leaf is there and takes the credential; nobody serves the subject.
    assert run.error["details"] == "nobody serves orb.cni.n1; see `orbweaver status`"


def test_import_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = freeze._source  # pyright: ignore[reportPrivateUsage]
    reporting = {
        "cni.shim": source("cni.shim")
        + f"\ndef main(native):{REPORT.replace(chr(10), chr(10) + ' ')}\n leave(0)\n".encode()
    }
    monkeypatch.setattr(freeze, "_source", lambda module: reporting.get(module) or source(module))
    made = freeze.build(tmp_path / "reporting")
    loaded = set(subprocess.run([str(made)], capture_output=True, text=True, check=True).stdout.split())
    assert loaded == BUDGET


def test_the_executable_holds_no_other_module(tmp_path: Path) -> None:
    text = (freeze.HERE / "shim.py").read_text()
    imported = {
        line.split()[1] for line in text.splitlines() if line.strip().startswith(("import ", "from "))
    }
    assert imported == {"_socket", "posix", "cni.config", "cni.wire", "cni.fallback"}


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeze, "LIBRARIES", tmp_path)
    with pytest.raises(freeze.BuildError, match=r"libpython3\.11-dev"):
        freeze.build(tmp_path / "out")
    launcher = install.shim_path()
    assert launcher.read_bytes().startswith(b"#!/usr/bin/python3 -IS\n")


def test_a_missing_compiler_is_named_by_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cni.freeze", "--out", str(tmp_path / "out")],
        env={"PATH": str(tmp_path)},
        cwd=freeze.HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "apt-get install gcc" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_install_puts_every_name_and_hides_the_credential(tmp_path: Path) -> None:
    conflist = tmp_path / "net.d" / "10-underlay.conflist"
    text = install.default_conflist("underlay", "eth1")
    given = {"server": "127.0.0.1:1", "user": "u", "password": "p", "node": "n", "subject": "s"}
    written = install.install(tmp_path / "bin", **given, conflist=conflist, conflist_text=text)
    names = {"orbweaver.json", "orbweaver", "spiderpool", "coordinator", "ifacer", "10-underlay.conflist"}
    assert {path.name for path in written} == names
    assert {path.name for path in (tmp_path / "bin").iterdir()} == names - {"10-underlay.conflist"}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in written}
    assert modes.pop("orbweaver.json") == 0o600
    assert modes.pop("10-underlay.conflist") == 0o644
    assert set(modes.values()) == {0o755}
    assert json.loads(conflist.read_text()) == {
        "cniVersion": "1.0.0",
        "name": "underlay",
        "plugins": [
            {
                "type": "orbweaver",
                "cniType": "macvlan",
                "master": ["eth1"],
                "mtu": 0,
                "ippools": {"ipv4": [], "ipv6": []},
            }
        ],
    }


def test_install_over_a_running_shim(installed: Installed, server: Server, agent: Agent) -> None:
    agent.reply = lambda nth: None if nth == 1 else (b"late", 0)
    command = [str(installed.directory / "orbweaver")]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={"CNI_COMMAND": "ADD"}
    )
    wait_for(lambda: len(agent.requests) == 1)
    again = Installed(installed.directory, server.address)
    assert len(list(again.directory.iterdir())) == 5
    assert process.communicate(timeout=10)[0] == b"late"
    assert again("ADD").exit_code == 0
