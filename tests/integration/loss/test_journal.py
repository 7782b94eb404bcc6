"""A node forgets: its journal is gone, its pods live. An empty journal is no evidence; the kernel is."""

from __future__ import annotations

import secrets

from tests.integration.loss.conftest import Stage


def test_an_empty_journal_beside_live_namespaces_frees_nothing(stage: Stage) -> None:
    pod = stage.pod("n1", "journal-n1")
    stage.system.sync()
    bare = stage.pod("n1")
    stage.attach(pod, bare)
    with stage.at_rest("agent-n1"):
        (stage.layout.node_state("n1") / "journal").unlink()

    def told() -> bool:
        findings = stage.findings("claims")
        return sum("which its agent's journal has forgotten" in one["sentence"] for one in findings) == 2

    stage.until(told, "the doctor tells of both", 40.0)
    stage.attach(stage.pod("n1"))
    stage.check()
    # a new sandbox of the pod gets the pod's address
    stage.lab.remove(pod.netns)
    pod.netns, pod.container_id = stage.lab.pod(), secrets.token_hex(32)
    stage.attach(pod)
    stage.check()
