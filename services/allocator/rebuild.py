"""Nodes tell what they hold, the state says otherwise: which events make one truth of it.

Owns the rules, for a rebuild after a loss, for a node that reports later, and for a difference that lasts, alike. Must not
know the bus, time or how claims came here.

What is live on a node wins over the log, but only in what the log or the objects of the user confirm: a lease that the log has
ended and that its node still has is made anew; a claim that nobody else knows of keeps an address from others (quarantine). Neither
takes an address from who has it, and one node can do so with a bounded number. Of two claims the one with the higher generation
keeps the address; the other is told to a person.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence

import msgspec

from services.allocator.decide import is_kept
from services.allocator.disagreement import Disagreement
from services.allocator.facts import Facts
from services.allocator.state import HeldInterface, Holding, State
from shared import limits
from shared.contracts.lease import (
    AddressesQuarantined,
    AttachConfirmed,
    LeaseEvent,
    LeaseItem,
    LeasesAllocated,
    LeasesReleased,
    QuarantinedItem,
    QuarantineLifted,
)
from shared.contracts.witness import Claim
from shared.ids import container_owner
from shared.net.ranges import format_address, parse_address

Key = tuple[int, int]
"""Family and address."""
STEP_ITEMS = 200
QUARANTINE_ITEMS_PER_EVENT = 64
"""An event must fit into a record together with others."""
MIRRORED_REASON = "in a SpiderEndpoint, and its node is silent"


class NodeClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What one node told. `scanned`: what it does not claim is not there, but for leases of a generation after `asked_at`, which were
    given after it was asked; `unsettled`: something is under way with these containers."""

    node: str
    claims: tuple[Claim, ...]
    unsettled: frozenset[str] = frozenset()
    scanned: bool = False
    asked_at: int = limits.GENERATION_MAX


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    events: tuple[LeaseEvent, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()


def merge(state: State, facts: Facts, told: Sequence[NodeClaims], *, trusted: bool) -> Merged:
    """Changes nothing itself. `trusted`: the log is known to lack records, so the nodes restore what it does not have; else such
    claims only go into quarantine, but for leases that the log remembers to have ended."""
    steps = merging(state, facts, told, trusted=trusted)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def merging(
    state: State, facts: Facts, told: Sequence[NodeClaims], *, trusted: bool
) -> Generator[None, None, Merged]:
    """As `merge`, in steps of some milliseconds: whoever rebuilds the index of a whole cluster must not stop its event loop.

    The state must not change in between; facts may."""
    work = _Merge(state, facts, told, trusted)
    for phase in (
        work.take(),
        work.settle_leases(),
        work.settle_claims(),
        work.settle_sightings(),
        work.settle_quarantine(),
    ):
        for number, _ in enumerate(phase):
            if number % STEP_ITEMS == 0:
                yield
    return work.merged()


def parsed(addresses: Iterable[str]) -> dict[Key, int]:
    """Address → prefix length. Raises ValueError for what is none."""
    out: dict[Key, int] = {}
    for text in addresses:
        address, slash, length = text.partition("/")
        if not slash or not length.isdecimal() or len(length) > 3:
            raise ValueError(f"{text!r} is no address with a prefix length")
        out[parse_address(address)] = int(length)
    return out


class _Told(msgspec.Struct, frozen=True):
    """A claim of a container that can be true."""

    node: str
    claim: Claim
    owner: str
    keys: dict[Key, int]
    confirmed: bool
    """The user's objects have the pod alive on this node."""

    @property
    def name(self) -> str:
        one = self.claim
        who = f"{one.pod_namespace}/{one.pod_name}" if one.pod_name else f"container {one.container_id[:12]}"
        return f"{who} on {self.node}"


_NOT_ON_NODE = "its node has no such attachment"


class _Merge:
    def __init__(self, state: State, facts: Facts, told: Sequence[NodeClaims], trusted: bool) -> None:
        self._state = state
        self._facts = facts
        self._nodes = {one.node: one for one in told}
        self._trusted = trusted
        self._claims: list[_Told] = []
        self._sightings: dict[str, set[Key]] = {node: set() for node in self._nodes}
        self._claimed: dict[str, dict[Key, set[Claim]]] = {node: {} for node in self._nodes}
        self._attachments: set[tuple[str, str, str]] = set()
        self._given: dict[Key, _Told] = {}
        self._released: dict[tuple[str, str], str] = {}
        self._restored: set[tuple[str, str]] = set()
        self._allocated: list[LeasesAllocated] = []
        self._confirmed: list[AttachConfirmed] = []
        self._lifted: list[str] = []
        self._quarantined: dict[Key, QuarantinedItem] = {}
        self._unknown: dict[str, int] = {}
        self._remembered: dict[str, int] = {}
        self._beyond: dict[str, int] = {}
        self._disagreements: list[Disagreement] = []
        for kept in state.quarantine.values():
            if kept.claim.reason == MIRRORED_REASON:
                continue  # not the node's own word
            self._unknown[kept.claim.node] = self._unknown.get(kept.claim.node, 0) + 1

    def merged(self) -> Merged:
        for node, count in self._beyond.items():
            self._differ(
                node,
                f"node {node} claims {count} more addresses that nobody knows of: they are not kept from others",
                "look after the node's agent; then delete its journal, or the node",
            )
        released = [
            LeasesReleased(owner=owner, ifnames=(ifname,), reason=reason)
            for (owner, ifname), reason in self._released.items()
        ]
        kept = list(self._quarantined.values())
        size = QUARANTINE_ITEMS_PER_EVENT
        # the last of an owner says which sandbox the pod has now: the newest
        allocated = sorted(self._allocated, key=lambda event: event.generation)
        events: list[LeaseEvent] = [*released, *allocated, *self._confirmed]
        if self._lifted:
            events.append(
                QuarantineLifted(addresses=tuple(self._lifted), reason="its node claims it no more")
            )
        events += [AddressesQuarantined(items=tuple(kept[i : i + size])) for i in range(0, len(kept), size)]
        return Merged(events=tuple(events), disagreements=tuple(self._disagreements))

    # What was told

    def take(self) -> Iterator[None]:
        for one in self._nodes.values():
            yield from self._take(one)

    def _take(self, one: NodeClaims) -> Iterator[None]:
        bad = 0
        for claim in one.claims:
            yield
            try:
                keys = parsed(claim.addresses)
            except ValueError:
                keys = {}
            if not keys or not 0 <= claim.generation < limits.GENERATION_MAX or _is_too_long(claim):
                bad += 1
                continue
            for key in keys:
                self._claimed[one.node].setdefault(key, set()).add(claim)
            if not claim.container_id:
                self._sightings[one.node].update(keys)
                continue
            self._attachments.add((one.node, claim.container_id, claim.ifname))
            owner = owner_of(one.node, claim)
            self._claims.append(
                _Told(one.node, claim, owner, keys, self._is_confirmed(one.node, claim, owner))
            )
        if bad:
            self._differ(
                one.node, f"node {one.node} claims {bad} things that cannot be", "look after the node's agent"
            )

    def _is_confirmed(self, node: str, claim: Claim, owner: str) -> bool:
        if not claim.pod_namespace or len(claim.addresses) > 2:
            return False
        pod = self._facts.pod_of_owner(claim.pod_namespace, claim.pod_name, owner)
        return pod is not None and not pod.dead and bool(pod.uid) and pod.node == node

    # Leases that no claim covers

    def settle_leases(self) -> Iterator[None]:
        for node, one in self._nodes.items():
            if not one.scanned:
                continue
            for holding in self._state.holdings_of_node(node):
                yield
                if holding.container_id in one.unsettled:
                    continue
                for ifname, held in holding.interfaces.items():
                    is_told = (node, holding.container_id, ifname) in self._attachments
                    is_later = held.generation > one.asked_at
                    if not (held.is_over or is_told or is_later or (holding.owner, ifname) in self._released):
                        self._settle_lease(node, holding, ifname, held)
                self._settle_rest(holding)

    def _settle_lease(self, node: str, holding: Holding, ifname: str, held: HeldInterface) -> None:
        keys = {(one.family, one.address): one.prefix_len for one in held.leases}
        name = f"{_name(holding)} {ifname}"
        if keys.keys() & self._sightings[node]:
            self._differ(
                node,
                f"{name} on {node} uses {_texts(keys)}, which its agent's journal has forgotten",
                "re-create the pod",
                keys,
                holding,
            )
        elif holding.namespace and (not self._facts.synced or is_kept(self._state, self._facts, holding)):
            self._differ(
                node,
                f"{_texts(keys)} is leased to {name} on {node}, where no attachment has it",
                "wait: the pod's sandbox may be on its way; else delete the pod",
                keys,
                holding,
            )
        else:
            self._released[holding.owner, ifname] = _NOT_ON_NODE

    def _settle_rest(self, holding: Holding) -> None:
        """With the last that was attached goes what was detached before, for nobody will name that any more."""
        rest = [name for name in holding.interfaces if (holding.owner, name) not in self._released]
        if len(rest) < len(holding.interfaces) and all(holding.interfaces[name].is_over for name in rest):
            reasons = {self._released[holding.owner, n] for n in holding.interfaces if n not in rest}
            if reasons == {_NOT_ON_NODE}:
                self._released |= dict.fromkeys(((holding.owner, name) for name in rest), _NOT_ON_NODE)

    # Claims

    def settle_claims(self) -> Iterator[None]:
        """What the objects confirm goes first, then by generation."""
        for told in sorted(
            self._claims,
            key=lambda t: (
                not t.confirmed,
                -t.claim.generation,
                t.node,
                t.claim.container_id,
                t.claim.ifname,
            ),
        ):
            yield
            self._settle(told)

    def _settle(self, told: _Told) -> None:
        held = self._held(told.owner, told.claim.ifname)
        if (told.owner, told.claim.ifname) in self._restored:
            if any(
                self._given.get(key, told).owner != told.owner or key not in self._given for key in told.keys
            ):
                self._keep_unknown(
                    told, f"{told.name} uses {_texts(told.keys)} beside what it was given later"
                )
        elif held is not None and {(one.family, one.address) for one in held.leases} == set(told.keys):
            self._settle_known(told, held)
        elif {self._holder(key) for key in told.keys} - {None, told.owner} and not self._may_take(told):
            self._compete(told)
        elif not self._trusted and self._is_remembered(told):
            self._restore(told)
            self._differ(
                told.node,
                f"{told.name} uses {_texts(told.keys)}, whose lease the log has ended",
                "the lease is made anew when the node's next report shows the same",
                told.keys,
                told.claim,
            )
        elif not self._trusted or (held is not None and held.generation >= told.claim.generation):
            self._keep_unknown(told, f"{told.name} uses {_texts(told.keys)}, for which the log has no lease")
        elif told.confirmed or self._admits(told.node, len(told.keys)):
            self._restore(told)

    def _settle_known(self, told: _Told, held: HeldInterface) -> None:
        """The log has these addresses on this interface of this owner."""
        if any(key in self._given and self._given[key].owner != told.owner for key in told.keys):
            self._compete(told)
            return
        holding = self._state.holdings[told.owner]
        is_same = (holding.container_id, holding.node) == (told.claim.container_id, told.node)
        if held.generation >= told.claim.generation or (is_same and not self._trusted):
            # the same, or what a sandbox before the present one has left; its DEL comes
            self._give(told)
            if held.is_over and is_same and held.generation == told.claim.generation and self._is_live(told):
                self._confirm(told)
        elif self._trusted:
            self._restore(told)
        else:
            self._give(told)
            self._differ(
                told.node,
                f"{told.name} has generation {told.claim.generation} of {_texts(told.keys)}, the log {held.generation}",
                "re-create the pod",
                told.keys,
                told.claim,
            )

    def _may_take(self, told: _Told) -> bool:
        """Whether the leases that the log has of these addresses give way: they are older, or their node knows nothing of them."""
        if not self._trusted or not told.confirmed:
            return False
        for key in told.keys:
            given = self._given.get(key)
            if given is not None and given.owner != told.owner:
                return False
            owner = self._holder(key)
            if owner is None or owner == told.owner:
                continue
            holding = self._state.holdings[owner]
            is_claimed = key in self._claimed.get(holding.node, {key})
            _, held = _interface_of(holding, key)
            if is_claimed and held.generation >= told.claim.generation:
                return False
        return True

    def _is_live(self, told: _Told) -> bool:
        """Whether nothing is under way with it, and its kernel shows it."""
        claim = told.claim
        return (
            claim.live
            and claim.state == "completed"
            and claim.container_id not in self._nodes[told.node].unsettled
        )

    def _confirm(self, told: _Told) -> None:
        """The log heard a DEL of it, or of no ADD; while the lease counts as detached, the end of its pod would free the address."""
        claim = told.claim
        self._confirmed.append(
            AttachConfirmed(
                owner=told.owner, container_id=claim.container_id, ifname=claim.ifname, attempt=claim.attempt
            )
        )
        self._differ(
            told.node,
            f"{told.name} uses {_texts(told.keys)}, which the log has as detached",
            "it counts as attached when the node's next report shows the same",
            told.keys,
            claim,
        )

    def _is_remembered(self, told: _Told) -> bool:
        """Whether the log ended exactly this lease, and gave nobody the address since; of one node a bounded number at a time."""
        claim = told.claim
        holding = self._state.holdings.get(told.owner)
        if not self._is_live(told) or any(key in self._given for key in told.keys):
            return False
        if holding is not None and (
            claim.ifname in holding.interfaces
            or (holding.container_id, holding.node) != (claim.container_id, told.node)
        ):
            return False
        wanted = (told.owner, claim.ifname, told.node, claim.container_id, claim.generation)
        for key in told.keys:
            one = self._state.past.of(*key)
            if one is None or wanted != (one.owner, one.ifname, one.node, one.container_id, one.generation):
                return False
        count = self._remembered.get(told.node, 0) + len(told.keys)
        if count > limits.WITNESS_UNKNOWN_MAX:
            return False
        self._remembered[told.node] = count
        return True

    def _restore(self, told: _Told) -> None:
        claim = told.claim
        for key in told.keys:
            owner = self._state.holder(*key)
            if owner is not None:
                ifname, _ = _interface_of(self._state.holdings[owner], key)
                self._released[owner, ifname] = "another has it: rebuilt from the nodes"
        if self._held(told.owner, claim.ifname) is not None:
            self._released[told.owner, claim.ifname] = "its node has it otherwise: rebuilt"
        self._give(told)
        self._restored.add((told.owner, claim.ifname))
        node, container_id = self._seat(told)
        self._allocated.append(
            LeasesAllocated(
                owner=told.owner,
                node=node,
                container_id=container_id,
                attempt=claim.attempt,
                generation=claim.generation,
                items=tuple(
                    LeaseItem(
                        ifname=claim.ifname,
                        address=format_address(key[1], key[0]),
                        pool=self._pool(key),
                        prefix_len=length,
                    )
                    for key, length in told.keys.items()
                ),
                attached=(claim.ifname,),
                pod_namespace=claim.pod_namespace,
                pod_name=claim.pod_name,
                reason="rebuilt from its node" if self._trusted else "its node has it still",
            )
        )

    def _seat(self, told: _Told) -> tuple[str, str]:
        """Where the owner is: what an older sandbox has left does not bring the pod back to it."""
        holding = self._state.holdings.get(told.owner)
        kept = [
            held.generation
            for ifname, held in (holding.interfaces.items() if holding is not None else ())
            if (told.owner, ifname) not in self._released
        ]
        if holding is not None and max(kept, default=0) > told.claim.generation:
            return holding.node, holding.container_id
        return told.node, told.claim.container_id

    def _compete(self, told: _Told) -> None:
        """Somebody else has one of these addresses, and keeps it."""
        for key in told.keys:
            owner = self._holder(key)
            if owner is None or owner == told.owner:
                continue
            given = self._given.get(key)
            if given is not None:
                holder, generation = given.name, given.claim.generation
            else:
                holding = self._state.holdings[owner]
                holder, generation = _name(holding), _interface_of(holding, key)[1].generation
            self._differ(
                told.node,
                f"{_text(key)} belongs to {holder} (generation {generation}), and {told.name} "
                f"{'uses it too' if told.claim.live else 'claims it too'} "
                f"(generation {told.claim.generation})",
                f"delete {told.name}",
                (key,),
                told.claim,
            )
        if self._admits(told.node, len(told.keys)):
            self._quarantine(told, "another has it")

    def _keep_unknown(self, told: _Told, sentence: str) -> None:
        is_kept = all(key in self._state.quarantine or key in self._quarantined for key in told.keys)
        if not is_kept and not self._admits(told.node, len(told.keys)):
            return
        if not is_kept:
            self._quarantine(told, "no lease")
        way_out = "re-create the pod; until then nobody is given the address"
        self._differ(told.node, sentence, way_out, told.keys, told.claim)

    def _quarantine(self, told: _Told, reason: str) -> None:
        for key in told.keys:
            self._quarantine_one(
                key,
                told.node,
                reason,
                told.claim.container_id,
                told.claim.ifname,
                told.claim.generation,
            )

    def _quarantine_one(
        self,
        key: Key,
        node: str,
        reason: str,
        container_id: str = "",
        ifname: str = "",
        generation: int = 0,
    ) -> None:
        if key not in self._state.quarantine:
            self._quarantined.setdefault(
                key,
                QuarantinedItem(
                    address=_text(key),
                    pool=self._pool(key),
                    node=node,
                    container_id=container_id,
                    ifname=ifname,
                    generation=generation,
                    reason=reason,
                ),
            )

    def _admits(self, node: str, count: int) -> bool:
        """Counts what only this node knows of."""
        known = self._unknown.get(node, 0)
        if known + count > limits.WITNESS_UNKNOWN_MAX:
            self._beyond[node] = self._beyond.get(node, 0) + count
            return False
        self._unknown[node] = known + count
        return True

    # What only the kernel shows

    def settle_sightings(self) -> Iterator[None]:
        """The lease that a node has of such an address need not be its user's, whose own lease and journal may both be lost: nobody is given
        it after that lease either, as long as the node shows it."""
        for node, sightings in self._sightings.items():
            for key in sorted(sightings):
                yield
                owner = self._holder(key)
                is_leased_here = owner is not None and self._node_of(owner, key) == node
                if is_leased_here and self._unknown.get(node, 0) >= limits.WITNESS_UNKNOWN_MAX:
                    continue
                if key in self._state.quarantine or self._admits(node, 1):
                    self._quarantine_one(key, node, "on a link of the node, in no journal")
                    if is_leased_here:
                        continue  # settle_leases tells of it
                    self._differ(
                        node,
                        f"{_text(key)} is on a link of a pod of {node}, but in no journal and under no lease of the node",
                        "re-create the pod that has it",
                        (key,),
                    )

    # What ends

    def settle_quarantine(self) -> Iterator[None]:
        for key, kept in self._state.quarantine.items():
            yield
            node = self._nodes.get(kept.claim.node)
            if node is None or not node.scanned:
                continue
            given = self._given.get(key)
            rightful = {given.claim} if given is not None and given.node == node.node else set[Claim]()
            if not self._claimed[node.node].get(key, set()) - rightful:
                self._lifted.append(_text(key))

    # Looking

    def _held(self, owner: str, ifname: str) -> HeldInterface | None:
        holding = self._state.holdings.get(owner)
        if holding is None or (owner, ifname) in self._released:
            return None
        return holding.interfaces.get(ifname)

    def _holder(self, key: Key) -> str | None:
        """Who has the address by all that was settled so far."""
        given = self._given.get(key)
        if given is not None:
            return given.owner
        owner = self._state.holder(*key)
        if owner is None:
            return None
        return (
            None if (owner, _interface_of(self._state.holdings[owner], key)[0]) in self._released else owner
        )

    def _node_of(self, owner: str, key: Key) -> str:
        given = self._given.get(key)
        return given.node if given is not None else self._state.holdings[owner].node

    def _give(self, told: _Told) -> None:
        for key in told.keys:
            self._given.setdefault(key, told)

    def _pool(self, key: Key) -> str:
        owner = self._state.holder(*key)
        if owner is not None:
            _, held = _interface_of(self._state.holdings[owner], key)
            return next(one.pool for one in held.leases if (one.family, one.address) == key)
        covering = [name for name in self._state.pools.covering(*key) if name in self._facts.pools]
        exact = [name for name in covering if key[1] in self._facts.pools[name].total]
        return (exact or covering or [""])[0]

    def _differ(
        self,
        node: str,
        sentence: str,
        settles: str,
        keys: Iterable[Key] = (),
        about: Claim | Holding | None = None,
    ) -> None:
        namespace = name = uid = ""
        if isinstance(about, Claim):
            namespace, name, uid = about.pod_namespace, about.pod_name, about.pod_uid
        elif about is not None and about.namespace:
            namespace, name, uid = about.namespace, about.name, about.owner
        self._disagreements.append(
            Disagreement(
                node=node,
                sentence=sentence,
                settles=settles,
                addresses=tuple(map(_text, keys)),
                pod_namespace=namespace,
                pod_name=name,
                pod_uid="" if uid.startswith("pod:") else uid,
            )
        )


def owner_of(node: str, claim: Claim) -> str:
    """As the allocator names the owner of a lease."""
    if not claim.pod_namespace:
        return container_owner(node, claim.container_id)
    return claim.pod_uid or f"pod:{claim.pod_namespace}/{claim.pod_name}"


def _is_too_long(claim: Claim) -> bool:
    return (
        len(claim.container_id) > limits.CONTAINER_ID_MAX_BYTES
        or len(claim.ifname.encode(errors="replace")) > limits.IFNAME_MAX_BYTES
        or len(claim.attempt) > limits.ATTEMPT_MAX_BYTES
        or len(claim.addresses) > 2 * limits.INTERFACES_PER_POD_MAX
        or any(
            len(text) > limits.NAME_MAX_BYTES for text in (claim.pod_namespace, claim.pod_name, claim.pod_uid)
        )
    )


def _interface_of(holding: Holding, key: Key) -> tuple[str, HeldInterface]:
    return next(
        (ifname, held)
        for ifname, held in holding.interfaces.items()
        if any((one.family, one.address) == key for one in held.leases)
    )


def _text(key: Key) -> str:
    return format_address(key[1], key[0])


def _texts(keys: Iterable[Key]) -> str:
    return ", ".join(map(_text, keys))


def _name(holding: Holding) -> str:
    if holding.namespace:
        return f"{holding.namespace}/{holding.name}"
    return f"container {holding.container_id[:12]}"
