"""Creates the objects that an installation begins with, once a process; what is there already is left alone.

Owns the requests. Must not know what the objects are (defaults.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from services.controller.kube import KubeClient, KubeError, KubeRefused
from shared.manifests.kinds import BY_KIND
from shared.manifests.meta import Json

log = structlog.get_logger()

RETRY_S = 2.0
CONFLICT = 409


async def found(client: KubeClient, objects: Iterable[Json], leads: Callable[[], bool]) -> None:
    """Returns when each is there. One that is refused is tried again: its webhook or its CRD may come later."""
    for one in objects:
        kind, meta = BY_KIND[one["kind"]], one["metadata"]
        place = f"/namespaces/{meta['namespace']}" if kind.namespaced else ""
        while True:
            try:
                if leads():
                    await client.create(f"/apis/{kind.api_version}{place}/{kind.plural}", one)
                    log.info("created", object=f"{kind.kind}/{meta['name']}")
                    break
            except KubeRefused as error:
                if error.status == CONFLICT:
                    break
                log.warning("not created", object=f"{kind.kind}/{meta['name']}", error=str(error))
            except KubeError as error:
                log.info("not created yet", object=f"{kind.kind}/{meta['name']}", error=str(error))
            await asyncio.sleep(RETRY_S)
