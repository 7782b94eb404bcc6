"""Status of pools and subnets, SpiderEndpoints, and the finalizers of all three, brought in line with the leases.

Owns what is compared and which request follows. Must not know the format (status.py), nor decide about addresses: a pool goes when
the allocator says that it holds no lease.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from services.controller.coverage import Coverage
from services.controller.kube import KubeClient
from services.controller.leases import Leases
from services.controller.mirror import Holder, Mirror
from services.controller.status import FINALIZER, endpoint, pool_status, subnet_status
from services.controller.typed import ENDPOINT, POOL, SUBNET, Typed
from services.controller.watched import EndpointNote, digest_of
from shared.manifests.kinds import API_VERSION
from shared.manifests.meta import Json, ObjectMeta

WRITE_INTERVAL_S = 1.0
RECORDS_PER_S = 500
"""A status with many records is large, and is written more rarely: one of 5,000 every 10 s."""
SOON_S = 0.2

Published = Callable[[], int]
"""The sequence of FACTS up to which all is told that is known here; 0 while something waits."""


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    """Our last status of a pool, and the version of the object with it."""

    uid: str
    digest: str
    resource_version: int


class PoolWriter:
    def __init__(
        self,
        client: KubeClient,
        typed: Typed,
        mirror: Callable[[], Mirror | None],
        leases: Leases,
        published: Published,
        records_max: int,
        look_again: Callable[[str, str, str, float], None],
    ) -> None:
        """`mirror` is None while the leases are not known."""
        self._client = client
        self._typed = typed
        self._mirror = mirror
        self._leases = leases
        self._published = published
        self._records_max = records_max
        self._look_again = look_again
        self._written: dict[str, _Written] = {}

    def is_foreign(self, name: str, resource_version: int) -> bool:
        """Whether somebody else may have written the pool since we did: what its status says need not be ours any more."""
        written = self._written.get(name)
        return written is not None and resource_version > written.resource_version

    async def bring(self, namespace: str, name: str) -> float:
        mirror, found = self._mirror(), self._typed.pool(name)
        if found is None:
            self._written.pop(name, None)
            return 0.0
        if mirror is None:
            return 0.0
        pool, item = found
        held = mirror.of_pool(name)
        if pool.metadata.terminating and not held:
            return await self._let_go(pool.metadata, item.resource_version)
        status = pool_status(pool.spec, held, self._records_max)
        digest, before = digest_of(status), self._written.get(name)
        same = before is not None and (before.uid, before.digest) == (item.uid, digest)
        if same and not self.is_foreign(name, item.resource_version):
            return 0.0
        version = await _write_status(
            self._client, _path("spiderippools", name), _body(POOL, item.uid, name, status)
        )
        self._written[name] = _Written(
            uid=item.uid, digest=digest, resource_version=max(item.resource_version, version)
        )
        return max(WRITE_INTERVAL_S, min(len(held), self._records_max) / RECORDS_PER_S)

    async def _let_go(self, meta: ObjectMeta, resource_version: int) -> float:
        if FINALIZER not in meta.finalizers:
            return 0.0
        sequence = self._published()
        leases = await self._leases.of_pool(meta.name, sequence) if sequence else None
        if leases != ():
            self._look_again(POOL, "", meta.name, SOON_S if leases is None else WRITE_INTERVAL_S)
            return 0.0
        await _drop_finalizer(self._client, _path("spiderippools", meta.name), meta, resource_version)
        return WRITE_INTERVAL_S


class SubnetWriter:
    def __init__(self, client: KubeClient, typed: Typed) -> None:
        self._client = client
        self._typed = typed
        self._written: dict[str, tuple[str, str]] = {}

    async def bring(self, namespace: str, name: str) -> float:
        found = self._typed.subnet(name)
        if found is None:
            self._written.pop(name, None)
            return 0.0
        subnet, item = found
        pools = self._typed.pools_of(subnet.spec.subnet)
        if subnet.metadata.terminating and not pools:
            if FINALIZER not in subnet.metadata.finalizers:
                return 0.0
            path = _path("spidersubnets", name)
            await _drop_finalizer(self._client, path, subnet.metadata, item.resource_version)
            return WRITE_INTERVAL_S
        status = subnet_status(subnet.spec, pools)
        written = (item.uid, digest_of(status))
        if self._written.get(name) == written:
            return 0.0
        await _write_status(self._client, _path("spidersubnets", name), _body(SUBNET, item.uid, name, status))
        self._written[name] = written
        return WRITE_INTERVAL_S


class EndpointWriter:
    """An endpoint is there while its pod has addresses. One is removed that no lease stands for, nor its pod."""

    def __init__(
        self,
        client: KubeClient,
        typed: Typed,
        mirror: Callable[[], Mirror | None],
        coverage: Callable[[], Coverage],
    ) -> None:
        self._client = client
        self._typed = typed
        self._mirror = mirror
        self._coverage = coverage

    async def bring(self, namespace: str, name: str) -> float:
        mirror = self._mirror()
        if mirror is None:
            return 0.0
        coverage = self._coverage()
        began = coverage.sequence
        item = self._typed.told.find(ENDPOINT, (namespace, name))
        note = msgspec.json.decode(item.body, type=EndpointNote) if item is not None else None
        pod = self._typed.pod(namespace, name)
        holder = _holder_of(mirror.of_pod(namespace, name), pod.metadata.uid if pod is not None else "")
        path = f"/apis/{API_VERSION}/namespaces/{namespace}/spiderendpoints/{name}"
        if item is not None and note is not None:
            ended = holder is None and (
                pod is None or note.terminating or note.pod_uid not in ("", pod.metadata.uid)
            )
            if ended or (note.terminating and holder is not None and note.pod_uid != holder.uid):
                interval_s = await self._remove(path, item.uid, note)
                if holder is None:
                    coverage.written((namespace, name), began)
                return interval_s
        if holder is None:
            coverage.written((namespace, name), began)
            return 0.0
        if note is not None and note.terminating:
            return 0.0
        body = endpoint(namespace, name, holder, pod, self._typed.pools)
        is_told = note is not None and note.finalizers and note.digest == digest_of(body["status"])
        if not is_told:
            await self._client.apply(path, body)
        coverage.written((namespace, name), began)
        return 0.0 if is_told else WRITE_INTERVAL_S

    async def _remove(self, path: str, uid: str, note: EndpointNote) -> float:
        """One step, as each object is written once a second: first nothing holds it, then it goes."""
        if note.finalizers:
            await self._client.merge(path, {"metadata": {"uid": uid, "finalizers": None}})
        elif not note.terminating:
            await self._client.delete(path, uid)
        return WRITE_INTERVAL_S


def _holder_of(holders: list[Holder], uid: str) -> Holder | None:
    """Of several who go by one name, the pod that is there, else the last that came."""
    of_pod = [holder for holder in holders if uid and holder.uid in ("", uid)]
    return (of_pod or holders or [None])[-1]


class _Meta(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    resource_version: str = "0"


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Meta = _Meta()
    status: dict[str, msgspec.Raw] = {}


async def _write_status(client: KubeClient, path: str, body: Json) -> int:
    """All of the status, ours alone; its version. A member that we say no more of stays where the server takes it for somebody else's
    too, as it does when Spiderpool had written the same: it is removed."""
    answer = msgspec.json.decode(await client.apply(f"{path}/status", body), type=_Answer)
    left = sorted(answer.status.keys() - body["status"].keys())
    if left:
        gone = {"metadata": {"uid": body["metadata"]["uid"]}, "status": dict.fromkeys(left)}
        answer = msgspec.json.decode(await client.merge(f"{path}/status", gone), type=_Answer)
    return int(answer.metadata.resource_version)


def _path(plural: str, name: str) -> str:
    return f"/apis/{API_VERSION}/{plural}/{name}"


def _body(kind: str, uid: str, name: str, status: Json) -> Json:
    """With the UID, so that an object of the same name that came since is not taken for it."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "uid": uid},
        "status": status,
    }


async def _drop_finalizer(client: KubeClient, path: str, meta: ObjectMeta, resource_version: int) -> None:
    kept = [one for one in meta.finalizers if one != FINALIZER]
    await client.merge(
        path, {"metadata": {"resourceVersion": str(resource_version), "finalizers": kept or None}}
    )
