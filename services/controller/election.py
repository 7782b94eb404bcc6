"""Leading by a Lease of the API server: the requests and the pauses.

Owns when this replica may write. Must not know the rule (lease.py). While the API server is away nobody can take the lease, so a
leader that hears nothing stays what it is and writes nothing; it has lost when it sees another one's name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog

from services.controller import lease
from services.controller.kube import KubeClient, KubeError, KubeRefused

log = structlog.get_logger()

RELEASE_TIMEOUT_S = 2.0
NOT_FOUND, CONFLICT = 404, 409


class LeaseElection:
    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        dice: Callable[[], float],
        forgotten: Callable[[], None],
    ) -> None:
        """`identity` names this process: another one of the same replica is another one. `forgotten` is called when the server does not
        have what it acknowledged: its store was put back to an earlier state (a watch does not tell)."""
        self._forgotten = forgotten
        self.leader = ""
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._dice = dice
        self._observer = lease.Observer()
        self._held: lease.Lease | None = None
        self._until_s = 0.0

    @property
    def leads(self) -> bool:
        return time.monotonic() < self._until_s

    async def wait(self) -> None:
        while not await self._look():
            await asyncio.sleep(lease.RENEW_S * (0.75 + self._dice() / 2))

    async def keep(self) -> None:
        try:
            while True:
                await asyncio.sleep(lease.RENEW_S)
                if not await self._look() and self.leader not in ("", self._identity):
                    self._until_s = 0.0
                    return
        finally:
            await self._release()

    async def _look(self) -> bool:
        """Takes or renews the lease if that is possible; whether it is ours."""
        began_s = time.monotonic()
        try:
            if await self._renew():
                self._until_s = began_s + lease.DEADLINE_S
                return True
            found = await self._get()
            if found is not None:
                self.leader = found.holder
                free = self._observer.is_free(found, began_s)
                if found.holder != self._identity and not free:
                    return False
            if self._held is not None and lease.is_before(found, self._held):
                self._forgotten()
            self._held = await self._write(self._identity, found)
        except (KubeError, msgspec.MsgspecError) as error:
            log.info("the lease is neither taken nor renewed", lease=self._name, error=str(error))
            return False
        self.leader = self._identity
        self._until_s = began_s + lease.DEADLINE_S
        return True

    async def _renew(self) -> bool:
        """One request, as long as nobody has written but us."""
        if self._held is None:
            return False
        try:
            written = await self._write(self._identity, self._held)
        except KubeRefused as error:
            if error.status in (NOT_FOUND, CONFLICT):
                return False
            raise
        if written.metadata.uid != self._held.metadata.uid:
            self._forgotten()  # the server makes a Lease that is not there when it is replaced
        self._held = written
        return True

    async def _get(self) -> lease.Lease | None:
        try:
            return lease.read(await self._client.get(f"{self._collection}/{self._name}"))
        except KubeRefused as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def _write(self, holder: str, before: lease.Lease | None) -> lease.Lease:
        body = lease.body(self._namespace, self._name, holder, before, time.time())
        if before is None:
            return lease.read(await self._client.create(self._collection, body))
        return lease.read(await self._client.replace(f"{self._collection}/{self._name}", body))

    async def _release(self) -> None:
        """Makes room at once, if it is still ours."""
        if self._held is None or not self.leads:
            return
        self._until_s = 0.0
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._write("", self._held)
        except (KubeError, TimeoutError, msgspec.MsgspecError) as error:
            log.info("the lease is left to expire", error=str(error))

    @property
    def _collection(self) -> str:
        return f"/apis/{lease.API_VERSION}/namespaces/{self._namespace}/leases"
