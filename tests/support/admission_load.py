"""AdmissionReviews at a steady rate from a real TLS client, as an API server sends them: how long each took, and which failed.

    figures = await load("https://127.0.0.1:5722", ca_file, reviews, rate_per_s=200, seconds=10)
    figures.p99_ms

Open loop: a slow answer does not slow the next request down, so waiting shows. Must not know what is reviewed.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """`durations_ms` of all that were answered; `failures` are those that were not answered with 200."""

    durations_ms: tuple[float, ...]
    failures: tuple[str, ...]

    @property
    def p50_ms(self) -> float:
        return self._quantile(0.5)

    @property
    def p99_ms(self) -> float:
        return self._quantile(0.99)

    def _quantile(self, part: float) -> float:
        ordered = sorted(self.durations_ms)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


async def load(
    url: str,
    ca_file: Path,
    reviews: Sequence[tuple[str, bytes]],
    *,
    rate_per_s: float,
    seconds: float,
    fresh_every: int = 50,
) -> Figures:
    """Sends `reviews` (path and body) in turn; every `fresh_every`-th one on a connection of its own, with a new handshake."""
    context = ssl.create_default_context(cafile=str(ca_file))
    durations: list[float] = []
    failures: list[str] = []

    async def send(session: aiohttp.ClientSession, path: str, body: bytes) -> None:
        start = time.perf_counter()
        try:
            async with session.post(
                f"{url}{path}", data=body, headers={"Content-Type": "application/json"}
            ) as answer:
                text = await answer.read()
                if answer.status != 200:
                    failures.append(f"{answer.status} {text[:200]!r}")
                    return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failures.append(f"{type(error).__name__}: {error}")
            return
        durations.append((time.perf_counter() - start) * 1e3)

    async def send_fresh(path: str, body: bytes) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            await send(session, path, body)

    tasks: list[asyncio.Task[None]] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=50)) as kept:
        begin = time.perf_counter()
        for i in range(int(rate_per_s * seconds)):
            await asyncio.sleep(max(0.0, begin + i / rate_per_s - time.perf_counter()))
            path, body = reviews[i % len(reviews)]
            one = send_fresh(path, body) if i % fresh_every == 0 else send(kept, path, body)
            tasks.append(asyncio.create_task(one))
        await asyncio.gather(*tasks)
    return Figures(durations_ms=tuple(durations), failures=tuple(failures))
