"""What a source may leave out of an object, nobody misses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.allocator.facts import Facts
from shared.contracts.facts import FIELDS_READ, POD_ANNOTATIONS_READ, ObjectFact

META: dict[str, Any] = {
    "name": "web-0",
    "namespace": "shop",
    "uid": "u1",
    "resourceVersion": "7",
    "generation": 3,
    "labels": {"app": "web"},
    "annotations": {"ipam.spidernet.io/ippool": '{"ipv4":["a"]}', "kubectl/last-applied": "x" * 99},
    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": True}],
    "managedFields": [{"manager": "kubelet"}],
}
WHOLE: dict[str, dict[str, Any]] = {
    "Pod": {
        "metadata": {
            **META,
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 7,
        },
        "spec": {
            "nodeName": "n1",
            "hostNetwork": True,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 11,
            "containers": [{"name": "c", "image": "pause"}],
        },
        "status": {
            "phase": "Failed",
            "reason": "Evicted",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
            "containerStatuses": [
                {"name": "c", "state": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:05Z"}}}
            ],
        },
    },
    "StatefulSet": {
        "metadata": META,
        "spec": {"replicas": 3, "ordinals": {"start": 2}, "serviceName": "web", "template": {"spec": {}}},
        "status": {"replicas": 3},
    },
    "Namespace": {"metadata": META, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}},
    "Node": {
        "metadata": META,
        "spec": {"taints": [{"key": "k", "effect": "NoExecute"}], "podCIDR": "10.2.0.0/24"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}],
            "images": [{"names": ["a"]}],
        },
    },
}


def reduced(kind: str, whole: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for path in FIELDS_READ[kind]:
        _copy(path.split("."), whole, out)
    if kind == "Pod":
        marks = out["metadata"]["annotations"]
        out["metadata"]["annotations"] = {
            k: v for k, v in marks.items() if k.startswith(POD_ANNOTATIONS_READ)
        }
    return out


def _copy(steps: list[str], source: dict[str, Any], out: dict[str, Any]) -> None:
    name = steps[0].removesuffix("[]")
    if name not in source:
        return
    if len(steps) == 1:
        out[name] = source[name]
    elif steps[0].endswith("[]"):
        into = out.setdefault(name, [{} for _ in source[name]])
        for one, other in zip(source[name], into, strict=True):
            _copy(steps[1:], one, other)
    else:
        _copy(steps[1:], source[name], out.setdefault(name, {}))


def known(kind: str, raw: dict[str, Any]) -> Facts:
    facts = Facts()
    namespaced = kind in ("Pod", "StatefulSet")
    fact = ObjectFact(
        kind=kind,
        api_version="apps/v1" if kind == "StatefulSet" else "v1",
        namespace="shop" if namespaced else "",
        name="web-0",
        uid="u1",
        version=7,
        object=json.dumps(raw).encode(),
    )
    facts.apply(fact, 1)
    return facts


def seen(facts: Facts) -> list[object]:
    nodes = [(n.spec.taints, [(c.type, c.status) for c in n.status.conditions]) for n in facts.nodes.values()]
    marks = [(n.metadata.labels, n.metadata.annotations) for n in facts.namespaces.values()]
    pods = [
        [getattr(pod, name) for name in pod.__struct_fields__ if name not in ("annotations", "owner")]
        + [{k: v for k, v in pod.annotations.items() if k.startswith(POD_ANNOTATIONS_READ)}]
        + [pod.owner and (pod.owner.kind, pod.owner.name)]
        for pod in facts.pods.values()
    ]
    return [pods, [*facts.stateful_sets.items()], nodes, marks]


@pytest.mark.parametrize("kind", FIELDS_READ)
def test_nothing_that_is_read_may_be_left_out_and_all_else_may(kind: str) -> None:
    less = reduced(kind, WHOLE[kind])
    assert less != WHOLE[kind]
    assert seen(known(kind, less)) == seen(known(kind, WHOLE[kind]))


def test_every_field_of_a_pod_is_told_by_its_object() -> None:
    """Each differs from its default, so that a field that is forgotten in the list above would show."""
    (pod,) = known("Pod", WHOLE["Pod"]).pods.values()
    assert (pod.deletion_grace_s, pod.termination_grace_s, pod.host_network) == (7, 11, True)
    assert pod.deletion_ns and pod.finished_ns and pod.has_addresses and pod.phase == "Failed"
    assert pod.dead and pod.owner is not None and pod.owner.name == "web"
