"""The system as a whole through the command."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from tests.integration.cli.stage import NODES, Stage


def test_status_names_what_a_user_needs(stage: Stage) -> None:
    status = stage.json("status")
    assert status["ready"]
    assert status["reasons"] == []
    assert [node["name"] for node in status["nodes"]] == list(NODES)
    assert {"controller", "allocator", "webhook", "agent", "rdma", "nats"} == {
        s["service"] for s in status["services"]
    }
    assert all(s["ready"] for s in status["services"])
    assert status["nats"]["hub"].startswith("nats://127.0.0.1:")
    assert set(status["nats"]["leaves"]) == set(NODES)
    assert status["webhook"]["url"].startswith("https://")
    assert Path(status["webhook"]["ca"]).exists()
    first, *_ = stage.done("status").splitlines()
    assert first == "ready"


def test_a_second_up_is_refused_and_says_who_runs(stage: Stage) -> None:
    again = stage.cli("up", "--manifests", str(stage.manifests))
    assert again.returncode == 1
    assert "orbweaver down" in again.stderr


def test_up_refuses_a_folder_that_is_not_there(stage: Stage, tmp_path: Path) -> None:
    done = stage.cli("up", "--manifests", str(tmp_path / "none"), "--state", str(tmp_path / "state"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "none" in done.stderr


def test_install_asks_which_node_and_hides_the_credential(stage: Stage, tmp_path: Path) -> None:
    unclear = stage.cli("cni", "install", "--dir", str(tmp_path / "bin"))
    assert unclear.returncode == 2
    assert "n1, n2" in unclear.stderr
    assert not (tmp_path / "bin").exists()
    conflist = tmp_path / "net.d" / "10-underlay.conflist"
    said = stage.done(
        "cni", "install", "--dir", str(tmp_path / "bin"), "--node", "n2", "--conflist", str(conflist)
    )
    for name in ("orbweaver", "spiderpool", "coordinator", "ifacer"):
        assert os.access(tmp_path / "bin" / name, os.X_OK)
        assert f"wrote {tmp_path}/bin/{name}\n" in said
    configuration = tmp_path / "bin" / "orbweaver.json"
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600
    settings = json.loads(configuration.read_text())
    assert (settings["node"], settings["subject"]) == ("n2", "orb.cni.n2")
    assert settings["password"] not in said
    (plugin,) = json.loads(conflist.read_text())["plugins"]
    assert plugin["type"] == "orbweaver"
    assert "multiNetwork" not in plugin
    stage.done(
        *("cni", "install", "--dir", str(tmp_path / "bin"), "--node", "n2"),
        *("--conflist", str(conflist), "--multi-network"),
    )
    (plugin,) = json.loads(conflist.read_text())["plugins"]
    assert plugin["multiNetwork"] == "native"
