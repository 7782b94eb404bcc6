"""The Kubernetes API as the webhook needs it: one Secret and two configurations, read, made and replaced, and when they change.

Owns its time-outs. Must not know what is in the objects.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import aiohttp
import msgspec

from shared.kubernetes_api import open_api
from shared.manifests.meta import Json

REQUEST_TIMEOUT_S = 10.0
WATCH_S = 300
"""How long one watch lasts; the API server ends it, unless nobody is there any more."""
USER_AGENT = "orbweaver-webhook"
_JSON = "application/json"


class KubeError(Exception):
    """The request failed. `status` is HTTP's, 0 where nobody answered: it may have had its effect then."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KubeClient:
    """Every request raises KubeError. `path` is the object's, or the collection's for `create`."""

    def __init__(self, api: Any) -> None:
        self._api = api

    @classmethod
    async def open(cls, kubeconfig: str) -> KubeClient:
        """By a kubeconfig file, or from inside a cluster where it is empty. Raises ValueError that names what is missing."""
        return cls(await open_api(kubeconfig))

    async def close(self) -> None:
        await self._api.close()

    async def get(self, path: str) -> Json | None:
        """None where there is none."""
        try:
            return await self._exchange("GET", path)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, path: str, body: Json) -> Json:
        return await self._exchange("POST", path, body)

    async def replace(self, path: str, body: Json) -> Json:
        """Refused (409) if the object has another resourceVersion than `body`."""
        return await self._exchange("PUT", path, body)

    async def changes(self, collection: str, name: str) -> AsyncGenerator[None]:
        """An item at the begin and whenever the object of this name came, changed or went, for a few minutes. What it is then must be
        read."""
        path = f"{collection}?watch=1&fieldSelector=metadata.name%3D{name}&timeoutSeconds={WATCH_S}"
        limits = aiohttp.ClientTimeout(total=WATCH_S + REQUEST_TIMEOUT_S, connect=REQUEST_TIMEOUT_S)
        response = await self._request("GET", path, None, limits)
        try:
            if response.status >= 400:
                raise KubeError(response.status, f"watch of {collection}: {response.status}")
            yield
            async for chunk in response.content.iter_any():
                if b"\n" in chunk:
                    yield
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(0, f"watch of {collection}: {error or type(error).__name__}") from None
        finally:
            response.close()

    async def _exchange(self, method: str, path: str, body: Json | None = None) -> Json:
        limits = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        response = await self._request(method, path, body, limits)
        status = response.status
        try:
            text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(0, f"{method} {path}: {error or type(error).__name__}") from None
        try:
            decoded: object = msgspec.json.decode(text)
        except msgspec.MsgspecError:
            decoded = {}
        found = cast("Json", decoded) if isinstance(decoded, dict) else {}
        if status >= 400:
            raise KubeError(status, f"{method} {path}: {status} {found.get('message', '')}")
        return found

    async def _request(
        self, method: str, path: str, body: Json | None, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": _JSON, "Content-Type": _JSON, "User-Agent": USER_AGENT}
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            answer = await self._api.rest_client.request(
                method,
                f"{self._api.configuration.host}{path}",
                headers=headers,
                body=body,
                _request_timeout=limits,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(0, f"{method} {path}: {error or type(error).__name__}") from None
        return answer.response
