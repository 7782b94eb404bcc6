"""The picture of an attach names the admission of the same pod: by the trace that admission wrote on the pod, or by the pod's UID."""

from __future__ import annotations

import json
import secrets
import ssl
import urllib.request

import pytest

from tests.runtime.conftest import Runtime

_POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, uid: {name}-uid, annotations: {{{marks}}}}}
spec: {{nodeName: node-1, containers: [{{name: main, image: example.com/main:1}}]}}
"""


def reviewed(node: Runtime, uid: str, trace_id: str) -> None:
    """The API server asks about a pod, within a trace of its own."""
    found = json.loads(node.system.cli("status", "-o", "json"))["webhook"]
    meta = {
        "name": "x",
        "namespace": "shop",
        "uid": uid,
        "annotations": {"ipam.spidernet.io/ippool": '{"ipv4":["v4"]}'},
    }
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": secrets.token_hex(8),
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": "shop",
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": meta},
        },
    }
    request = urllib.request.Request(
        f"{found['url']}/validate--v1-pod",
        json.dumps(review).encode(),
        {"Content-Type": "application/json", "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"},
    )
    context = ssl.create_default_context(cafile=found["ca"])
    with urllib.request.urlopen(request, context=context, timeout=20) as answer:
        assert json.load(answer)["response"]["allowed"]


@pytest.mark.parametrize("way", ["annotation", "uid"])
def test_an_attach_is_linked_to_the_admission_of_its_pod(node: Runtime, way: str) -> None:
    name, admission, attach = f"traced-{way}", secrets.token_hex(16), secrets.token_hex(16)
    marks = f'orbweaver.io/traceparent: "00-{admission}-00f067aa0ba902b7-01"' if way == "annotation" else ""
    manifest = node.system.manifests / f"{name}.yaml"
    manifest.write_text(_POD.format(name=name, marks=marks))
    # before its UID is known, a pod is asked about under none
    reviewed(node, f"{name}-uid" if way == "uid" else "", admission)
    arguments = {"K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": name, "K8S_POD_UID": f"{name}-uid"}
    try:
        node.add(
            node.sandbox(),
            arguments=arguments,
            changes={"TRACEPARENT": f"00-{attach}-{secrets.token_hex(8)}-01"},
        )
    finally:
        # a pod that is there keeps its address
        manifest.unlink()
    picture = node.system.cli("get", "traces", attach)
    assert f"linked: trace {admission}: admission.review" in picture
