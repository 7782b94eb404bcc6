"""Every decision about an address: `decide(state, facts, command, now) → Accepted | Rejected`.

Owns the rules of holding: idempotence, all or nothing, new sandboxes, release, collection of what a dead pod left. Must not
read clocks or randomness, log, or do I/O. A domain "no" is a value; nothing here raises for one.
"""

from __future__ import annotations

import msgspec

from services.allocator.facts import Facts
from services.allocator.inherit import given_up, inherit, is_detached, moved_of, predecessor
from services.allocator.owner import is_static, is_wanted
from services.allocator.pod import KnownPod
from services.allocator.state import HeldInterface, Holding, State
from shared import limits
from shared.contracts.ipam import Allocate, Grant, InterfaceRequest, Release, Route
from shared.contracts.lease import (
    AttachConfirmed,
    AttachmentDetached,
    AttemptVoided,
    LeaseEvent,
    LeaseItem,
    LeasesAllocated,
    LeasesRebound,
    LeasesReleased,
)
from shared.ids import container_owner
from shared.manifests import annotations as notes
from shared.manifests.ipam import Route as ManifestRoute
from shared.manifests.problem import Invalid
from shared.net.ranges import format_address, parse_address, parse_cidr
from shared.selection.cluster import PoolFact
from shared.selection.network import check_annotations, requests_of
from shared.selection.rule import Refusal, Selection, exhausted, select

SECOND_NS = 1_000_000_000


class Accepted(msgspec.Struct, frozen=True):
    """What happened. `owner` holds the result; there may be no event where nothing changes. `requests` are the interfaces that an
    attach turned out to be about."""

    events: tuple[LeaseEvent, ...]
    owner: str = ""
    requests: tuple[InterfaceRequest, ...] = ()


class Rejected(msgspec.Struct, frozen=True):
    refusal: Refusal


class AskFacts(msgspec.Struct, frozen=True):
    """The facts at hand do not settle it: read this pod through to its source, then decide again with `asked`."""

    namespace: str
    name: str


def decide_allocate(
    state: State, facts: Facts, command: Allocate, now_ns: int, *, asked: bool
) -> Accepted | Rejected | AskFacts:
    """All interfaces of the request, both families, or none. The same request again gives the same addresses."""
    wrong = flaw(command)
    if wrong:
        return _no("invalid", wrong)
    if state.voided.get(command.attempt, 0) > now_ns:
        return _no("attempt_superseded", "this attempt was released before its allocation arrived")
    identity = identify(facts, command, asked=asked)
    if not isinstance(identity, Identity):
        return identity
    requests = requests_of(facts, identity.pod, command)
    if isinstance(requests, Refusal):
        return Rejected(requests)
    holding = state.holdings.get(identity.owner)
    former = predecessor(state, facts, identity.pod) if holding is None else None
    holding = former or holding
    requested = tuple(request.ifname for request in requests)
    held: frozenset[str] = frozenset(holding.interfaces) if holding is not None else frozenset()
    refusal = check_annotations(identity.pod, {*requested, *held})
    if refusal is not None:
        return Rejected(refusal)
    moved = moved_of(facts, identity.pod, requests, holding, is_new=former is not None)
    if isinstance(moved, Refusal):
        return Rejected(moved)
    held -= moved
    events: list[LeaseEvent] = []
    if former is not None:
        generation = state.generation + 1
        events += inherit(former, identity.owner, command, generation, requested, moved)
    elif holding is not None and holding.container_id != command.container_id:
        generation = state.generation + 1
        events.append(
            LeasesRebound(
                owner=identity.owner,
                node=command.node,
                container_id=command.container_id,
                attempt=command.attempt,
                generation=generation,
                attached=tuple(ifname for ifname in requested if ifname in held),
            )
        )
    else:
        confirmed = [
            _confirmed(state, holding, ifname, command)
            for ifname in requested
            if holding is not None and ifname in held
        ]
        events += confirmed
        generation = max([state.generation, *(event.generation for event in confirmed)])
    if moved and holding is not None:
        events.append(given_up(holding, identity.owner, moved))
    missing = tuple(request for request in requests if request.ifname not in held)
    if missing and (unsafe := state.unsafe()):
        return _no("log_unsafe", _why_unsafe(unsafe))
    if missing:
        selection = select(facts, identity.pod, command.node, missing)
        picked = _pick(state, selection, held)
        if isinstance(picked, Refusal):
            return Rejected(picked)
        events.append(
            LeasesAllocated(
                owner=identity.owner,
                node=command.node,
                container_id=command.container_id,
                attempt=command.attempt,
                generation=generation + 1,
                items=picked,
                attached=tuple(request.ifname for request in missing),
                pod_namespace=command.pod_namespace,
                pod_name=command.pod_name,
            )
        )
    return Accepted(tuple(events), identity.owner, requests)


def _confirmed(state: State, holding: Holding, ifname: str, command: Allocate) -> AttachConfirmed:
    """Another attempt than the last may come after a DEL whose release is still on its way: it must name an older generation."""
    held = holding.interfaces[ifname]
    is_repeated = held.attempt in ("", command.attempt) and not held.detached
    return AttachConfirmed(
        owner=holding.owner,
        container_id=command.container_id,
        ifname=ifname,
        attempt=command.attempt,
        generation=0 if is_repeated else state.generation + 1,
    )


def _why_unsafe(silent: frozenset[str]) -> str:
    named = ", ".join(sorted(silent)[:5]) + (f" and {len(silent) - 5} more" if len(silent) > 5 else "")
    return (
        "records of the lease log were lost, and these nodes have not told what they hold: "
        f"{named}; no new address is given until their agents report or their Node objects are deleted"
    )


def flaw(command: Allocate | Release) -> str:
    """Why no agent can have made this, or empty: a node may be anybody's, and what is too long would fill the log."""
    bounds = [
        ("attempt", command.attempt, limits.ATTEMPT_MAX_BYTES),
        ("node", command.node, limits.NAME_MAX_BYTES),
        ("container_id", command.container_id, limits.CONTAINER_ID_MAX_BYTES),
        ("pod_uid", command.pod_uid, limits.NAME_MAX_BYTES),
    ]
    if isinstance(command, Release):
        bounds += [("ifname", command.ifname, limits.IFNAME_MAX_BYTES)]
        bounds += [("reason", command.reason, limits.NAME_MAX_BYTES)]
        if len(command.others) >= limits.INTERFACES_PER_POD_MAX:
            return f"{len(command.others) + 1} interfaces are released, at most {limits.INTERFACES_PER_POD_MAX} are taken"
    else:
        bounds += [("pod_namespace", command.pod_namespace, limits.NAME_MAX_BYTES)]
        bounds += [("pod_name", command.pod_name, limits.NAME_MAX_BYTES)]
        wrong = _flaw_of_interfaces(command.interfaces)
        if wrong:
            return wrong
    for field, text, most in bounds:
        if len(text) > most:
            return f"{field} has {len(text)} characters, at most {most} are taken"
    return "" if command.container_id else "container_id is empty"


def _flaw_of_interfaces(interfaces: tuple[InterfaceRequest, ...]) -> str:
    if not 0 < len(interfaces) <= limits.INTERFACES_PER_POD_MAX:
        return f"{len(interfaces)} interfaces are asked for, 1 to {limits.INTERFACES_PER_POD_MAX} are served"
    if len({request.ifname for request in interfaces}) < len(interfaces):
        return "an interface is asked for twice"
    for request in interfaces:
        if not 0 < len(request.ifname.encode(errors="replace")) <= limits.IFNAME_MAX_BYTES:
            return f"{request.ifname[:40]!r} cannot be the name of an interface"
        if max(len(request.ipv4), len(request.ipv6)) > limits.POOLS_PER_INTERFACE_MAX:
            return f"{request.ifname}: more than {limits.POOLS_PER_INTERFACE_MAX} pools are named"
        if any(len(name) > limits.NAME_MAX_BYTES for name in (*request.ipv4, *request.ipv6)):
            return f"{request.ifname}: the name of a pool has more than {limits.NAME_MAX_BYTES} characters"
    return ""


class Identity(msgspec.Struct, frozen=True):
    """Who asks: the owner of the leases, and the pod if one stands behind it."""

    owner: str
    pod: KnownPod | None


def identify(facts: Facts, command: Allocate, *, asked: bool) -> Identity | Rejected | AskFacts:
    """Matches the caller with a live pod; a fact with another UID counts as absent until the source was asked."""
    namespace, name = command.pod_namespace, command.pod_name
    if not namespace:
        return Identity(container_owner(command.node, command.container_id), None)
    pod = facts.pods.get((namespace, name))
    is_same = pod is not None and (
        not pod.uid or not command.pod_uid or command.pod_uid in (pod.uid, pod.config_hash)
    )
    if (pod is None or not is_same or pod.dead) and not asked:
        return AskFacts(namespace, name)
    if pod is None:
        return _no("pod_unknown", f"pod {namespace}/{name} is not known: no object of this name is in force")
    if not is_same:
        return _no(
            "pod_dead",
            f"pod {namespace}/{name} with UID {command.pod_uid} is gone: the pod of this name now has UID {pod.uid}",
        )
    if pod.dead:
        return _no("pod_dead", f"pod {namespace}/{name} is a dead Pod: {pod.dead}")
    if pod.node and pod.node != command.node:
        return _no(
            "wrong_node", f"pod {namespace}/{name} is scheduled to node {pod.node}, not to {command.node}"
        )
    return Identity(command.pod_uid or pod.uid or f"pod:{namespace}/{name}", pod)


def _no(error: str, message: str) -> Rejected:
    return Rejected(Refusal(error, message))


def _pick(state: State, selection: Selection, held: frozenset[str]) -> tuple[LeaseItem, ...] | Refusal:
    """The lowest free address for every interface and family that is not held yet."""
    if selection.refusal is not None:
        return selection.refusal
    items: list[LeaseItem] = []
    picked: set[tuple[int, int]] = set()
    for want in selection.wants:
        if want.ifname in held:
            continue
        for family, pools in want.pools.items():
            found = _lowest(state, family, pools, picked) or _longest_rested(state, family, pools, picked)
            if found is None:
                return exhausted(want, family, pools)
            pool, address = found
            picked.add((family, address))
            items.append(
                LeaseItem(
                    ifname=want.ifname,
                    address=format_address(address, family),
                    pool=pool.name,
                    prefix_len=pool.subnet.prefix_len,
                    clean_gateway=want.clean_gateway,
                )
            )
    return tuple(items)


def _lowest(
    state: State, family: int, pools: tuple[PoolFact, ...], picked: set[tuple[int, int]]
) -> tuple[PoolFact, int] | None:
    for pool in pools:
        occupancy = state.pools.occupancy(pool.name)
        if occupancy is None:
            continue
        for address in occupancy.ascending():
            # the free space is derived; what is held is asked too, so that a flaw in it can never give an address twice
            if (family, address) not in picked and not state.is_busy(family, address):
                return pool, address
    return None


def _longest_rested(
    state: State, family: int, pools: tuple[PoolFact, ...], picked: set[tuple[int, int]]
) -> tuple[PoolFact, int] | None:
    """Nothing else is free: the resting address whose rest ends first."""
    if not state.resting:
        return None
    spaces = [(pool, state.pools.space(pool.name)) for pool in pools]
    best: tuple[int, int, PoolFact] | None = None
    for resting in state.resting.values():
        key = (family, resting.address)
        if resting.family != family or key in picked or key in state.quarantine:
            continue
        for pool, space in spaces:
            if space is not None and resting.address in space.allowed:
                candidate = (resting.until_ns, resting.address, pool)
                if best is None or candidate[:2] < best[:2]:
                    best = candidate
    return None if best is None else (best[2], best[1])


def grants_of(state: State, facts: Facts, owner: str) -> tuple[Grant, ...]:
    """Every address that an owner holds, with the gateway and routes that its pool has now. A route of the pod's own takes the place
    of those of its pools to the same destination."""
    holding = state.holdings.get(owner)
    if holding is None:
        return ()
    pod = facts.pod_of_owner(holding.namespace, holding.name, owner)
    text = pod.annotations.get(notes.ROUTES, "") if pod is not None else ""
    parsed = notes.routes(text) if text else ()
    leases = [(ifname, held, lease) for ifname, held in holding.interfaces.items() for lease in held.leases]
    pools = {lease.pool: pool for _, _, lease in leases if (pool := facts.pools.get(lease.pool)) is not None}
    of_pod = [] if isinstance(parsed, Invalid) else [(route, _pools_of(route, pools)) for route in parsed]
    own = {parse_cidr(route.dst) for route, through in of_pod if through}
    out: list[Grant] = []
    for ifname, held, lease in leases:
        pool = pools.get(lease.pool)
        of_pool = (pool.spec.routes or ()) if pool is not None else ()
        routes = [route for route in of_pool if parse_cidr(route.dst) not in own]
        routes += [route for route, through in of_pod if lease.pool in through]
        out.append(
            Grant(
                ifname=ifname,
                family=lease.family,
                address=f"{format_address(lease.address, lease.family)}/{lease.prefix_len}",
                pool=lease.pool,
                generation=held.generation,
                gateway=pool.gateway if pool is not None else "",
                clean_gateway=held.clean_gateway,
                routes=tuple(Route(dst=route.dst, gw=route.gw) for route in routes),
            )
        )
    return tuple(out)


def _pools_of(route: ManifestRoute, pools: dict[str, PoolFact]) -> frozenset[str]:
    """Those whose subnet has the route's gateway."""
    family, gateway = parse_address(route.gw)
    return frozenset(name for name, pool in pools.items() if pool.family == family and gateway in pool.subnet)


def decide_release(
    state: State, facts: Facts, command: Release, now_ns: int, *, facts_are_whole: bool = True
) -> Accepted:
    """A DEL of one attachment. One that names an older generation, or a container that holds nothing, changes nothing; nor does
    one without generation, if another attempt than its own was answered since. Unless `facts_are_whole`, a pod may live that
    they do not show."""
    events: list[LeaseEvent] = []
    if command.generation == 0:
        until_ns = now_ns + int(limits.ATTEMPT_MEMORY_S * SECOND_NS)
        events.append(AttemptVoided(attempt=command.attempt, until_ns=until_ns))
    for holding in state.holdings_of_container(command.container_id):
        # a node speaks for its own attachments only
        named = _named(holding, command) if holding.node == command.node else ()
        if not named:
            continue
        rest_until_ns = _rest_until(command, now_ns)
        if not is_kept(state, facts, holding) and (facts_are_whole or not holding.namespace):
            events.append(_released(holding, named, command.reason, rest_until_ns, now_ns))
            continue
        events += [
            AttachmentDetached(
                owner=holding.owner, ifname=ifname, generation=held.generation, rest_until_ns=rest_until_ns
            )
            for ifname in named
            if not (held := holding.interfaces[ifname]).detached
        ]
    return Accepted(tuple(events))


def _named(holding: Holding, command: Release) -> tuple[str, ...]:
    """The interfaces that the release is about. One without generation does not know what else its attempt was given."""
    others = {one.ifname: one.generation for one in command.others}
    named: list[str] = []
    for ifname, held in holding.interfaces.items():
        if ifname == command.ifname:
            is_named = _is_named(held, command)
        elif command.generation:
            is_named = held.generation == others.get(ifname)
        else:
            is_named = bool(held.attempt) and _is_named(held, command)
        if is_named:
            named.append(ifname)
    return tuple(named)


def _is_named(held: HeldInterface, command: Release) -> bool:
    return held.generation == command.generation if command.generation else held.attempt == command.attempt


def _rest_until(command: Release, now_ns: int) -> int:
    """A number that is none, or none of seconds, is no rest; one without end is the longest there is."""
    if not command.cooldown_s > 0:
        return 0
    return now_ns + int(min(command.cooldown_s, limits.COOLDOWN_MAX_S) * SECOND_NS)


def _released(
    holding: Holding, named: tuple[str, ...], reason: str, rest_until_ns: int, now_ns: int
) -> LeasesReleased:
    """Those `named`; with the last that is attached all of them, for nobody will name the others any more."""
    others = {name: held for name, held in holding.interfaces.items() if name not in named}
    ifnames = (*named, *others) if all(held.is_over for held in others.values()) else named
    rest_until_ns = max(rest_until_ns, *(holding.interfaces[name].rest_until_ns for name in ifnames))
    return LeasesReleased(
        owner=holding.owner,
        ifnames=ifnames,
        reason=reason,
        rest_until_ns=rest_until_ns if rest_until_ns > now_ns else 0,
    )


def decide_collect(state: State, facts: Facts, namespace: str, name: str, now_ns: int) -> Accepted:
    """A pod's facts changed, or its StatefulSet's: what its dead owners hold is released where every attachment was detached already,
    unless it waits for the next pod of its stable identity. This ends a release that was heard while the pod lived, so no switch
    of collection is asked.

    An attachment that no DEL was heard of stays until its node detaches it.
    """
    return Accepted(
        tuple(
            _released(holding, tuple(holding.interfaces), "pod gone", 0, now_ns)
            for holding in state.holdings_of_pod(namespace, name)
            if is_detached(holding) and not is_kept(state, facts, holding)
        )
    )


def decide_succession(state: State, facts: Facts, command: Allocate, now_ns: int) -> Accepted:
    """A pod whose object has no UID takes the caller's: what it left detached under another UID is released before it attaches, unless
    it inherits it."""
    pod = facts.pods.get((command.pod_namespace, command.pod_name))
    if (
        pod is None
        or is_static(facts, pod)
        or pod.uid
        or pod.dead
        or (pod.node and pod.node != command.node)
        or not command.pod_uid
    ):
        return Accepted(())
    return Accepted(
        tuple(
            _released(holding, tuple(holding.interfaces), "pod replaced", 0, now_ns)
            for holding in state.holdings_of_pod(command.pod_namespace, command.pod_name)
            if holding.owner != command.pod_uid and is_detached(holding)
        )
    )


def is_alive(state: State, facts: Facts, holding: Holding) -> bool:
    """Whether facts show the pod that owns the holding, and it may still hold addresses.

    Where the object has no UID, the pod is the one that attached last under its name.
    """
    if not holding.namespace:
        return False
    pod = facts.pod_of_owner(holding.namespace, holding.name, holding.owner)
    if pod is None or pod.dead:
        return False
    if pod.uid:
        return True
    return _is_newest(state, holding)


def is_kept(state: State, facts: Facts, holding: Holding) -> bool:
    """Whether a DEL leaves the addresses with their owner: its pod lives, or a StatefulSet wants the next of its name, which has not
    come up yet and will inherit them."""
    if is_alive(state, facts, holding):
        return True
    if not holding.namespace or not is_wanted(facts, holding.namespace, holding.name):
        return False
    pod = facts.pods.get((holding.namespace, holding.name))
    if pod is None or facts.pod_of_owner(holding.namespace, holding.name, holding.owner) is pod:
        return _is_newest(state, holding)
    return not pod.has_addresses and _is_newest(state, holding)


def _is_newest(state: State, holding: Holding) -> bool:
    """Only the last of a name is inherited."""
    same_name = state.holdings_of_pod(holding.namespace, holding.name)
    return holding.generation == max(one.generation for one in same_name)
