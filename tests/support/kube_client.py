"""The API of a test's API server as the tests speak it: plain requests, JSON in and out.

Must not know what is tested, nor who started the server.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

REQUEST_S = 60.0
_KEPT_S = 20.0
"""A server closes connections that were idle for minutes; what changes something must not find that out by failing."""
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"


class ApiError(Exception):
    """The server said no: `status` is HTTP's, `reason` Kubernetes' (`NotFound`), the text its message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Client:
    """One identity, by its bearer token. Usable from several threads; each has a connection of its own that is kept open.

    `path` is below the server: `/api/v1/namespaces/default/pods/one`. Raises ApiError, OSError when nobody answers.
    """

    def __init__(self, url: str, ca_file: Path, token: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self._host, self._port = parts.hostname, parts.port
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        self._token = token
        self._local = threading.local()
        self._open: list[http.client.HTTPSConnection] = []

    def get(self, path: str, **query: str) -> Any:
        return self.request("GET", path, query=query)

    def exists(self, path: str) -> bool:
        try:
            self.get(path)
        except ApiError as error:
            if error.status == http.HTTPStatus.NOT_FOUND:
                return False
            raise
        return True

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """A list's objects, without paging."""
        return self.get(path, **query)["items"]

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """`path` is the collection's."""
        return self.request("POST", path, body)

    def replace(self, path: str, body: Mapping[str, Any]) -> Any:
        return self.request("PUT", path, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """A JSON merge patch: works for every kind."""
        return self.request("PATCH", path, body, content_type=_MERGE)

    def apply(self, path: str, body: Mapping[str, Any], manager: str = "test", force: bool = True) -> Any:
        """Server-side apply of one object."""
        query = {"fieldManager": manager, "force": str(force).lower()}
        return self.request("PATCH", path, body, query=query, content_type=_APPLY)

    def delete(self, path: str, grace_s: int | None = None, missing_ok: bool = True) -> None:
        body = None if grace_s is None else {"gracePeriodSeconds": grace_s}
        try:
            self.request("DELETE", path, body)
        except ApiError as error:
            if not (missing_ok and error.status == http.HTTPStatus.NOT_FOUND):
                raise

    def text(self, path: str) -> str:
        """What is not JSON: `/metrics`, `/readyz`, logs."""
        return self._exchange("GET", path, None, {})[1].decode()

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Any:
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        full = f"{path}?{urlencode(query)}" if query else path
        status, answer = self._exchange(
            method, full, None if body is None else json.dumps(body).encode(), headers
        )
        decoded = json.loads(answer)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(status, decoded.get("reason", ""), decoded.get("message", answer.decode()))
        return decoded

    def close(self) -> None:
        for connection in self._open:
            connection.close()
        self._open.clear()

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        headers = {**headers, "Authorization": f"Bearer {self._token}"}
        connection = self._connection()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            if method != "GET":
                raise
            # A kept connection may be that of a server which was restarted since.
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                return response.status, response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                raise

    def _connection(self) -> http.client.HTTPSConnection:
        connection = getattr(self._local, "connection", None)
        now = time.monotonic()
        if connection is not None and now - self._local.used > _KEPT_S:
            connection.close()
        self._local.used = now
        if connection is None:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=REQUEST_S, context=self._tls
            )
            self._local.connection = connection
            self._open.append(connection)
        return connection
