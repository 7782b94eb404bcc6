"""The store of the lease log is lost under a running system: it is seen, and the index is rebuilt before anything new is given."""

from __future__ import annotations

import shutil
import signal

from tests.integration.loss.conftest import Stage


def _filled(stage: Stage, tag: str) -> None:
    """Pods and containers on both nodes."""
    for node in ("n1", "n2"):
        pods = [stage.pod(node, f"{tag}-{node}-{number}") for number in range(2)]
        stage.system.sync()
        stage.attach(*pods, stage.pod(node))


def _goes_on(stage: Stage, tag: str, *nodes: str) -> None:
    """All is as it was, a new pod on each node gets an address of its own, a repeated ADD the same again, and a DEL frees."""
    stage.attach(*[pod for pod in stage.pods if pod.address and pod.node in nodes])
    fresh = [stage.pod(node, f"{tag}-{node}-new") for node in nodes]
    stage.until(lambda: bool(stage.system.sync() or True), "the folder is in force")
    stage.attach(*fresh)
    stage.check()


def test_the_directory_is_deleted_under_a_running_system(stage: Stage) -> None:
    _filled(stage, "gone")
    rebuilt = stage.allocators_say("log rebuilt")
    shutil.rmtree(stage.store)
    # nothing is seen yet: the server writes into files that have no name
    stage.attach(stage.pod("n1"))
    stage.end("nats-hub")
    _goes_on(stage, "gone", "n1", "n2")
    assert stage.allocators_say("log rebuilt") == rebuilt + 1
