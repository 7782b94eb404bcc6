"""Adoption: before anything is mirrored, what another IPAM gave in this cluster becomes leases.

Owns the order: all facts told, endpoints, pools, end. Must not know how a record is read (inherited.py), nor what is decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import msgspec
import structlog

from services.controller import inherited
from services.controller.event import About, Notable
from services.controller.kube import KubeClient, KubeError, KubeRefused
from services.controller.reflector import LIST_LIMIT
from services.controller.watched import raw_items
from shared.bus import Bus, BusError
from shared.contracts.adopt import (
    ADOPT_TIMEOUT_S,
    ADOPTION_VIEW,
    AdoptedAddress,
    Adoption,
    AdoptionView,
    AdoptRecords,
    AskAdoption,
    EndAdoption,
)
from shared.contracts.codec import MessageError, encode
from shared.manifests.kinds import API_VERSION
from shared.subjects import IPAM_ADOPT

log = structlog.get_logger()

RETRY_S = 1.0
GONE = 410


class Adopting:
    """`over`: nothing is to be adopted, or everything was; from then on it may be told that the objects are all known."""

    def __init__(
        self,
        bus: Bus,
        client: KubeClient,
        published: Callable[[], int],
        ended: Callable[[], None],
        note: Callable[[Notable], None],
    ) -> None:
        """`published` is the sequence of FACTS once all that was listed is told, 0 before."""
        self.over = False
        self._bus = bus
        self._client = client
        self._published = published
        self._ended = ended
        self._note = note

    def skip(self) -> None:
        """Nothing is to be adopted."""
        self.over = True
        self._ended()

    async def run(self) -> None:
        """Returns when adoption is over."""
        said = ""
        while not self.over:
            try:
                await self._adopt()
                self.over = True
            except (BusError, MessageError, KubeError, msgspec.MsgspecError) as error:
                if str(error) != said:
                    log.info("adoption waits", error=str(error))
                said = str(error)
                await asyncio.sleep(RETRY_S)
        self._ended()

    async def _adopt(self) -> None:
        if not (await self._ask(AskAdoption())).open:
            return
        while not (sequence := self._published()):
            await asyncio.sleep(0.05)
        adopted = refused = 0
        async for part in self._records():
            view = await self._ask(AdoptRecords(records=part, facts_at_least=sequence))
            if not view.open:
                break
            adopted += view.adopted
            refused += len(view.refused)
            for one in view.refused:
                log.warning("not adopted", address=one.address, pod=one.pod, reason=one.reason)
                namespace, _, name = one.pod.partition("/")
                about = About(api_version="v1", kind="Pod", namespace=namespace, name=name)
                self._note(Notable(about=about, reason="NotAdopted", message=f"{one.address}: {one.reason}"))
        await self._ask(EndAdoption())
        log.info("adoption ended", adopted=adopted, refused=refused)

    async def _records(self) -> AsyncGenerator[tuple[AdoptedAddress, ...]]:
        """Those of endpoints first: they know interface and node. Read page by page, so that a large cluster fits."""
        for plural, read in (
            ("spiderendpoints", inherited.of_endpoint),
            ("spiderippools", inherited.of_pool),
        ):
            async for page in self._pages(plural):
                for part in inherited.parts(record for raw in page for record in read(raw)):
                    yield part

    async def _pages(self, plural: str) -> AsyncGenerator[list[bytes]]:
        path = f"/apis/{API_VERSION}/{plural}"
        query = {"limit": str(LIST_LIMIT)}
        while True:
            try:
                items, continued = raw_items(await self._client.get(path, query))
            except KubeRefused as error:
                if error.status == GONE and "continue" in query:
                    del query[
                        "continue"
                    ]  # from the begin: what was told is told again, which changes nothing
                    continue
                raise
            yield items
            if not continued:
                return
            query["continue"] = continued

    async def _ask(self, question: Adoption) -> AdoptionView:
        answer = await self._bus.request(IPAM_ADOPT, encode(question), timeout_s=ADOPT_TIMEOUT_S)
        return ADOPTION_VIEW.decode(answer.data)
