"""The store of the lease log is lost, cut, altered or put back from yesterday: it is seen, and the index is rebuilt before
anything new is given."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.loss.conftest import NODES, LogFile, Stage


def _filled(stage: Stage, tag: str) -> None:
    """Pods and a container on both nodes."""
    pods = [stage.pod(node, f"{tag}-{node}-{number}") for node in NODES for number in range(2)]
    stage.system.sync()
    stage.attach(*pods, *map(stage.pod, NODES))


def _goes_on(stage: Stage, tag: str, *nodes: str) -> None:
    """All is as it was: a repeated ADD gives the same address, a new pod one of its own, and a DEL frees what it names."""
    stage.attach(*[pod for pod in stage.pods if pod.node in nodes])
    fresh = [stage.pod(node, f"{tag}-{node}-new") for node in nodes]
    stage.until(lambda: stage.system.sync() is None, "the folder is in force")
    stage.attach(*fresh, *map(stage.pod, nodes))
    stage.check()
    container = next(pod for pod in stage.pods if not pod.name and pod.node in nodes)
    freed = container.address
    stage.detach(container)
    stage.until(lambda: freed not in stage.leases(), "the release of a container is taken")


EVERYTHING = ("allocator", "nats-hub")
"""Then nobody remembers but the nodes."""


def test_the_directory_is_deleted_under_a_running_system(stage: Stage) -> None:
    _filled(stage, "gone")
    rebuilt = stage.allocators_say("log rebuilt")
    shutil.rmtree(stage.store)
    # nothing is seen yet: the server writes into files that have no name
    stage.attach(stage.pod("n1"))
    stage.end("nats-hub")
    _goes_on(stage, "gone", *NODES)
    assert stage.allocators_say("log rebuilt") == rebuilt + 1


def test_the_directory_is_deleted_while_one_node_is_silent(stage: Stage) -> None:
    _filled(stage, "silent")
    go_on = stage.stop("agent", "n2")
    try:
        shutil.rmtree(stage.store)
        stage.end("nats-hub")
        _goes_on(stage, "silent", "n1")
    finally:
        go_on()
    _goes_on(stage, "silent-later", "n2")


def test_the_directory_is_deleted_and_nobody_remembers(stage: Stage) -> None:
    """What a silent node may hold is in nobody's memory: nothing new is given before it has told."""
    _filled(stage, "forgotten")
    go_on = stage.stop("agent", "n2")
    try:
        with stage.at_rest(*EVERYTHING):
            shutil.rmtree(stage.store)
        stage.until(lambda: bool(stage.leases()), "the leases of n1 are known again", 40.0)
        stage.attach(*[pod for pod in stage.pods if pod.node == "n1"])
        refused = stage.call("ADD", stage.pod("n1"), deadline_s=3.0)
        assert "n2" in refused.complaint(), refused.complaint()
    finally:
        go_on()
    stage.until(lambda: stage.allocators_say("claims of a node change leases") > 0, "n2 has told")
    _goes_on(stage, "forgotten", *NODES)


def test_everything_is_killed_and_an_older_copy_of_the_store_is_put_back(
    stage: Stage, tmp_path: Path
) -> None:
    _filled(stage, "older")
    with stage.at_rest("nats-hub"):
        shutil.copytree(stage.store, tmp_path / "yesterday")
    stage.attach(*map(stage.pod, NODES))
    with stage.at_rest(*EVERYTHING):
        shutil.rmtree(stage.store)
        shutil.copytree(tmp_path / "yesterday", stage.store)
    _goes_on(stage, "older", *NODES)


def _cut(log: LogFile) -> None:
    log.cut(3)


def _middle(log: LogFile) -> None:
    log.flip(len(log.records()) // 2)


def _last(log: LogFile) -> None:
    log.flip(-1)


@pytest.mark.parametrize(("harm", "mark"), [(_cut, "lost"), (_middle, "kept"), (_last, "lost")])
def test_everything_is_killed_and_the_log_is_harmed(
    stage: Stage, harm: Callable[[LogFile], None], mark: str
) -> None:
    tag = f"{harm.__name__.strip('_')}-{mark}"
    _filled(stage, tag)
    before = stage.incarnation()
    with stage.at_rest(*EVERYTHING):
        harm(LogFile(stage.store))
        if mark == "lost":
            for path in stage.layout.marks.rglob("*"):
                path.unlink()
    _goes_on(stage, tag, *NODES)
    assert stage.incarnation() != before
