"""Annotations that nobody reads are told by a real API server where they are written, and nobody else's objects come to us for it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.cluster.admission.conftest import Cluster, Json, pod

DEFAULT_PODS = "/api/v1/namespaces/default/pods"
CALLS = re.compile(
    r'apiserver_admission_webhook_admission_duration_seconds_count\{name="([^"]+)"[^}]*\} (\d+)'
)


def calls(cluster: Cluster, entry: str) -> int:
    """How often the API server has called an entry of either configuration."""
    text = cluster.client.text("/metrics")
    return sum(
        int(count) for name, count in CALLS.findall(text) if name == f"{entry}.spiderpool.spidernet.io"
    )


def marked(**annotations: str) -> Json:
    body = pod("marked")
    body["metadata"]["annotations"] = annotations
    return body


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("ipam.spidernet.io/ipool", "did you mean ipam.spidernet.io/ippool?"),
        ("spidernet.io/ippools", "did you mean ipam.spidernet.io/ippools?"),
        ("IPAM.spidernet.io/ippool", "did you mean ipam.spidernet.io/ippool?"),
        ("ipam.spiderpool.io/routes", "did you mean ipam.spidernet.io/routes?"),
        ("k8s.v1.cni.cncf.io/network", "did you mean k8s.v1.cni.cncf.io/networks?"),
        ("cni.spidernet.io/rdma-resource", "did you mean cni.spidernet.io/rdma-resource-inject?"),
        ("ipam.spidernet.io/default-ipv4-ippool", "has no effect on a Pod: it is read of a Namespace"),
    ],
)
def test_a_misspelt_annotation_of_a_pod_is_a_warning(cluster: Cluster, key: str, said: str) -> None:
    told = cluster.told(marked(**{key: "[]"}), dry_run=True)
    assert f"Warning: metadata.annotations[{key}]" in told and said in told
    assert "pod/marked created" in told


def test_who_makes_pods_and_namespaces_are_told_too(cluster: Cluster) -> None:
    template: Json = {
        "metadata": {"labels": {"a": "b"}, "annotations": {"ipam.spidernet.io/ipool": "{}"}},
        "spec": {"containers": [{"name": "c", "image": "pause"}]},
    }
    meta: Json = {"name": "web", "namespace": "default", "annotations": {"ipam.spidernet.io/ippool": "{}"}}
    spec: Json = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    plain: Json = {**template, "metadata": {"labels": {"a": "b"}}}
    once: Json = {"spec": {"template": {**plain, "spec": {**plain["spec"], "restartPolicy": "Never"}}}}
    told = cluster.told(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": meta,
            "spec": {"schedule": "0 0 * * *", "jobTemplate": once},
        },
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "misspelt", "annotations": {"ipam.spidernet.io/default-ipv4-pool": "[]"}},
        },
        dry_run=True,
    )
    assert "Warning: spec.template.metadata.annotations[ipam.spidernet.io/ipool]" in told
    assert "has no effect on a Deployment: it is read of Pods; write it into spec.template.metadata" in told
    assert (
        "has no effect on a CronJob: it is read of Pods; write it into spec.jobTemplate.spec.template" in told
    )
    assert "did you mean ipam.spidernet.io/default-ipv4-ippool?" in told
    assert told.count("(server dry run)") == 3


def test_objects_of_others_do_not_come_to_us(cluster: Cluster) -> None:
    client = cluster.client
    before = calls(cluster, "pods")
    theirs = {
        "checksum/spiderpool-conf": "1",
        "prometheus.io/scrape": "true",
        "k8s.v1.cni.cncf.io/network-status": "[]",
    }
    client.create(DEFAULT_PODS, {**pod("plain"), "metadata": {"name": "plain"}})
    client.create(DEFAULT_PODS, {**pod("theirs"), "metadata": {"name": "theirs", "annotations": theirs}})
    assert calls(cluster, "pods") == before


def test_an_update_comes_to_us_only_if_it_is_about_us(cluster: Cluster) -> None:
    client, path = cluster.client, f"{DEFAULT_PODS}/updated"
    client.create(DEFAULT_PODS, {**pod("updated"), "metadata": {"name": "updated"}})
    before = calls(cluster, "pods")

    def mark(**annotations: Any) -> int:
        client.patch(path, {"metadata": {"annotations": annotations}})
        return calls(cluster, "pods") - before

    assert mark(**{"ipam.spidernet.io/ipool": "{}"}) == 1, "it came"
    assert mark(**{"k8s.v1.cni.cncf.io/network-status": "[{}]"}) == 1, "Multus wrote back"
    assert mark(**{"example.com/x": "y"}) == 1, "somebody else's"
    assert mark(**{"ipam.spidernet.io/ipool": "[]"}) == 2, "it changed"
    assert mark(**{"ipam.spidernet.io/ipool": None}) == 2, "it went"


def test_a_pod_with_thousands_of_annotations_is_let_pass(cluster: Cluster) -> None:
    """The cost that the API server allows a condition is not the end of the pod."""
    many = {f"{i:x}.example.com/a": "" for i in range(12000)}
    told = cluster.client.create(
        DEFAULT_PODS, {**pod("many"), "metadata": {"name": "many", "annotations": many}}
    )
    assert len(told["metadata"]["annotations"]) == 12000
