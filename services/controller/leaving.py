"""Leaving a cluster: what protects our objects goes when their kinds go.

A finalizer keeps a pool while it has leases, and an endpoint while its pod has addresses. Where the very kind is deleted, nothing of it
can be kept, and `kubectl delete -k` deletes kinds, rights and workloads in one go: nobody would be left to take the finalizers off. So
whoever leads looks after kinds that go, and a controller that is asked to stop looks whether its installation is being deleted, and then
ends only when they are off. Its account and the rights for that carry a finalizer of their own meanwhile. It is put on by the first
leader, so that an installation that never ran leaves nothing behind.

Owns when that is, and the requests. Must not know what an object is good for.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from services.controller.kube import KubeClient, KubeError, KubeRefused
from services.controller.reflector import Change, Put
from services.controller.status import FINALIZER
from services.controller.watched import Watched
from shared.manifests.kinds import API_VERSION, GROUP, KINDS
from shared.manifests.meta import Object

log = structlog.get_logger()

HOLD = "orbweaver.io/uninstall"
ACCOUNT, RIGHTS = "orbweaver-controller", "orbweaver-controller-uninstall"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
LOOK_S = 3.0
"""So long a controller that stops asks whether it is uninstalled; an API server that is away must not hold up a rollout."""
LEAVE_S = 100.0
"""Below terminationGracePeriodSeconds of its Deployment."""
KINDS_FOLLOW_S = 10.0
"""Within this after the first sign the kinds go too, or they are to stay."""
AGAIN_S = 0.5
HINTS_S = 5.0
"""Objects are deleted all the time where pods come and go: so often the kinds are looked at for that."""
PAGE, WRITERS = 500, 16
NOT_FOUND, CONFLICT, NO_RIGHTS = 404, 409, (401, 403)
_KINDS = {row.kind: row.plural for row in KINDS if row.ours}
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"

State = Literal["there", "going", "gone"]


class _ListMeta(msgspec.Struct, frozen=True, kw_only=True):
    continued: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _ListMeta = _ListMeta()
    items: tuple[Object, ...] = ()


def own_namespace() -> str:
    """Where our pod is; empty outside a cluster."""
    try:
        return NAMESPACE_FILE.read_text().strip()
    except OSError:
        return ""


class Leaving:
    """`namespace` is that of our account; empty where we have none, and nothing of ours is held then."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._account = f"/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}"
        self._rights = (f"{_RBAC}/clusterroles/{RIGHTS}", f"{_RBAC}/clusterrolebindings/{RIGHTS}")
        self._hinted: set[str] = set()
        self._hint = asyncio.Event()

    def on_change(self, watched: Watched, change: Change) -> None:
        """An object that is being deleted may be one of a kind that is."""
        kind = _KINDS.get(watched.kind)
        if kind is not None and isinstance(change, Put) and _is_marked(change.item.body):
            self._hinted.add(kind)
            self._hint.set()

    async def run(self) -> None:
        """While this replica leads; for ever."""
        if self._namespace:
            await self._hold()
        while True:
            await self._hint.wait()
            self._hint.clear()
            kinds, self._hinted = self._hinted, set()
            for plural in kinds:
                try:
                    while await self._state(plural) == "going" and await self._free(plural):
                        await asyncio.sleep(AGAIN_S)
                except KubeError as error:
                    log.info("finalizers are not taken off yet", kind=plural, error=str(error))
            await asyncio.sleep(HINTS_S)

    async def leave(self) -> None:
        """Before the process ends. Returns soon unless this installation is being deleted; within LEAVE_S then."""
        if not self._namespace:
            return
        try:
            async with asyncio.timeout(LOOK_S):
                if not await self._is_uninstalled():
                    return
        except (KubeError, TimeoutError) as error:
            log.info("whether this installation is being deleted is not known", error=str(error))
            return
        log.info("this installation is being deleted: its objects lose their finalizers")
        try:
            async with asyncio.timeout(LEAVE_S):
                await asyncio.gather(*(self._see_off(plural) for plural in _KINDS.values()))
        except TimeoutError:
            log.warning("not all finalizers could be taken off", within_s=LEAVE_S)
        await self._release()

    async def _see_off(self, plural: str) -> None:
        """Returns when the kind has nothing that is held, or stays."""
        until_s = time.monotonic() + KINDS_FOLLOW_S
        while True:
            try:
                state = await self._state(plural)
                if state == "gone" or (state == "going" and not await self._free(plural)):
                    return
                if state == "there" and time.monotonic() > until_s:
                    log.info("the kind stays, and its finalizers with it", kind=plural)
                    return
            except KubeError as error:
                if isinstance(error, KubeRefused) and error.status in NO_RIGHTS:
                    # another replica was done, or somebody took them away
                    log.info("finalizers are not taken off any more", kind=plural, error=str(error))
                    return
                log.info("finalizers are not taken off yet", kind=plural, error=str(error))
            await asyncio.sleep(AGAIN_S)

    async def _free(self, plural: str) -> int:
        """Takes our finalizer off every object of the kind that is being deleted; answers how many had it. Those that are not yet will be,
        and before that admission would put it on again."""
        every = f"/apis/{API_VERSION}/{plural}"
        found, continued = 0, ""
        while True:
            query = {"limit": str(PAGE), **({"continue": continued} if continued else {})}
            try:
                page = msgspec.json.decode(await self._client.get(every, query), type=_List)
            except KubeRefused as error:
                if error.status == NOT_FOUND:
                    return found
                raise
            held = [one for one in page.items if FINALIZER in one.metadata.finalizers]
            found += len(held)
            leaving = [one for one in held if one.metadata.terminating]
            for start in range(0, len(leaving), WRITERS):
                writers = (self._unprotect(plural, one) for one in leaving[start : start + WRITERS])
                await asyncio.gather(*writers)
            continued = page.metadata.continued
            if not continued:
                return found

    async def _unprotect(self, plural: str, one: Object) -> None:
        meta = one.metadata
        place = f"/namespaces/{meta.namespace}" if meta.namespace else ""
        await self._without(f"/apis/{API_VERSION}{place}/{plural}/{meta.name}", one, FINALIZER)

    async def _state(self, plural: str) -> State:
        definition = await self._read(f"{_DEFINITIONS}/{plural}.{GROUP}")
        if definition is None:
            return "gone"
        return "going" if definition.metadata.terminating else "there"

    async def _is_uninstalled(self) -> bool:
        namespace = f"/api/v1/namespaces/{self._namespace}"
        found = await asyncio.gather(*map(self._read, (namespace, self._account, *self._rights)))
        return any(one is not None and one.metadata.terminating for one in found)

    async def _hold(self) -> None:
        """Nothing is held unless all is there: another installation has other names, and keeps to the order of docs/deploy.md."""
        while True:
            try:
                paths = (self._account, *self._rights)
                found = [await self._read(path) for path in paths]
                for path, one in zip(paths, found, strict=True):
                    if one is None or None in found or one.metadata.terminating:
                        return
                    if HOLD not in one.metadata.finalizers:
                        await self._write(path, one, [*one.metadata.finalizers, HOLD])
                return
            except KubeRefused as error:
                if error.status != CONFLICT:
                    log.info("a deletion of the installation will not be waited for", error=str(error))
                    return
            except KubeError as error:
                log.info("our account is not held yet", error=str(error))
            await asyncio.sleep(AGAIN_S)

    async def _release(self) -> None:
        """The account first, whose token counts some seconds longer; then both halves of its rights at once: neither could follow the other."""
        account, *rights = (self._account, *self._rights)
        try:
            found = await asyncio.gather(*map(self._read, rights))
            await self._let_go(account, await self._read(account))
            await asyncio.gather(*map(self._let_go, rights, found))
        except KubeRefused as error:
            log.info(
                "our account or its rights are gone already", error=str(error)
            )  # another replica was done
        except KubeError as error:
            log.warning("our account or its rights are still held: docs/deploy.md", error=str(error))

    async def _let_go(self, path: str, one: Object | None) -> None:
        while (
            one is not None and HOLD in one.metadata.finalizers and not await self._without(path, one, HOLD)
        ):
            one = await self._read(path)

    async def _without(self, path: str, one: Object, finalizer: str) -> bool:
        """False if the object has changed meanwhile, and is to be looked at again."""
        try:
            await self._write(path, one, [kept for kept in one.metadata.finalizers if kept != finalizer])
        except KubeRefused as error:
            if error.status == CONFLICT:
                return False
            if error.status != NOT_FOUND:
                raise
        return True

    async def _write(self, path: str, one: Object, finalizers: list[str]) -> None:
        meta = {"resourceVersion": one.metadata.resource_version, "finalizers": finalizers or None}
        await self._client.merge(path, {"metadata": meta})

    async def _read(self, path: str) -> Object | None:
        try:
            return msgspec.json.decode(await self._client.get(path), type=Object)
        except KubeRefused as error:
            if error.status == NOT_FOUND:
                return None
            raise


def _is_marked(body: bytes) -> bool:
    """By what a reduced object or an EndpointNote has only then."""
    return b'"deletionTimestamp":' in body or b'"terminating":true' in body
