"""Traps laid in directories that root will write to: links, foreign owners, names that are paths."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cni import install
from services.standalone.layout import Layout
from services.standalone.state import StandaloneError, make_directories, replace_file
from shared.subjects import token, untoken

NOBODY = 65534
TRAVERSALS = (
    "../../etc",
    "..",
    "/etc",
    ".",
    "a/../b",
    "a\x00b",
    "~root",
    "-rf",
    "${HOME}",
    "ü/é",
    "_",
    "",
    "%2e%2e",
)


def _installed(directory: Path) -> list[Path]:
    return install.install(
        directory,
        server="127.0.0.1:4222",
        user="shim",
        password="a-password-of-this-test",
        node="n1",
        subject="orb.cni.n1",
        conflist=directory / "10.conflist",
        conflist_text=install.default_conflist(),
    )


@pytest.mark.parametrize("name", ["orbweaver.json", *install.NAMES, "10.conflist"])
def test_an_installation_writes_through_no_link(tmp_path: Path, name: str) -> None:
    """Neither the name itself nor that of the file before its renaming leads anywhere else."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o640)
    directory = tmp_path / "bin"
    directory.mkdir()
    for trap in (directory / name, directory / f".{name}.{os.getpid()}"):
        trap.symlink_to(victim)
    written = _installed(directory)
    assert victim.read_text() == "precious"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o640
    for path in written:
        assert not path.is_symlink()
    assert sorted(path.name for path in directory.iterdir()) == sorted(path.name for path in written)


def test_an_installation_keeps_the_credential_from_a_hard_link(tmp_path: Path) -> None:
    """A file that another user linked to before holds the old content, not the new credential."""
    directory = tmp_path / "bin"
    _installed(directory)
    kept = tmp_path / "kept"
    os.link(directory / "orbweaver.json", kept)
    kept.chmod(0o644)
    _installed(directory)
    assert stat.S_IMODE((directory / "orbweaver.json").stat().st_mode) == 0o600
    assert not kept.samefile(directory / "orbweaver.json")


def test_an_installation_over_a_directory_says_so(tmp_path: Path) -> None:
    directory = tmp_path / "bin"
    (directory / "orbweaver.json").mkdir(parents=True)
    with pytest.raises(OSError):
        _installed(directory)


@pytest.mark.parametrize("inner", ["conf", "log", "nats", "node", "ca", "mark"])
def test_a_link_below_the_state_is_refused(tmp_path: Path, inner: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o755)
    layout = Layout(tmp_path / "state")
    layout.state.mkdir()
    layout.lock_file.touch()
    (layout.state / inner).symlink_to(victim)
    with pytest.raises(StandaloneError, match="symbolic link"):
        make_directories(layout, ("n1",))
    assert stat.S_IMODE(victim.stat().st_mode) == 0o755
    assert list(victim.iterdir()) == []


def test_the_state_itself_may_be_a_link_to_a_directory_of_ours(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    layout = Layout(tmp_path / "state")
    layout.state.symlink_to(tmp_path / "disk")
    make_directories(layout, ("n1",))
    assert stat.S_IMODE((tmp_path / "disk").stat().st_mode) == 0o700


@pytest.mark.parametrize("inner", ["", "conf"])
def test_a_directory_of_another_user_is_refused(tmp_path: Path, inner: str) -> None:
    layout = Layout(tmp_path / "state")
    (layout.state / inner).mkdir(parents=True)
    layout.lock_file.touch()
    os.chown(layout.state / inner, NOBODY, NOBODY)
    with pytest.raises(StandaloneError, match="belongs to user 65534"):
        make_directories(layout, ("n1",))


def test_a_directory_that_serves_something_else_is_left_alone(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "etc")
    layout.state.mkdir(mode=0o755)
    (layout.state / "passwd").write_text("root")
    with pytest.raises(StandaloneError, match="is not empty"):
        make_directories(layout, ("n1",))
    assert stat.S_IMODE(layout.state.stat().st_mode) == 0o755
    assert [path.name for path in layout.state.iterdir()] == ["passwd"]


def test_a_replaced_file_is_a_new_one(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "system.json").symlink_to(victim)
    replace_file(tmp_path / "system.json", b"{}")
    assert victim.read_text() == "precious"
    assert stat.S_IMODE((tmp_path / "system.json").lstat().st_mode) == 0o600


@pytest.mark.parametrize("node", TRAVERSALS)
def test_a_nodes_name_leads_out_of_no_directory(tmp_path: Path, node: str) -> None:
    layout = Layout(tmp_path / "state")
    assert layout.node_state(node).parent == layout.state / "node"
    assert "/" not in token(node) and token(node) not in ("", ".", "..")
    assert untoken(token(node)) == node
    assert set(token(node)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=")
