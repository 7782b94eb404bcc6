"""The allocator's memory: who holds which address, and what each pool has free.

Owns the state that the lease log stands for, `evolve`, and the free space derived from it. Must not know facts,
the bus, clocks or randomness. `evolve` changes the state in place: it is folded by one owner only.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import assert_never

import msgspec

from services.allocator.owner import ordinal_of
from services.allocator.past import Former, Past
from services.allocator.pool_index import PoolIndex, PoolSpace
from shared.contracts.ipam import Mark
from shared.contracts.lease import (
    AddressesQuarantined,
    AdoptionEnded,
    AttachConfirmed,
    AttachmentDetached,
    AttemptVoided,
    ClockMoved,
    LeaseEvent,
    LeaseItem,
    LeasesAdopted,
    LeasesAllocated,
    LeasesInherited,
    LeasesRebound,
    LeasesReleased,
    LogRebuilt,
    NodeDeparted,
    NodeReported,
    QuarantinedItem,
    QuarantineLifted,
    Record,
    TermStarted,
)
from shared.net.ranges import parse_address

RECENT_RECORDS = 4096
"""Records whose digest memory keeps: what a witness has seen is compared with them."""
FEW_POOLS = 4
"""Up to here a pass over the family's addresses for each pool is cheaper than looking up the pools of each address."""


class Seat(msgspec.Struct, gc=False):
    """An address that a snapshot can hold: MessagePack has no integer of 128 bits, so it is stored in halves."""

    family: int
    high: int
    low: int
    pool: str

    @property
    def address(self) -> int:
        return self.high << 64 | self.low


def halves(address: int) -> tuple[int, int]:
    return address >> 64, address & 0xFFFF_FFFF_FFFF_FFFF


class Lease(Seat, gc=False):
    """One address held on one interface; `prefix_len` is the pool's."""

    prefix_len: int


class HeldInterface(msgspec.Struct, gc=False):
    """`gc=False` as in all of a lease: there is no cycle, and a collector that looks through a million of them halts everything.

    `attached`: an attach of it was answered, the last by `attempt`; `detached`: a DEL of it was heard while the pod lives;
    then its addresses rest until `rest_until_ns` whoever they go to. `inherited`: of a pod of the same stable identity, and not
    asked for by the present one yet; `adopted`: another IPAM gave it, and no agent of ours has attached it."""

    generation: int
    leases: list[Lease]
    attached: bool = False
    detached: bool = False
    clean_gateway: bool = False
    rest_until_ns: int = 0
    attempt: str = ""
    inherited: bool = False
    adopted: bool = False

    @property
    def is_over(self) -> bool:
        """Nothing that an agent of ours attached has it any more, as far as is known."""
        return self.detached or not self.attached


class Holding(msgspec.Struct, gc=False):
    """All that one owner (a pod UID, or a container without pod) holds."""

    owner: str
    namespace: str
    name: str
    node: str
    container_id: str
    attempt: str
    interfaces: dict[str, HeldInterface]

    @property
    def generation(self) -> int:
        """The highest of its interfaces'."""
        return max(held.generation for held in self.interfaces.values())

    @property
    def is_over(self) -> bool:
        return all(held.is_over for held in self.interfaces.values())


class Resting(Seat, gc=False):
    """An address that was released and must not be given before `until_ns` while others are free."""

    until_ns: int


class Quarantined(Seat, gc=False):
    """An address that a node claims without a lease: nobody is given it until that ends."""

    claim: QuarantinedItem


class Snapshot(msgspec.Struct, kw_only=True, tag="allocator.snapshot.1"):
    """The state as it is stored; what is derived is left out."""

    incarnation: str
    term: int
    sequence: int
    digest: bytes
    at_ns: int
    generation: int
    holdings: list[Holding]
    resting: list[Resting]
    voided: dict[str, int]
    quarantine: list[Quarantined] = []
    silent: list[str] = []
    complete: bool = True
    lost: str = ""
    epoch: int = 0
    past: list[Former] = []
    adoption_open: bool = False
    lost_sequence: int = 0
    rebuilt_at: int = 0


class State:
    """Everything folded so far. `sequence` and `digest` name the last record; `at_ns` is its time.

    `silent` are the nodes that have not told their journals since the log of incarnation `lost`, known to `lost_sequence`, was lost;
    where what could be rebuilt is not `complete`, they may hold what nobody knows of. `rebuilt_at` is the record by which this log
    began after a loss."""

    def __init__(self) -> None:
        self.incarnation = ""
        self.term = 0
        self.sequence = 0
        self.digest = b""
        self.at_ns = 0
        self.generation = 0
        self.holdings: dict[str, Holding] = {}
        self.taken: dict[int, dict[int, str]] = {4: {}, 6: {}}
        self.leases_by_pool: dict[str, int] = {}
        self.resting: dict[tuple[int, int], Resting] = {}
        self.voided: dict[str, int] = {}
        self.quarantine: dict[tuple[int, int], Quarantined] = {}
        self.silent: set[str] = set()
        self.complete = True
        self.lost = ""
        self.lost_sequence = 0
        self.rebuilt_at = 0
        self.epoch = 0
        self.adoption_open = True
        """Nothing was ever given in this log, and what another IPAM gave may still be told."""
        self.recent: dict[int, bytes] = {}
        self.past = Past()
        self.pools = PoolIndex()
        self._by_container: dict[str, tuple[str, ...]] = {}
        self._by_pod: dict[tuple[str, str], set[str]] = {}
        self._by_set: dict[tuple[str, str], set[str]] = {}
        self._by_node: dict[str, dict[str, Holding]] = {}
        self._of_one_name: dict[tuple[str, str], None] = {}
        """Pods of whose name several owners hold something."""
        self._podless: dict[str, int] = {}
        """How many owners without a pod hold something on a node."""
        self._wake: list[tuple[int, int, int]] = []

    @property
    def mark(self) -> Mark:
        return Mark(incarnation=self.incarnation, sequence=self.sequence, digest=self.digest.hex())

    def holder(self, family: int, address: int) -> str | None:
        """The owner of an address, or None if nobody holds it."""
        return self.taken[family].get(address)

    def holdings_of_container(self, container_id: str) -> list[Holding]:
        """Nearly always one: an ID is unique on its node only, and a sick node may name one for two pods."""
        return [self.holdings[owner] for owner in self._by_container.get(container_id, ())]

    def holdings_of_pod(self, namespace: str, name: str) -> list[Holding]:
        return [self.holdings[owner] for owner in sorted(self._by_pod.get((namespace, name), ()))]

    def pods_of_set(self, namespace: str, stateful_set: str) -> list[str]:
        """The names of pods that hold something and that a StatefulSet of this name would make."""
        return sorted(self._by_set.get((namespace, stateful_set), ()))

    def holdings_of_node(self, node: str) -> list[Holding]:
        return list(self._by_node.get(node, {}).values())

    def nodes(self) -> frozenset[str]:
        """Those that hold something."""
        return frozenset(self._by_node)

    def unmirrored(self) -> frozenset[str]:
        """Nodes that may have what no SpiderEndpoint shows: an endpoint is of a pod, and of one owner of its name."""
        nodes = {kept.claim.node for kept in self.quarantine.values()} | self._podless.keys()
        for key in self._of_one_name:
            nodes |= {self.holdings[owner].node for owner in self._by_pod[key]}
        return frozenset(nodes - {""})

    def unsafe(self) -> frozenset[str]:
        """Nodes that may hold what nobody knows of: while there is one, no new address may be given."""
        return frozenset() if self.complete else frozenset(self.silent)

    @property
    def has_no_term(self) -> bool:
        """A rebuild has made this log, and no leader has begun a term on it: nobody was answered from it."""
        return 0 < self.sequence <= self.rebuilt_at

    def lease_count(self) -> int:
        return len(self.taken[4]) + len(self.taken[6])

    def leases(self) -> Iterator[tuple[Holding, str, HeldInterface, Lease]]:
        for holding in self.holdings.values():
            for ifname, held in holding.interfaces.items():
                for lease in held.leases:
                    yield holding, ifname, held, lease

    def wake(self, now_ns: int) -> None:
        """Ends the rest of every address whose time has come and forgets old attempts; derived, so no event tells it."""
        while self._wake and self._wake[0][0] <= now_ns:
            until_ns, family, address = heapq.heappop(self._wake)
            resting = self.resting.get((family, address))
            if resting is not None and resting.until_ns == until_ns:
                del self.resting[family, address]
                self._free(family, address)
        for attempt in [attempt for attempt, until_ns in self.voided.items() if until_ns <= now_ns]:
            del self.voided[attempt]

    def fold(self, record: Record, sequence: int, digest: bytes) -> None:
        """Applies one record of the log. The caller has compared `record.previous` with `digest` of the state."""
        for event in record.events:
            self.evolve(event)
        self.advance(record, sequence, digest)

    def advance(self, record: Record, sequence: int, digest: bytes) -> None:
        """Notes where the log is after a record whose events were applied when they were decided."""
        self.incarnation = record.incarnation
        self.term = record.term
        self.sequence = sequence
        self.digest = digest
        self.at_ns = max(self.at_ns, record.at_ns)
        self.recent[sequence] = digest
        if len(self.recent) > RECENT_RECORDS:
            del self.recent[next(iter(self.recent))]

    def evolve(self, event: LeaseEvent) -> None:
        """Total over every event that a leader ever wrote."""
        match event:
            case LeasesAllocated():
                self._allocated(event)
            case AttachConfirmed():
                self._confirmed(event)
            case LeasesRebound():
                self._rebound(event)
            case LeasesInherited():
                self._inherited(event)
            case LeasesAdopted():
                self._adopted(event)
            case AdoptionEnded():
                self.adoption_open = False
            case AttachmentDetached():
                holding = self.holdings.get(event.owner)
                held = holding.interfaces.get(event.ifname) if holding else None
                if held is not None and held.generation == event.generation:
                    held.detached, held.rest_until_ns = True, event.rest_until_ns
            case LeasesReleased():
                self._released(event)
            case AttemptVoided():
                self.voided[event.attempt] = event.until_ns
            case AddressesQuarantined():
                for item in event.items:
                    self._keep_from_others(item)
            case QuarantineLifted():
                for address in event.addresses:
                    self._lift(parse_address(address))
            case LogRebuilt():
                self.generation = max(self.generation, event.generation)
                self.silent, self.complete, self.lost = set(event.silent), event.complete, event.lost
                self.lost_sequence = event.lost_sequence
                self.epoch, self.adoption_open = event.epoch, False
            case NodeReported():
                self.silent.discard(event.node)
            case NodeDeparted():
                self.silent.discard(event.node)
                for key, kept in list(self.quarantine.items()):
                    if kept.claim.node == event.node:
                        self._lift(key)
            case ClockMoved():
                self._move_clock(event.by_ns)
            case TermStarted():
                pass
            case _:
                assert_never(event)

    def _move_clock(self, by_ns: int) -> None:
        for resting in self.resting.values():
            resting.until_ns += by_ns
        # adding the same to each keeps the order of the heap
        self._wake = [(until_ns + by_ns, family, address) for until_ns, family, address in self._wake]
        for attempt in self.voided:
            self.voided[attempt] += by_ns
        # of pods that live still: who takes their place, or their addresses, waits as long
        for holding in self.holdings.values():
            for held in holding.interfaces.values():
                if held.rest_until_ns:
                    held.rest_until_ns += by_ns

    def _keep_from_others(self, item: QuarantinedItem) -> None:
        """The first claim stands: a second node's does not take its place."""
        family, address = parse_address(item.address)
        if (family, address) not in self.quarantine:
            self.quarantine[family, address] = Quarantined(family, *halves(address), item.pool, item)
            self.pools.take(family, address)

    def _lift(self, key: tuple[int, int]) -> None:
        if self.quarantine.pop(key, None) is not None and not self.is_busy(*key):
            self.pools.give_back(*key)

    def _allocated(self, event: LeasesAllocated) -> None:
        holding = self.holdings.get(event.owner)
        if holding is None:
            holding = Holding(
                owner=event.owner,
                namespace=event.pod_namespace,
                name=event.pod_name,
                node=event.node,
                container_id=event.container_id,
                attempt=event.attempt,
                interfaces={},
            )
            self._add(holding)
        self.adoption_open = False
        self._seat(holding, event.node, event.container_id, event.attempt)
        self.generation = max(self.generation, event.generation)
        for item in event.items:
            self._hold(holding, item, event.generation)
        for ifname in event.attached:
            held = holding.interfaces.get(ifname)
            if held is not None:
                held.attached, held.attempt = True, event.attempt

    def _add(self, holding: Holding) -> None:
        self.holdings[holding.owner] = holding
        self._enter(holding)
        if holding.namespace:
            key = (holding.namespace, holding.name)
            owners = self._by_pod.setdefault(key, set())
            owners.add(holding.owner)
            if len(owners) > 1:
                self._of_one_name[key] = None
            if (identity := ordinal_of(holding.name)) is not None:
                self._by_set.setdefault((holding.namespace, identity[0]), set()).add(holding.name)

    def _remove(self, holding: Holding) -> None:
        del self.holdings[holding.owner]
        self._leave(holding)
        owners = self._by_pod.get((holding.namespace, holding.name))
        if owners is not None:
            owners.discard(holding.owner)
            if len(owners) < 2:
                self._of_one_name.pop((holding.namespace, holding.name), None)
            if not owners:
                del self._by_pod[holding.namespace, holding.name]
                self._leave_set(holding)

    def _leave_set(self, holding: Holding) -> None:
        identity = ordinal_of(holding.name)
        if identity is not None:
            names = self._by_set[holding.namespace, identity[0]]
            names.discard(holding.name)
            if not names:
                del self._by_set[holding.namespace, identity[0]]

    def _inherited(self, event: LeasesInherited) -> None:
        holding = self.holdings.get(event.owner)
        if holding is None or event.heir in self.holdings:
            return
        self._remove(holding)
        holding.owner, holding.attempt = event.heir, event.attempt
        holding.node, holding.container_id = event.node, event.container_id
        self._add(holding)
        self.generation = max(self.generation, event.generation)
        for ifname, held in holding.interfaces.items():
            is_attached = ifname in event.attached
            holding.interfaces[ifname] = HeldInterface(
                generation=event.generation,
                leases=held.leases,
                attached=is_attached,
                clean_gateway=held.clean_gateway,
                attempt=event.attempt if is_attached else "",
                inherited=not is_attached,
            )
            for lease in held.leases:
                self.taken[lease.family][lease.address] = event.heir

    def _adopted(self, event: LeasesAdopted) -> None:
        holding = self.holdings.get(event.owner)
        if holding is None:
            holding = Holding(
                owner=event.owner,
                namespace=event.pod_namespace,
                name=event.pod_name,
                node=event.node,
                container_id="",
                attempt="",
                interfaces={},
            )
            self._add(holding)
        elif event.node and not holding.node:
            self._seat(holding, event.node, holding.container_id, holding.attempt)
        self.generation = max(self.generation, event.generation)
        for item in event.items:
            self._hold(holding, item, event.generation)
            holding.interfaces[item.ifname].adopted = True

    def _hold(self, holding: Holding, item: LeaseItem, generation: int) -> None:
        family, address = parse_address(item.address)
        held = holding.interfaces.get(item.ifname)
        if held is None:
            held = HeldInterface(generation=generation, leases=[], clean_gateway=item.clean_gateway)
            holding.interfaces[item.ifname] = held
        held.leases.append(Lease(family, *halves(address), item.pool, item.prefix_len))
        self.taken[family][address] = holding.owner
        self.leases_by_pool[item.pool] = self.leases_by_pool.get(item.pool, 0) + 1
        self.resting.pop((family, address), None)
        self.past.forget(family, address)
        self.pools.take(family, address)

    def _seat(self, holding: Holding, node: str, container_id: str, attempt: str) -> None:
        if (holding.container_id, holding.node) != (container_id, node):
            self._leave(holding)
            holding.container_id, holding.node = container_id, node
            self._enter(holding)
        holding.attempt = attempt

    def _enter(self, holding: Holding) -> None:
        self._by_node.setdefault(holding.node, {})[holding.owner] = holding
        if not holding.namespace:
            self._podless[holding.node] = self._podless.get(holding.node, 0) + 1
        owners = self._by_container.get(holding.container_id, ())
        self._by_container[holding.container_id] = (*owners, holding.owner)

    def _leave(self, holding: Holding) -> None:
        of_node = self._by_node[holding.node]
        del of_node[holding.owner]
        if not of_node:
            del self._by_node[holding.node]
        if not holding.namespace:
            self._podless[holding.node] -= 1
            if not self._podless[holding.node]:
                del self._podless[holding.node]
        owners = tuple(o for o in self._by_container.get(holding.container_id, ()) if o != holding.owner)
        if owners:
            self._by_container[holding.container_id] = owners
        else:
            self._by_container.pop(holding.container_id, None)

    def _confirmed(self, event: AttachConfirmed) -> None:
        holding = self.holdings.get(event.owner)
        held = holding.interfaces.get(event.ifname) if holding else None
        if holding is not None and held is not None and holding.container_id == event.container_id:
            held.attached, held.detached, held.rest_until_ns = True, False, 0
            held.inherited = held.adopted = False
            holding.attempt = held.attempt = event.attempt
            if event.generation:
                held.generation = event.generation
                self.generation = max(self.generation, event.generation)

    def _rebound(self, event: LeasesRebound) -> None:
        holding = self.holdings.get(event.owner)
        if holding is None:
            return
        self._seat(holding, event.node, event.container_id, event.attempt)
        self.generation = max(self.generation, event.generation)
        for ifname, held in holding.interfaces.items():
            held.generation = event.generation
            held.attached = ifname in event.attached
            held.attempt = event.attempt if held.attached else ""
            held.detached, held.rest_until_ns = False, 0
            held.inherited = held.inherited and not held.attached
            held.adopted = held.adopted and not held.attached

    def _released(self, event: LeasesReleased) -> None:
        holding = self.holdings.get(event.owner)
        if holding is None:
            return
        for ifname in event.ifnames:
            held = holding.interfaces.pop(ifname, None)
            for lease in held.leases if held is not None else ():
                self._give_back(lease, event.rest_until_ns)
                former = Former(
                    family=lease.family,
                    high=lease.high,
                    low=lease.low,
                    owner=holding.owner,
                    ifname=ifname,
                    node=holding.node,
                    container_id=holding.container_id,
                    generation=held.generation if held is not None else 0,
                )
                self.past.remember(former)
        if not holding.interfaces:
            self._remove(holding)

    def _give_back(self, lease: Lease, rest_until_ns: int) -> None:
        del self.taken[lease.family][lease.address]
        self.leases_by_pool[lease.pool] -= 1
        if not self.leases_by_pool[lease.pool]:
            del self.leases_by_pool[lease.pool]
        if rest_until_ns > 0:
            key = (lease.family, lease.address)
            self.resting[key] = Resting(lease.family, lease.high, lease.low, lease.pool, rest_until_ns)
            heapq.heappush(self._wake, (rest_until_ns, lease.family, lease.address))
        else:
            self._free(lease.family, lease.address)

    def _free(self, family: int, address: int) -> None:
        if address not in self.taken[family] and (family, address) not in self.quarantine:
            self.pools.give_back(family, address)

    def is_busy(self, family: int, address: int) -> bool:
        """Held, resting or in quarantine: what a pool's free space must not contain."""
        key = (family, address)
        return address in self.taken[family] or key in self.resting or key in self.quarantine

    def busy(self, family: int) -> Iterator[int]:
        """Each address that `is_busy`, once."""
        taken = self.taken[family]
        yield from taken
        yield from (address for f, address in self.resting if f == family)
        for key in self.quarantine:
            if key[0] == family and key[1] not in taken and key not in self.resting:
                yield key[1]

    def put_pools(self, spaces: dict[str, PoolSpace | None]) -> None:
        """Makes the free space of these pools anew; None drops a pool. One pool costs a pass over its family's addresses."""
        empty: list[int] = []
        for pool, space in spaces.items():
            if space is None:
                self.pools.drop(pool)
            else:
                self.pools.put(pool, space, empty)
        for family in (4, 6):
            touched = {n: s for n, s in spaces.items() if s is not None and s.subnet.family == family}
            if len(touched) <= FEW_POOLS:
                for pool, space in touched.items():
                    first, last = space.subnet.first, space.subnet.last
                    self.pools.put(pool, space, [a for a in self.busy(family) if first <= a <= last])
            else:
                for address in self.busy(family):
                    self.pools.take(family, address)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            incarnation=self.incarnation,
            term=self.term,
            sequence=self.sequence,
            digest=self.digest,
            at_ns=self.at_ns,
            generation=self.generation,
            holdings=list(self.holdings.values()),
            resting=list(self.resting.values()),
            voided=self.voided,
            quarantine=list(self.quarantine.values()),
            silent=sorted(self.silent),
            complete=self.complete,
            lost=self.lost,
            epoch=self.epoch,
            past=self.past.all(),
            adoption_open=self.adoption_open,
            lost_sequence=self.lost_sequence,
            rebuilt_at=self.rebuilt_at,
        )

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot) -> State:
        state = cls()
        state.incarnation, state.term = snapshot.incarnation, snapshot.term
        state.sequence, state.digest, state.at_ns = snapshot.sequence, snapshot.digest, snapshot.at_ns
        state.generation = snapshot.generation
        state.voided = dict(snapshot.voided)
        for holding in snapshot.holdings:
            state._add(holding)
            for held in holding.interfaces.values():
                for lease in held.leases:
                    state.taken[lease.family][lease.address] = holding.owner
                    state.leases_by_pool[lease.pool] = state.leases_by_pool.get(lease.pool, 0) + 1
        for kept in snapshot.quarantine:
            state.quarantine[kept.family, kept.address] = kept
        state.silent, state.complete, state.lost = set(snapshot.silent), snapshot.complete, snapshot.lost
        state.epoch, state.adoption_open = snapshot.epoch, snapshot.adoption_open
        state.lost_sequence, state.rebuilt_at = snapshot.lost_sequence, snapshot.rebuilt_at
        state.past = Past(snapshot.past)
        state.recent[snapshot.sequence] = snapshot.digest
        for resting in snapshot.resting:
            state.resting[resting.family, resting.address] = resting
            heapq.heappush(state._wake, (resting.until_ns, resting.family, resting.address))
        return state
