"""/healthz, /readyz and /metrics on the service's own event loop: a loop that hangs fails its liveness, as it should.

Owns the few lines of HTTP/1.1 for that. Must not know what the service does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Ready = Callable[[], str]
"""Empty when the service is ready, else the reason why not in a few words."""

REQUEST_TIMEOUT_S = 5.0
REQUEST_MAX_BYTES = 16 * 1024
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
_TEXT = "text/plain; charset=utf-8"


class HttpServer:
    """Serves until `close`. `address` is `host:port` with the port that was really bound."""

    def __init__(self, registry: CollectorRegistry, ready: Ready) -> None:
        self._registry = registry
        self._ready = ready
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.address = ""

    async def start(self, address: str) -> None:
        """Binds `host:port` (an IPv6 host in brackets). Raises OSError, or ValueError for an address of another form."""
        host, separator, port = address.rpartition(":")
        if not separator or not port.isdigit():
            raise ValueError(f"http_address {address!r} is not host:port")
        self._server = await asyncio.start_server(self._serve, host.strip("[]") or None, int(port))
        bound = self._server.sockets[0].getsockname()
        self.address = f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            status, content_type, body = await self._answer(reader)
            head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
            head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await writer.drain()
        except (TimeoutError, OSError):
            pass  # the caller is gone or slower than it may be
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return 400, _TEXT, b"not an HTTP request\n"
        line = head.split(b"\r\n", 1)[0].split(b" ")
        if len(head) > REQUEST_MAX_BYTES or len(line) != 3:
            return 400, _TEXT, b"not an HTTP request\n"
        if line[0] != b"GET":
            return 405, _TEXT, b"only GET\n"
        match line[1].split(b"?", 1)[0]:
            case b"/healthz":
                return 200, _TEXT, b"ok\n"
            case b"/readyz":
                reason = self._ready()
                return (503, _TEXT, f"{reason}\n".encode()) if reason else (200, _TEXT, b"ok\n")
            case b"/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
            case _:
                return 404, _TEXT, b"/healthz, /readyz and /metrics are here\n"
