"""The three things that the hub asks of the Kubernetes API: read and patch an object of its own, review a token.

Owns the HTTP of that, one connection a call. Must not know what is in an object. Blocks: call it in a thread.
"""

from __future__ import annotations

import http.client
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

TIMEOUT_S = 10.0


class ApiRefused(Exception):
    """The API server's answer was not 2xx; `status` is its code, 409 if somebody else was faster."""

    def __init__(self, what: str, status: int, text: str) -> None:
        super().__init__(f"{what}: {status} {text}")
        self.status = status


class Api:
    """At `url`, or where a pod finds it, with the `token` and `ca.crt` of a service account's folder. Every call raises ApiRefused or
    OSError."""

    def __init__(self, url: str, account: Path) -> None:
        if not url:
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
            url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._url = urlsplit(url)
        self._token_file = account / "token"
        self._ca_file = account / "ca.crt"

    def read(self, namespace: str, plural: str, name: str) -> dict[str, Any]:
        return self._call("GET", f"/api/v1/namespaces/{namespace}/{plural}/{name}")

    def patch(self, namespace: str, plural: str, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        """A merge patch; with `metadata.resourceVersion` in it, 409 if the object is another by now."""
        return self._call("PATCH", f"/api/v1/namespaces/{namespace}/{plural}/{name}", patch)

    def review(self, token: str, audience: str) -> dict[str, Any]:
        """A TokenReview, answered."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        return self._call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        context = ssl.create_default_context(cafile=str(self._ca_file))
        assert self._url.hostname is not None
        connection = http.client.HTTPSConnection(
            self._url.hostname, self._url.port or 443, timeout=TIMEOUT_S, context=context
        )
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self._token_file.read_text().strip()}", "Content-Type": kind}
        try:
            connection.request(method, path, msgspec.json.encode(body) if body else None, headers)
            answer = connection.getresponse()
            text = answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"{method} {path}: {error!r}") from None
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise ApiRefused(f"{method} {path}", answer.status, text[:500].decode(errors="replace"))
        return msgspec.json.decode(text)
