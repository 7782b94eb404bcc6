"""What another IPAM gave becomes leases: `decide_adopt(state, facts, records) → Adopted`. Pure.

Owns which records become leases of whom, and what is told of the others. Must not know where the records were read, the bus or time.

An address that a pod may have is never left to be given to another: a record becomes a lease whatever is odd about it, as long as a
pool could give its address at all. Whether its pod is still there is left to garbage collection, which has all the objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from services.allocator.facts import Facts
from services.allocator.pod import KnownPod
from services.allocator.state import State
from shared import limits
from shared.contracts.adopt import RECORDS_PER_PART_MAX, AdoptedAddress, NotAdopted
from shared.contracts.lease import LeaseEvent, LeaseItem, LeasesAdopted, LeasesReleased, QuarantineLifted
from shared.net.ranges import format_address, parse_address
from shared.selection.cluster import PoolFact

Key = tuple[int, int]
"""Family and address."""


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """`count` are addresses that their pods have as leases now, those that had them before included."""

    events: tuple[LeaseEvent, ...] = ()
    count: int = 0
    refused: tuple[NotAdopted, ...] = ()


class _Owned(msgspec.Struct):
    """What one owner is given: by interface and family, the item."""

    namespace: str
    name: str
    node: str
    taken: set[tuple[str, int]]
    items: list[LeaseItem]


def decide_adopt(state: State, facts: Facts, records: tuple[AdoptedAddress, ...]) -> Adopted:
    """The same records again change nothing. Of two pods on one address the one that lives has it, else the first."""
    if len(records) > RECORDS_PER_PART_MAX:
        told = f"{len(records)} records in one part, at most {RECORDS_PER_PART_MAX} are taken"
        return Adopted(refused=(NotAdopted(address="", pod="", reason=told),))
    work = _Adoption(state, facts)
    for record in sorted(records, key=work.rank):
        work.take(record)
    return work.adopted()


def no_longer_kept(state: State, events: Iterable[LeaseEvent]) -> Iterator[QuarantineLifted]:
    """Of what these events gave: addresses that were kept from everybody because a link of their node has them, and nobody knew for whom."""
    for event in events:
        if not isinstance(event, LeasesAdopted):
            continue
        found = [(item.address, state.quarantine.get(parse_address(item.address))) for item in event.items]
        known = tuple(
            address
            for address, kept in found
            if kept is not None and kept.claim.node == event.node and not kept.claim.container_id
        )
        if known:
            yield QuarantineLifted(addresses=known, reason="the pod that has it is known")


class _Adoption:
    def __init__(self, state: State, facts: Facts) -> None:
        self._state = state
        self._facts = facts
        self._owned: dict[str, _Owned] = {}
        self._given: dict[Key, str] = {}
        self._freed: dict[Key, LeasesReleased] = {}
        self._refused: list[NotAdopted] = []
        self._count = 0
        self._by_uid: dict[str, KnownPod] = {}

    def rank(self, record: AdoptedAddress) -> tuple[bool, bool]:
        """Who lives goes first, and what names its interface."""
        pod = self._pod_of(record)
        return (pod is None or bool(pod.dead), not record.ifname)

    def _pod_of(self, record: AdoptedAddress) -> KnownPod | None:
        """The pod whose record it is. A SpiderEndpoint may have another name than its pod, as for virtual machines: then the UID tells."""
        pod = self._facts.pods.get((record.pod_namespace, record.pod_name))
        if pod is not None and record.pod_uid in ("", pod.uid, pod.config_hash):
            return pod
        if not record.pod_uid:
            return None
        if not self._by_uid:
            self._by_uid = {one.uid: one for one in self._facts.pods.values() if one.uid}
        return self._by_uid.get(record.pod_uid)

    def adopted(self) -> Adopted:
        events: list[LeaseEvent] = [*self._freed.values()]
        generation = self._state.generation
        for owner, owned in self._owned.items():
            if not owned.items:
                continue
            generation += 1
            events.append(
                LeasesAdopted(
                    owner=owner,
                    generation=generation,
                    items=tuple(owned.items),
                    pod_namespace=owned.namespace,
                    pod_name=owned.name,
                    node=owned.node,
                )
            )
        return Adopted(events=tuple(events), count=self._count, refused=tuple(self._refused))

    def take(self, record: AdoptedAddress) -> None:
        if wrong := _flaw(record):
            self._refuse(record, wrong)
            return
        try:
            family, address = parse_address(record.address.partition("/")[0])
        except ValueError as error:
            self._refuse(record, f"{error}; mend the record")
            return
        key = (family, address)
        pool = self._pool(record.pool, key)
        if pool is None:
            self._refuse(record, "no SpiderIPPool has an address range around it, so nobody is given it")
            return
        pod = self._pod_of(record)
        owner = (
            record.pod_uid
            or (pod.uid if pod is not None else "")
            or f"pod:{record.pod_namespace}/{record.pod_name}"
        )
        holder = self._holder(key)
        if holder not in (None, owner) and not self._gives_way(holder, key, pod):
            self._refuse(
                record, f"pod {self._name_of(holder)} has it; delete whichever of the two pods is to go"
            )
            return
        self._count += 1
        if holder != owner:
            self._give(owner, record, key, pool, pod)

    def _give(
        self, owner: str, record: AdoptedAddress, key: Key, pool: PoolFact, pod: KnownPod | None
    ) -> None:
        node = record.node or (pod.node if pod is not None else "")
        owned = self._owned.get(owner)
        if owned is None:
            name = (pod.namespace, pod.name) if pod is not None else (record.pod_namespace, record.pod_name)
            owned = self._owned[owner] = _Owned(*name, node, self._has(owner), [])
        owned.node = owned.node or node
        ifname = record.ifname
        if not ifname or (ifname, key[0]) in owned.taken:
            ifname = next(name for name in _names() if (name, key[0]) not in owned.taken)
        owned.taken.add((ifname, key[0]))
        self._given[key] = owner
        owned.items.append(
            LeaseItem(
                ifname=ifname,
                address=format_address(key[1], key[0]),
                pool=pool.name,
                prefix_len=pool.subnet.prefix_len,
                clean_gateway=record.clean_gateway,
            )
        )

    def _has(self, owner: str) -> set[tuple[str, int]]:
        holding = self._state.holdings.get(owner)
        if holding is None:
            return set()
        return {(ifname, one.family) for ifname, held in holding.interfaces.items() for one in held.leases}

    def _holder(self, key: Key) -> str | None:
        given = self._given.get(key)
        if given is not None:
            return given
        return None if key in self._freed else self._state.holder(*key)

    def _gives_way(self, holder: str | None, key: Key, pod: KnownPod | None) -> bool:
        """An earlier part may have given it to one that is gone; a lease of ours never gives way."""
        holding = self._state.holdings.get(holder or "")
        if holding is None or pod is None or pod.dead:
            return False
        ifname, held = next(
            (name, held)
            for name, held in holding.interfaces.items()
            if any((one.family, one.address) == key for one in held.leases)
        )
        if not held.adopted or self._lives(holding.namespace, holding.name, holding.owner):
            return False
        released = LeasesReleased(
            owner=holding.owner, ifnames=(ifname,), reason="adopted for a pod that lives"
        )
        for one in held.leases:
            self._freed[one.family, one.address] = released
        return True

    def _lives(self, namespace: str, name: str, owner: str) -> bool:
        pod = self._facts.pods.get((namespace, name))
        return pod is not None and not pod.dead and owner in ("", pod.uid, pod.config_hash)

    def _name_of(self, owner: str | None) -> str:
        owned = self._owned.get(owner or "")
        if owned is not None:
            return f"{owned.namespace}/{owned.name}"
        holding = self._state.holdings.get(owner or "")
        return f"{holding.namespace}/{holding.name}" if holding is not None else owner or ""

    def _pool(self, name: str, key: Key) -> PoolFact | None:
        """The pool named, if its subnet has the address; else one that could give it; else one around it."""
        named = self._facts.pools.get(name)
        if named is not None and named.family == key[0] and key[1] in named.subnet:
            return named
        around = [
            pool
            for _, pool in sorted(self._facts.pools.items())
            if pool.family == key[0] and key[1] in pool.subnet
        ]
        return next((pool for pool in around if key[1] in pool.total), around[0] if around else None)

    def _refuse(self, record: AdoptedAddress, reason: str) -> None:
        pod = f"{record.pod_namespace}/{record.pod_name}"[: 2 * limits.NAME_MAX_BYTES]
        address = record.address[: limits.NAME_MAX_BYTES]
        self._refused.append(NotAdopted(address=address, pod=pod, reason=reason))


def _flaw(record: AdoptedAddress) -> str:
    if not (record.pod_namespace and record.pod_name):
        return "the record names no pod; remove it, or name the pod as namespace/name"
    fields = (record.pod_namespace, record.pod_name, record.pod_uid, record.node)
    if any(len(text) > limits.NAME_MAX_BYTES for text in fields):
        return "a name in the record is longer than any object's"
    return (
        "the name of its interface cannot be one"
        if len(record.ifname.encode()) > limits.IFNAME_MAX_BYTES
        else ""
    )


def _names() -> Iterable[str]:
    """As Multus names interfaces, which is all there is to go by where no SpiderEndpoint tells."""
    yield "eth0"
    number = 0
    while True:
        number += 1
        yield f"net{number}"
