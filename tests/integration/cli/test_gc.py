"""`orbweaver gc` against a real system: each lease with its verdict; a pod whose object is gone is detached by its node first."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.standalone.state import read_system
from tests.integration.cli.stage import NODES, POD, Attached, Stage

NODE = """\
apiVersion: v1
kind: Node
metadata: {{name: {name}}}
status: {{conditions: [{{type: Ready, status: "True"}}]}}
"""
SETTINGS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: spiderpool-conf, namespace: kube-system}
data: {conf.yml: "gc: {enabled: false}"}
"""


@pytest.fixture
def cluster(stage: Stage) -> Iterator[None]:
    """Node objects that are ready: without them a folder of manifests is no word that a container has ended."""
    for name in NODES:
        (stage.manifests / f"node-{name}.yaml").write_text(NODE.format(name=name))
    stage.done("sync")
    yield
    for name in NODES:
        (stage.manifests / f"node-{name}.yaml").unlink()
    (stage.manifests / "web-1.yaml").write_text(POD.format(name="web-1", node=NODES[0]))
    (stage.manifests / "conf.yaml").unlink(missing_ok=True)
    stage.done("sync")


def judged(stage: Stage, *words: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(stage.done("gc", *words, "-o", "json"))
    return answer


def until(found: Callable[[], bool], within_s: float = 30.0) -> None:
    end_s = time.monotonic() + within_s
    while not found():
        assert time.monotonic() < end_s
        time.sleep(0.2)


def addresses(stage: Stage, pod: str) -> list[str]:
    answer = json.loads(stage.done("get", "leases", "--pod", f"prod/{pod}", "-o", "json"))
    return [item["address"] for item in answer["items"]]


def counted(stage: Stage) -> float:
    """Addresses that were collected, by all replicas."""
    known = read_system(stage.system.state)
    assert known is not None
    total = 0.0
    for one in known.services:
        if one.service == "allocator":
            with urllib.request.urlopen(f"http://{one.http}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
            total += sum(float(x.split()[-1]) for x in lines if x.startswith("spiderpool_ip_gc_counts_total"))
    return total


def test_a_dry_run_tells_of_each_lease(stage: Stage, attached: list[Attached]) -> None:
    answer = judged(stage, "--dry-run")
    assert answer["counts"] == {"keep": 4} and answer["dryRun"] and not answer["heldBack"]
    assert {one["action"] for one in answer["verdicts"]} == {"keep"}
    table = stage.done("gc", "--dry-run")
    for one in attached:
        for address in one.addresses:
            assert address.partition("/")[0] in table
    assert "4 keep, 0 release, 0 detach, 0 quarantine" in table


def test_a_pod_that_is_gone_is_detached_by_its_node_and_then_released(
    stage: Stage, attached: list[Attached], cluster: None
) -> None:
    before = counted(stage)
    (stage.manifests / "web-1.yaml").unlink()
    stage.done("sync")
    dry = [one for one in judged(stage, "--dry-run")["verdicts"] if one["podName"] == "web-1"]
    assert [(one["action"], one["rule"]) for one in dry] == [("keep", "missing")] * 2
    assert "a DEL is awaited" in dry[0]["reason"] and dry[0]["dueNS"]
    assert len(addresses(stage, "web-1")) == 2, "a dry run does nothing"
    answer = judged(stage)
    assert answer["counts"]["detach"] == 2
    assert {one["podName"] for one in answer["verdicts"]} == {"web-1"}
    until(lambda: not addresses(stage, "web-1"))
    until(lambda: counted(stage) == before + 2)
    assert len(addresses(stage, "web-2")) == 2
    events = json.loads(stage.done("get", "events", "-n", "prod", "-o", "json"))["items"]
    assert any("collected: missing" in json.dumps(one) for one in events)
    attachments = json.loads(stage.done("get", "attachments", "-o", "json"))["items"]
    assert [one["podName"] for one in attachments] == ["web-2"]


def test_switched_off_nothing_is_collected(stage: Stage, attached: list[Attached], cluster: None) -> None:
    (stage.manifests / "conf.yaml").write_text(SETTINGS)
    (stage.manifests / "web-1.yaml").unlink()
    stage.done("sync")
    answer = judged(stage)
    assert answer["counts"] == {"keep": 4} and not answer["verdicts"]
    time.sleep(2.0)
    assert len(addresses(stage, "web-1")) == 2
