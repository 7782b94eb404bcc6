"""The API server that other tests use: it serves, forgets on request, comes back, and leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kube import ApiServer, namespace
from tests.support.kube_client import ApiError

POD = {"metadata": {"name": "one"}, "spec": {"containers": [{"name": "main", "image": "example.com/main:1"}]}}


def test_pods_are_created_and_kubectl_sees_them(api_server: ApiServer) -> None:
    name = namespace(api_server)
    api_server.client.create(f"/api/v1/namespaces/{name}/pods", POD)
    assert api_server.kubectl("get", "pods", "-n", name, "-o", "name").strip() == "pod/one"


def test_a_service_account_may_nothing_until_it_is_allowed(api_server: ApiServer) -> None:
    name = namespace(api_server)
    api_server.client.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "service"}})
    client = api_server.client_of(api_server.service_account_token(name, "service"))
    with pytest.raises(ApiError, match="cannot list resource") as refused:
        client.items(f"/api/v1/namespaces/{name}/pods")
    assert refused.value.status == 403


def test_a_restored_copy_forgets_what_came_after_it(fresh_api_server: ApiServer, tmp_path: Path) -> None:
    server = fresh_api_server
    before = namespace(server, "before")
    server.save(tmp_path / "copy")
    after = namespace(server, "after")
    server.restore(tmp_path / "copy")
    assert server.client.exists(f"/api/v1/namespaces/{before}")
    assert not server.client.exists(f"/api/v1/namespaces/{after}")


def test_controllers_and_audit(tmp_path: Path) -> None:
    server = ApiServer(tmp_path, controllers=True, audit=True)
    server.start()
    try:
        name = namespace(server)
        server.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=60s")
        server.kubectl("delete", "namespace", name, "--timeout=60s")
        agents = {event.get("userAgent", "").partition("/")[0] for event in server.audit()}
    finally:
        server.stop()
    assert {"kube-controller-manager", "kubectl"} <= agents
