"""StatefulSets, dying pods, nodes that come and go, and garbage collection, in every order.

What must hold whatever happens: no address on two owners or given while it is in quarantine, nothing collected of a pod that lives, nothing
at all while the switch is off, an address of a wanted name stays for its next pod, and a node's attachment ends only with its own
word, a person's, or in quarantine.
"""

from __future__ import annotations

from typing import Any, get_args

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.allocator.collect import Heard, events_of, judge, judge_interfaces, node_state
from services.allocator.decide import Accepted
from services.allocator.inherit import predecessor
from services.allocator.owner import is_wanted
from services.allocator.state import Holding
from shared.contracts.lease import AddressesQuarantined, LeasesReleased, QuarantineLifted
from shared.net.ranges import format_address, parse_address
from tests.support.pure_allocator import (
    SECOND_NS,
    START_NS,
    World,
    manifest,
    pod,
    pool,
    stateful_set,
)
from tests.support.pure_allocator import settings as config

NAMES = ("db-0", "db-1", "web-x")
NODES = ("n1", "n2")
POOLS = {"a": "10.1.0.0/28", "b": "10.2.0.0/28"}
TAINT = "node.kubernetes.io/out-of-service"


def machine(name: str, ready: str, out: bool) -> str:
    taints = [{"key": TAINT, "effect": "NoExecute"}] if out else []
    return f'{manifest("Node", name, {"taints": taints})}status: {{"conditions": [{{"type": "Ready", "status": "{ready}"}}]}}\n'


class Collection(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.number = 0
        self.uids: dict[str, str] = {}
        self.nodes: dict[str, str] = {}
        self.pools: dict[str, str] = {}
        self.on = True

    @initialize()
    def begin(self) -> None:
        for name, subnet in POOLS.items():
            self.world.apply(pool(name, subnet, f"{subnet[:-4]}1-{subnet[:-4]}6"))
        for name in NODES:
            self.world.apply(machine(name, "True", False))
        self.world.apply(stateful_set("shop/db", 2))
        for name in NAMES:
            self.create(name, "n1", "a")

    # The cluster

    @rule(name=st.sampled_from(NAMES), on=st.sampled_from(NODES), of=st.sampled_from(list(POOLS)))
    def create(self, name: str, on: str, of: str) -> None:
        self.number += 1
        self.uids[name], self.nodes[name], self.pools[name] = f"u{self.number}", on, of
        self._show(name, phase="Pending")

    def _show(self, name: str, **more: Any) -> None:
        owner = "StatefulSet/db" if name.startswith("db") else "ReplicaSet/web"
        marks = {"ipam.spidernet.io/ippool": {"ipv4": [self.pools[name]]}}
        text = pod(
            f"shop/{name}",
            uid=self.uids[name],
            node=self.nodes[name],
            owner=owner,
            annotations=marks,
            **more,
        )
        self.world.apply(text)

    @rule(
        name=st.sampled_from(NAMES),
        phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown", ""]),
        has=st.booleans(),
        terminating=st.booleans(),
    )
    def status(self, name: str, phase: str, has: bool, terminating: bool) -> None:
        if ("shop", name) in self.world.facts.pods:
            self._show(name, phase=phase, ips=("10.1.0.1",) if has else (), terminating=terminating)

    @rule(name=st.sampled_from(NAMES))
    def gone(self, name: str) -> None:
        self.world.delete_pod(f"shop/{name}")

    @rule(replicas=st.integers(0, 2), start=st.integers(0, 1), terminating=st.booleans())
    def scale(self, replicas: int, start: int, terminating: bool) -> None:
        self.world.apply(stateful_set("shop/db", replicas, start, terminating))

    @rule()
    def no_set(self) -> None:
        self.world.delete("StatefulSet", "db", "shop")

    @rule(name=st.sampled_from(NODES), ready=st.sampled_from(["True", "False", "Unknown"]), out=st.booleans())
    def node(self, name: str, ready: str, out: bool) -> None:
        self.world.apply(machine(name, ready, out))

    @rule(name=st.sampled_from(NODES))
    def node_deleted(self, name: str) -> None:
        self.world.delete("Node", name)

    @rule(on=st.booleans(), static=st.booleans())
    def switches(self, on: bool, static: bool) -> None:
        self.on = on
        self.world.apply(config(gc={"enabled": on}, enableStatefulSet=static))

    @rule(seconds=st.sampled_from([1, 100, 10_000_000_000]))
    def later(self, seconds: int) -> None:
        self.world.now_ns = min(self.world.now_ns + seconds * SECOND_NS, START_NS * 9)

    # Nodes

    @rule(name=st.sampled_from(NAMES), fresh=st.booleans())
    def attach(self, name: str, fresh: bool) -> None:
        state, facts = self.world.state, self.world.facts
        uid = self.uids[name]
        known = state.holdings.get(uid)
        former = None if known else predecessor(state, facts, facts.pods.get(("shop", name)))
        kept = _addresses(former, self.pools[name]) if former else set()
        if fresh or known is None:
            self.number += 1
        container = known.container_id if known and not fresh else f"c{self.number}"
        quarantined = set(state.quarantine)
        before = _addresses(known) if known else set()
        decision = self.world.decide(
            self.world.command(f"shop/{name}", uid=uid, node=self.nodes[name], container=container)
        )
        if not isinstance(decision, Accepted):
            return
        held = _addresses(state.holdings[uid])
        assert held >= before, "who holds an address keeps it"
        assert held >= kept, "the next of a name has what is of the pools that it names"
        fresh_ones = {parse_address(one) for one in held - before - (_addresses(former) if former else set())}
        assert not fresh_ones & quarantined

    @rule(
        name=st.sampled_from(NAMES),
        on=st.sampled_from(NODES),
        of=st.sampled_from(list(POOLS)),
        released=st.booleans(),
        deleted=st.booleans(),
    )
    def replace(self, name: str, on: str, of: str, released: bool, deleted: bool) -> None:
        """As a controller and its nodes do it, or a part of that."""
        self.attach(name, False)
        if released:
            self.detach(name, False)
        if deleted:
            self.gone(name)
        self.create(name, on, of)
        self.attach(name, True)

    @rule(name=st.sampled_from(NAMES), old=st.booleans())
    def detach(self, name: str, old: bool) -> None:
        for holding in self.world.state.holdings_of_pod("shop", name)[:: -1 if old else 1][:1]:
            self.world.release(holding.container_id, node=holding.node)

    @rule(node=st.sampled_from(NODES))
    def node_tells_that_it_has_nothing(self, node: str) -> None:
        kept = [key for key, one in self.world.state.quarantine.items() if one.claim.node == node]
        if kept:
            texts = tuple(format_address(address, family) for family, address in kept)
            self.world.commit((QuarantineLifted(addresses=texts, reason="told"),))

    # The collector

    @rule(heard=st.sampled_from(get_args(Heard)), watched_s=st.sampled_from([0.0, 121.0, 1e9]))
    def collect(self, heard: Heard, watched_s: float) -> None:
        world = self.world
        for holding in [*world.state.holdings.values()]:
            verdict = judge(world.state, world.facts, holding, world.now_ns, heard, watched_s=watched_s)
            node = node_state(world.facts, holding.node)
            for names, one in judge_interfaces(world.facts, holding, verdict):
                events = events_of(holding, names, one, world.now_ns)
                self._check(holding, names, one.action, events, node)
                world.commit(events)

    def _check(
        self, holding: Holding, names: tuple[str, ...], action: str, events: tuple[Any, ...], node: str
    ) -> None:
        if not self.on:
            assert action == "keep"
        found = self.world.facts.pods.get(("shop", holding.name))
        is_mine = found is not None and found.uid == holding.owner
        if (
            is_mine
            and found is not None
            and found.phase == "Running"
            and found.has_addresses
            and not found.deletion_ns
        ):
            assert action == "keep" or all(holding.interfaces[name].inherited for name in names)
        if found is None and is_wanted(self.world.facts, "shop", holding.name):
            same = self.world.state.holdings_of_pod("shop", holding.name)
            assert action == "keep" or holding.generation < max(one.generation for one in same)
        is_attached = any(not holding.interfaces[name].is_over for name in names)
        if any(isinstance(event, LeasesReleased) for event in events) and is_attached:
            assert node in ("gone", "out_of_service") or any(
                isinstance(event, AddressesQuarantined) for event in events
            )

    @rule()
    def restart(self) -> None:
        before = self.world.canonical()
        assert self.world.canonical(self.world.replayed()) == before
        assert self.world.canonical(self.world.restored()) == before

    @invariant()
    def no_address_on_two_owners(self) -> None:
        self.world.held()


def _addresses(holding: Holding, pool_name: str = "") -> set[str]:
    return {
        format_address(one.address, one.family)
        for held in holding.interfaces.values()
        for one in held.leases
        if pool_name in ("", one.pool)
    }


TestCollection = Collection.TestCase
TestCollection.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
