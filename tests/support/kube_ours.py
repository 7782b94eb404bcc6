"""What tests see and do of our system in a cluster, however it was started.

Must not know where its parts run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shared.contracts.attach import AttachFailed
from shared.contracts.query import AttachmentView
from tests.support.kube_cluster import Cluster
from tests.support.kube_question import Questions

ADDRESSES_V4, ADDRESSES_V6 = "10.232.100.1-10.232.103.250", "fd00:232::1:0-fd00:232::1:ffff"
"""Of the default pools, on the underlay of tests.support.kube_cluster."""


class OurSystem:
    """`ask` has the questions of a tool."""

    cluster: Cluster
    ask: Questions

    def apply(self, *objects: Mapping[str, Any]) -> None:
        documents = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.cluster.server.kubectl("apply", "-f", "-", stdin=json.dumps(documents))

    def kill_sandbox(self, namespace: str, pod: str) -> None:
        """The pod lives on: the kubelet makes it a new sandbox."""
        for node in self.cluster.nodes:
            for view in self.ask.attachments(node.name):
                if (view.pod_namespace, view.pod_name, view.state) == (namespace, pod, "completed"):
                    node.ctr("tasks", "kill", "--signal", "KILL", view.container_id)

    def live(self) -> dict[str, tuple[AttachmentView, ...]]:
        """What is attached on each node, by pod: `namespace/name`."""
        found: dict[str, tuple[AttachmentView, ...]] = {}
        for node in self.cluster.nodes:
            for view in self.ask.attachments(node.name):
                if view.state == "completed":
                    key = f"{view.pod_namespace}/{view.pod_name}"
                    found[key] = (*found.get(key, ()), view)
        return found

    def failures(self) -> list[str]:
        """Every attach that failed since the start, as a sentence."""
        failed = (event for event in self.ask.events() if isinstance(event, AttachFailed))
        return [
            f"{event.pod_namespace}/{event.pod_name} on {event.node}: {event.message}" for event in failed
        ]
