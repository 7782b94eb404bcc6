"""The command in a cluster's tools pod: it has settings of the bus and nothing else. Here the bus is that of the stage's system."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.standalone.assembly import tools_bus
from services.standalone.state import read_credentials, read_system
from shared.settings import ToolsSettings
from tests.integration.cli.stage import NODES, Attached, Stage

NODE = "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n"


class Tools:
    """`orbweaver` as in the Deployment orbweaver-tools."""

    def __init__(self, stage: Stage, settings: Path) -> None:
        self._stage = stage
        self._environment = {**stage.system.environment, "ORBWEAVER_TOOLS": str(settings)}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        # --state means nothing there
        command = self._stage.system.command(*words)
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, timeout=60
        )

    def json(self, *words: str) -> Any:
        done = self.run(*words, "-o", "json")
        assert done.stdout, done
        return json.loads(done.stdout)


@pytest.fixture
def tools(stage: Stage, tmp_path: Path) -> Iterator[Tools]:
    """With Node objects, which a controller tells of in a cluster."""
    state = Path(stage.json("status")["state"])
    system, credentials = read_system(state), read_credentials(state)
    assert system is not None and credentials is not None
    path = tmp_path / "tools.json"
    path.write_bytes(msgspec.json.encode(ToolsSettings(bus=tools_bus(system.ports, credentials))))
    manifests = [stage.manifests / f"node-{name}.yaml" for name in NODES]
    for name, manifest in zip(NODES, manifests, strict=True):
        manifest.write_text(NODE.format(name=name))
    stage.done("sync")
    yield Tools(stage, path)
    for manifest in manifests:
        manifest.unlink()
    stage.done("sync")


def test_status_tells_who_is_heard(tools: Tools) -> None:
    told = tools.json("status")
    assert told["ready"] is True and told["reasons"] == []
    services = {one["instance"]: one for one in told["services"]}
    assert set(services) == {
        "allocator-0", "allocator-1", "controller-0", "webhook-0",
        *(f"{service}-{node}" for service in ("agent", "rdma") for node in NODES),
    }  # fmt: skip
    assert [one["name"] for one in told["nodes"]] == list(NODES)
    leader = told["allocator"]["replica"]
    assert services[leader]["facts"]["role"] == "leader"
    assert {one["name"] for one in told["hub"]["streams"]} >= {"LEASES", "FACTS"}
    shown = tools.run("status")
    assert shown.returncode == 0 and shown.stdout.startswith("ready\n")
    assert "agent     2 of 2 ready" in shown.stdout and "LEASES" in shown.stdout


def test_a_silent_agent_is_told(stage: Stage, tools: Tools) -> None:
    (pid,) = [
        one["pid"] for one in stage.json("status")["services"] if one["instance"] == f"agent-{NODES[0]}"
    ]
    os.kill(pid, signal.SIGSTOP)
    try:
        told = tools.run("status")
        assert told.returncode == 1
        assert f"agent-{NODES[0]} does not answer" in told.stdout.splitlines()[0]
        assert f"agent-{NODES[1]}" not in told.stdout.splitlines()[0]
        doctor = tools.run("doctor")
        assert doctor.returncode == 1 and f"agent-{NODES[0]} is not ready: does not answer" in doctor.stdout
    finally:
        os.kill(pid, signal.SIGCONT)


def test_attachments_of_all_nodes(tools: Tools, attached: list[Attached]) -> None:
    shown = tools.json("get", "attachments")["items"]
    assert {(one["node"], one["containerID"]) for one in shown} == {
        (a.node, a.container_id) for a in attached
    }
    only = tools.json("get", "attachments", "--node", NODES[0])["items"]
    assert {one["node"] for one in only} == {NODES[0]}
    unknown = tools.run("get", "attachments", "--node", "n9")
    assert unknown.returncode == 1 and "no node 'n9'" in unknown.stderr


def test_doctor_compares_all_nodes(tools: Tools, attached: list[Attached]) -> None:
    told = tools.json("doctor")
    assert told["ok"] is True
    sentences = {one["check"]: one["sentence"] for one in told["findings"]}
    assert sentences["agents"] == f"{len(attached)} attachments on 2 nodes are as the kernel has them"
    assert sentences["services"] == "all 8 run and are ready"
    assert "neighbours" not in sentences, "nobody here sees the nodes' tables"


def test_sync_waits_for_who_is_heard(tools: Tools) -> None:
    assert tools.run("sync").returncode == 0
