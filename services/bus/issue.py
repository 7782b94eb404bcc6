"""Gives a node its key: an HTTPS server on each server of the hub.

    POST /identity with `Authorization: Bearer TOKEN`  →  200 IssuedKey | 401 why not | 503 ask again later

Owns the exchange and its bounds. Must not know how a token is reviewed or a key derived. Whoever reaches the port may ask, so what is
no token of an agent for us by its own word is refused without asking the API server.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog

from services.bus.key import AUDIENCE, PATH, IssuedKey, Refused

log = structlog.get_logger()

_HEAD_MAX_BYTES = 16 * 1024
_REQUEST_S = 5.0
_OPEN_MAX = 256
_REVIEWS_MAX = 8
_REASONS = {200: "OK", 401: "Unauthorized", 404: "Not Found", 503: "Service Unavailable"}


class Unavailable(Exception):
    """Whether the token is good cannot be told now."""


Issue = Callable[[str], Awaitable[IssuedKey | Refused]]


class Issuer:
    """`issue` reviews a token and answers; it raises Unavailable."""

    def __init__(self, issue: Issue, agent: str) -> None:
        self._issue = issue
        self._agent = agent
        self._open = 0
        self._reviews = asyncio.Semaphore(_REVIEWS_MAX)
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """The port that was really bound. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, ssl=context, limit=_HEAD_MAX_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > _OPEN_MAX:
                return
            status, body = await self._answer(reader)
            head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            async with asyncio.timeout(_REQUEST_S):
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_REQUEST_S):
                    await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        async with asyncio.timeout(_REQUEST_S):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        if lines[0].split(" ")[:2] != ["POST", PATH]:
            return 404, b"POST /identity\n"
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        token = fields.get("authorization", "").removeprefix("Bearer ")
        if not claims_to_be(token, self._agent):
            return 401, f"this is no token of {self._agent} for audience {AUDIENCE}\n".encode()
        try:
            async with self._reviews:
                issued = await self._issue(token)
        except Unavailable as error:
            return 503, f"{error}\n".encode()
        if isinstance(issued, Refused):
            log.warning("no key given", reason=issued.reason)
            return 401, f"{issued.reason}\n".encode()
        log.info("key given", node=issued.node)
        return 200, msgspec.json.encode(issued)


def claims_to_be(token: str, agent: str) -> bool:
    """Does a JSON web token say of itself that it is `agent`'s and for us? Nothing is proved by that."""
    try:
        payload = token.split(".")[1]
        claims: Any = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return claims["sub"] == agent and AUDIENCE in claims["aud"]
    except (IndexError, KeyError, TypeError, ValueError):
        return False
