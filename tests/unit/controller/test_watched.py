"""What is kept of each object of the API server, and where it is."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from services.controller import inherited
from services.controller.watched import (
    EndpointNote,
    Watched,
    digest_of,
    item_of,
    notice_of,
    page_of,
    table,
)
from shared.contracts.facts import FIELDS_READ

ROWS = {row.key: row for row in table("kube-system", ("kube-system", "cilium-config"))}


def kept(row: Watched, raw: dict[str, Any]) -> Any:
    found = item_of(row, json.dumps(raw).encode())
    return None if found is None else json.loads(found[1].body)


def meta(**more: Any) -> dict[str, Any]:
    noise = {"managedFields": [{"manager": "x"}], "resourceVersion": "7", "selfLink": "/x"}
    return {"name": "a", "namespace": "shop", "uid": "u", **noise, **more}


def test_a_pod_is_reduced_to_what_is_read() -> None:
    raw = {
        "metadata": meta(
            labels={"l": "1"},
            annotations={
                "ipam.spidernet.io/ippool": "{}",
                "k8s.v1.cni.cncf.io/networks": "a",
                "k8s.v1.cni.cncf.io/network-status": "[]",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            },
            deletionTimestamp="2026-01-01T00:00:00Z",
            deletionGracePeriodSeconds=30,
        ),
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "c", "image": "i"}],
            "terminationGracePeriodSeconds": 30,
            "restartPolicy": "Never",
        },
        "status": {
            "phase": "Failed",
            "reason": "Evicted",
            "podIPs": [{"ip": "10.6.0.1"}],
            "containerStatuses": [
                {"name": "c", "state": {"terminated": {"finishedAt": "2026-01-01T00:00:01Z"}}}
            ],
            "conditions": [{"type": "Ready"}],
        },
    }
    body = kept(ROWS["Pod"], raw)
    assert body["metadata"]["annotations"] == {
        "ipam.spidernet.io/ippool": "{}",
        "k8s.v1.cni.cncf.io/networks": "a",
    }
    for path in FIELDS_READ["Pod"]:
        if path in ("metadata.resourceVersion", "spec.hostNetwork", "metadata.ownerReferences"):
            continue  # the fact has its own version; the two others are not set here
        at: Any = body
        for member in path.split("."):
            at = at[member.removesuffix("[]")]
            at = at[0] if member.endswith("[]") else at
        assert at
    assert "containers" not in body["spec"]
    assert "managedFields" not in body["metadata"]
    assert "resourceVersion" not in body["metadata"]


def test_pods_of_the_nodes_network_are_not_kept_but_those_of_a_stateful_set() -> None:
    def pod(kind: str) -> dict[str, Any]:
        owner = {"apiVersion": "apps/v1", "kind": kind, "name": "db", "uid": "o", "controller": True}
        return {"metadata": meta() | {"ownerReferences": [owner]}, "spec": {"hostNetwork": True}}

    assert kept(ROWS["Pod"], {"metadata": meta(), "spec": {"hostNetwork": True}}) is None
    assert kept(ROWS["Pod"], pod("DaemonSet")) is None
    assert kept(ROWS["Pod"], pod("StatefulSet"))["spec"]["hostNetwork"]


def test_a_heartbeat_of_a_node_changes_nothing() -> None:
    def node(heartbeat: str, ready: str) -> dict[str, Any]:
        condition = {"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}
        return {
            "metadata": {
                "name": "n",
                "uid": "u",
                "resourceVersion": heartbeat,
                "annotations": {"x": heartbeat},
            },
            "spec": {"taints": [{"key": "k", "effect": "NoExecute", "timeAdded": "2026"}]},
            "status": {"conditions": [condition], "images": [1]},
        }

    assert kept(ROWS["Node"], node("1", "True")) == kept(ROWS["Node"], node("2", "True"))
    assert kept(ROWS["Node"], node("1", "True")) != kept(ROWS["Node"], node("1", "False"))


def test_our_own_status_of_a_pool_makes_no_fact() -> None:
    row = ROWS["SpiderIPPool"]
    raw = {"metadata": {"name": "p", "uid": "u", "resourceVersion": "1"}, "spec": {"subnet": "10.0.0.0/8"}}
    assert kept(row, raw) == kept(row, {**raw, "status": {"allocatedIPCount": 7}})


def test_what_is_copied_has_all_its_annotations_and_nothing_else_keeps_what_kubectl_wrote() -> None:
    notes = {"mine": "1", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    raw = {"metadata": meta(annotations=notes), "spec": {}}
    for key, row in ROWS.items():
        if key in ("Node", "StatefulSet", "Pod", "SpiderEndpoint"):
            continue  # of those hardly any annotation is kept
        copied = key in ("SpiderMultusConfig", "NetworkAttachmentDefinition")
        assert kept(row, raw)["metadata"]["annotations"] == (notes if copied else {"mine": "1"}), key


def test_of_an_endpoint_a_digest_is_kept() -> None:
    status = {"current": {"uid": "pod-uid", "ips": []}, "ownerControllerType": "Pod"}
    raw = {"metadata": meta(finalizers=["spiderpool.spidernet.io"]), "status": status}
    found = item_of(ROWS["SpiderEndpoint"], json.dumps(raw).encode())
    assert found is not None
    note = msgspec.json.decode(found[1].body, type=EndpointNote)
    assert note == EndpointNote(digest=digest_of(status), pod_uid="pod-uid", finalizers=True)


def test_what_is_no_object_is_left_out() -> None:
    body = json.dumps(
        {"metadata": {"resourceVersion": "5", "continue": "t"}, "items": [{"metadata": {"labels": 3}}, 7]}
    ).encode()
    page = page_of(ROWS["Pod"], body)
    assert (page.items, page.continued, page.resource_version) == ([], "t", "5")


def test_lines_of_a_watch() -> None:
    row = ROWS["Namespace"]
    line = json.dumps({"type": "ADDED", "object": {"metadata": {"name": "a", "resourceVersion": "3"}}})
    assert notice_of(row, line.encode()).item is not None
    gone = notice_of(row, b'{"type":"ERROR","object":{"kind":"Status","code":410}}')
    assert (gone.type, gone.code) == ("ERROR", 410)
    mark = notice_of(row, b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}')
    assert (mark.type, mark.resource_version) == ("BOOKMARK", "9")


def test_paths() -> None:
    assert ROWS["Pod"].path_of(("shop", "a")) == "/api/v1/namespaces/shop/pods/a"
    assert ROWS["Node"].path_of(("", "n")) == "/api/v1/nodes/n"
    config = ROWS["ConfigMap/kube-system/spiderpool-conf"]
    assert config.path_of(("kube-system", "spiderpool-conf")).endswith(
        "/kube-system/configmaps/spiderpool-conf"
    )
    assert config.query == {"fieldSelector": "metadata.name=spiderpool-conf"}
    assert not config.holds(("kube-system", "other"))


def test_records_of_spiderpool_are_read_and_what_is_none_is_left_out() -> None:
    pool = {
        "metadata": {"name": "rack"},
        "status": {
            "allocatedIPs": json.dumps(
                {
                    "10.6.0.1": {"pod": "a/b", "podUid": "u"},
                    "x": {"pod": "a/b"},
                    "10.6.0.2": 3,
                    "10.6.0.3": {"pod": ""},
                }
            )
        },
    }
    (record,) = inherited.of_pool(json.dumps(pool).encode())
    assert (record.address, record.pod_namespace, record.pod_name, record.pool) == (
        "10.6.0.1",
        "a",
        "b",
        "rack",
    )
    assert inherited.of_pool(b'{"status":{"allocatedIPs":"[1]"}}') == []
    assert inherited.of_pool(b"[") == inherited.of_endpoint(b"[") == []
    parts = list(inherited.parts(record for _ in range(2500)))
    assert [len(part) for part in parts] == [1000, 1000, 500]
