"""The leases as the log tells them, as far as others want to see them: by pod and by pool.

Owns the fold of lease events for status and endpoints, and which pods and pools changed since last asked. Must not know facts, the
bus or how a status looks. Pure. It starts from the allocator's own pages and goes on with the log from before the first page: events
that a page knew already change nothing in the end, because each is applied by owner and interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from shared.contracts.lease import (
    LeaseEvent,
    LeaseItem,
    LeasesAdopted,
    LeasesAllocated,
    LeasesInherited,
    LeasesRebound,
    LeasesReleased,
    LogRebuilt,
)
from shared.contracts.query import LeaseView


class MirroredLease(msgspec.Struct, frozen=True, gc=False):
    interface: str
    address: str
    pool: str
    prefix_len: int
    clean_gateway: bool


class Holder(msgspec.Struct, gc=False):
    """All that one owner has. `uid` is the pod's, empty where it is not known."""

    namespace: str
    name: str
    uid: str
    node: str
    leases: tuple[MirroredLease, ...]


class Mirror:
    def __init__(self) -> None:
        self.holders: dict[str, Holder] = {}
        self.by_pool: dict[str, dict[str, str]] = {}
        self.lost = False
        """The log was rebuilt, or told something unknown: start again from the allocator's pages."""
        self._by_pod: dict[tuple[str, str], dict[str, None]] = {}
        self._pods: dict[tuple[str, str], None] = {}
        self._pools: dict[str, None] = {}
        self._words: dict[str, str] = {}

    def changed(self) -> tuple[list[tuple[str, str]], list[str]]:
        """Pods (namespace, name) and pools that changed since the last call."""
        pods, pools = list(self._pods), list(self._pools)
        self._pods.clear()
        self._pools.clear()
        return pods, pools

    def of_pod(self, namespace: str, name: str) -> list[Holder]:
        return [self.holders[owner] for owner in self._by_pod.get((namespace, name), ())]

    def of_pool(self, pool: str) -> Mapping[str, Holder]:
        """Addresses of the pool, each with who has it."""
        return {address: self.holders[owner] for address, owner in self.by_pool.get(pool, {}).items()}

    def pods(self) -> Iterable[tuple[str, str]]:
        return self._by_pod

    def load(self, views: Iterable[LeaseView]) -> None:
        """A page of leases as the allocator has them."""
        for view in views:
            if not view.interface:
                continue
            owner = _owner(view)
            holder = self._holder(owner, view.pod_namespace, view.pod_name, view.node)
            lease = MirroredLease(
                self._word(view.interface),
                view.address,
                self._word(view.pool),
                view.prefix_len,
                view.clean_gateway,
            )
            self._hold(owner, holder, (lease,))

    def fold(self, event: LeaseEvent) -> None:
        match event:
            case LeasesAllocated() | LeasesAdopted():
                holder = self._holder(event.owner, event.pod_namespace, event.pod_name, event.node)
                self._seat(holder, event.node)
                self._hold(event.owner, holder, map(self._lease, event.items))
            case LeasesRebound():
                if (holder := self.holders.get(event.owner)) is not None:
                    self._seat(holder, event.node)
            case LeasesInherited():
                self._inherit(event)
            case LeasesReleased():
                self._release(event.owner, frozenset(event.ifnames))
            case LogRebuilt():
                self.lost = True
            case _:
                pass

    def _lease(self, item: LeaseItem) -> MirroredLease:
        return MirroredLease(
            self._word(item.ifname), item.address, self._word(item.pool), item.prefix_len, item.clean_gateway
        )

    def _word(self, text: str) -> str:
        """One string for all that are equal: names of nodes, pools and interfaces stand in every lease."""
        return self._words.setdefault(text, text)

    def _holder(self, owner: str, namespace: str, name: str, node: str) -> Holder:
        holder = self.holders.get(owner)
        if holder is None:
            uid = "" if owner.startswith(("container:", "pod:")) else owner
            holder = Holder(self._word(namespace), name, uid, self._word(node), ())
            self.holders[owner] = holder
            if namespace:
                self._by_pod.setdefault((holder.namespace, name), {})[owner] = None
        return holder

    def _seat(self, holder: Holder, node: str) -> None:
        if node and holder.node != node:
            holder.node = self._word(node)
            self._touch(holder)

    def _hold(self, owner: str, holder: Holder, leases: Iterable[MirroredLease]) -> None:
        kept = {(lease.interface, lease.address): lease for lease in holder.leases}
        kept.update({(lease.interface, lease.address): lease for lease in leases})
        holder.leases = tuple(kept.values())
        for lease in holder.leases:
            self.by_pool.setdefault(lease.pool, {})[lease.address] = owner
            self._pools[lease.pool] = None
        self._touch(holder)

    def _release(self, owner: str, interfaces: frozenset[str]) -> None:
        holder = self.holders.get(owner)
        if holder is None:
            return
        for lease in holder.leases:
            if lease.interface in interfaces:
                self._let_go(owner, lease)
        holder.leases = tuple(lease for lease in holder.leases if lease.interface not in interfaces)
        self._touch(holder)
        if not holder.leases:
            self._forget(owner, holder)

    def _let_go(self, owner: str, lease: MirroredLease) -> None:
        self._pools[lease.pool] = None
        of_pool = self.by_pool.get(lease.pool, {})
        if of_pool.get(lease.address) == owner:
            del of_pool[lease.address]
            if not of_pool:
                del self.by_pool[lease.pool]

    def _inherit(self, event: LeasesInherited) -> None:
        holder = self.holders.get(event.owner)
        if holder is None or event.heir == event.owner:
            return
        self._forget(event.owner, holder)
        heir = self._holder(event.heir, holder.namespace, holder.name, event.node)
        self._hold(event.heir, heir, holder.leases)

    def _forget(self, owner: str, holder: Holder) -> None:
        del self.holders[owner]
        owners = self._by_pod.get((holder.namespace, holder.name))
        if owners is not None:
            owners.pop(owner, None)
            if not owners:
                del self._by_pod[holder.namespace, holder.name]

    def _touch(self, holder: Holder) -> None:
        if holder.namespace:
            self._pods[holder.namespace, holder.name] = None
        for lease in holder.leases:
            self._pools[lease.pool] = None


def _owner(view: LeaseView) -> str:
    if view.pod_uid:
        return view.pod_uid
    if view.pod_namespace:
        return f"pod:{view.pod_namespace}/{view.pod_name}"
    return f"container:{view.node}/{view.container_id}"
