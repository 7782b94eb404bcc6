"""The Kubernetes API as plain requests: bytes in, bytes out, and a watch line by line.

Owns time-outs and what a failure means. Must not know any
kind: paths and bodies are handed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec

from shared.kubernetes_api import open_api

FIELD_MANAGER = "orbweaver-controller"
USER_AGENT = "orbweaver-controller"
REQUEST_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
WATCH_SILENCE_S = 100.0
"""A watch is told bookmarks about once a minute, unless nothing of the kind ever changes (etcd 3.4 reports no progress then): one that
is silent for longer may hang, so it is opened anew; a server that hangs does not take it up."""
CONNECTIONS_MAX = 64
LINE_MAX_BYTES = 8 << 20
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"


class KubeError(Exception):
    """Any failure of a request."""


class KubeAway(KubeError):
    """No answer: the request may have had its effect."""


class KubeRefused(KubeError):
    """The server said no. `status` is HTTP's, `reason` Kubernetes' (`NotFound`, `Conflict`)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class _Status(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""


class KubeClient:
    """One identity. Every request raises KubeAway or KubeRefused. `requests` counts them by verb."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.requests: dict[str, int] = {}

    @classmethod
    async def open(cls, kubeconfig: str) -> KubeClient:
        """By a kubeconfig file, or from inside a cluster where it is empty. Raises ValueError that names what is missing."""
        return cls(await open_api(kubeconfig, CONNECTIONS_MAX))

    async def close(self) -> None:
        await self._api.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        return await self._exchange("GET", path, query)

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        return await self._exchange("POST", path, None, body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> bytes:
        return await self._exchange("PUT", path, None, body)

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        """A JSON merge patch. With `metadata.resourceVersion` it is refused (409) if the object has changed."""
        return await self._exchange("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, _MERGE)

    async def apply(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Server-side apply: these members are ours, whoever had them before."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._exchange("PATCH", path, query, body, _APPLY)

    async def delete(self, path: str, uid: str) -> bytes:
        """The object of this UID, no other one of its name (409)."""
        return await self._exchange("DELETE", path, None, {"preconditions": {"uid": uid}})

    async def watch(self, path: str, query: Mapping[str, str], timeout_s: float) -> AsyncGenerator[bytes]:
        """The lines of a watch, until the server ends it in order or has been silent for long. An empty one says that it is open."""
        whole = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": f"{timeout_s:.0f}",
        }
        limits = aiohttp.ClientTimeout(
            total=timeout_s + WATCH_SILENCE_S,
            connect=CONNECT_TIMEOUT_S,
            sock_read=min(WATCH_SILENCE_S, timeout_s + REQUEST_TIMEOUT_S),
        )
        response = await self._request("WATCH", "GET", path, whole, None, _JSON, limits)
        try:
            if response.status >= 400:
                raise _refusal(response.status, await response.read())
            yield b""
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield line
                if len(rest) > LINE_MAX_BYTES:
                    raise KubeAway(f"{path}: a line of more than {LINE_MAX_BYTES} bytes")
        except TimeoutError:
            return
        except (aiohttp.ClientError, OSError) as error:
            raise KubeAway(f"{path}: {_sentence(error)}") from None
        finally:
            response.close()

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
    ) -> bytes:
        limits = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        response = await self._request(method, method, path, query, body, content_type, limits)
        try:
            answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeAway(f"{path}: {_sentence(error)}") from None
        finally:
            response.release()
        if response.status >= 400:
            raise _refusal(response.status, answer)
        return answer

    async def _request(
        self,
        verb: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        content_type: str,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        self.requests[verb] = self.requests.get(verb, 0) + 1
        headers = {"Accept": _JSON, "Content-Type": content_type, "User-Agent": USER_AGENT}
        url = f"{self._api.configuration.host}{path}"
        if query:
            url = f"{url}?{urlencode(query)}"
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            answer = await self._api.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=limits
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeAway(f"{method} {path}: {_sentence(error)}") from None
        return answer.response


def _refusal(status: int, body: bytes) -> KubeError:
    try:
        told = msgspec.json.decode(body, type=_Status)
    except msgspec.MsgspecError:
        told = _Status(message=body[:200].decode(errors="replace").strip())
    if status >= 500 and status != 504:
        return KubeAway(f"the API server answers {status}: {told.message}")
    if status == 504 or status == 429:
        return KubeAway(f"the API server is busy: {told.message}")
    return KubeRefused(status, told.reason, told.message)


def _sentence(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
