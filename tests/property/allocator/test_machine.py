"""The allocator's pure core under every order of events that nodes, users and clocks can bring about.

Pods, sandboxes, pools, reservations and time change at random; requests are repeated, releases come late, twice, with old
generations, from the wrong node. What must hold is in the invariants and in the rules' assertions; `World.commit` audits the
state after each record.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.allocator.decide import Accepted, grants_of
from shared.contracts.ipam import Allocate
from shared.net.ranges import parse_address
from tests.support.pure_allocator import SECOND_NS, START_NS, World, node, pod, pool, reserved

PODS = [f"shop/w{i}" for i in range(2)]
NODES = ["n1", "n2"]
IFNAMES = ["eth0", "net1"]
POOLS = {
    "a": "10.1.0.0/28",
    "twin": "10.1.0.0/28",
    "b": "10.2.0.0/28",
    "wide": "10.1.0.0/24",
    "six": "fd00::/124",
}
FOUR = ["a", "twin", "b", "wide", "*"]


class Attachment:
    """What a node knows of one interface that it attached."""

    def __init__(
        self, owner: str, container: str, ifname: str, node: str, generation: int, attempt: str
    ) -> None:
        self.owner, self.container, self.ifname, self.node = owner, container, ifname, node
        self.generation, self.attempt = generation, attempt


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(*(node(name) for name in NODES))
        self.clock_ns = START_NS
        self.uids: dict[str, str] = {}
        self.nodes: dict[str, str] = {}
        self.sandboxes: dict[str, str] = {}
        self.attachments: list[Attachment] = []
        self.requests: list[Allocate] = []
        self.containers = 0

    def now(self) -> None:
        """As the leader has it: a clock that jumps back ends nothing early."""
        self.world.now_ns = max(self.world.state.at_ns, self.clock_ns)

    # What users do

    @initialize()
    def begin(self) -> None:
        for name, subnet in POOLS.items():
            self.world.apply(pool(name, subnet, _range(name, 0, 15), default=name != "wide"))
        for name in PODS:
            self.create_pod(name, "n1", with_uid=True, listed=False)

    @rule(
        name=st.sampled_from(list(POOLS)),
        first=st.integers(0, 15),
        size=st.integers(0, 15),
        excluded=st.integers(0, 15),
        gateway=st.booleans(),
        disable=st.booleans(),
        terminating=st.booleans(),
        created=st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"]),
    )
    def put_pool(
        self,
        name: str,
        first: int,
        size: int,
        excluded: int,
        gateway: bool,
        disable: bool,
        terminating: bool,
        created: str,
    ) -> None:
        """Pools overlap, and which of two is the older changes: admission is of no help here."""
        spec: dict[str, Any] = {"excludeIPs": [_range(name, excluded, excluded)]}
        if gateway:
            spec["gateway"] = _range(name, first, first)
        if disable:
            spec["disable"] = True
        self.now()
        ips = _range(name, first, min(first + size, 15))
        self.world.apply(
            pool(
                name,
                POOLS[name],
                ips,
                terminating=terminating,
                default=name != "wide",
                created=created,
                **spec,
            )
        )

    @rule(name=st.sampled_from(list(POOLS)))
    def drop_pool(self, name: str) -> None:
        self.now()
        self.world.delete("SpiderIPPool", name)

    @rule(name=st.sampled_from(list(POOLS)), first=st.integers(0, 15), size=st.integers(0, 5))
    def reserve(self, name: str, first: int, size: int) -> None:
        self.now()
        self.world.apply(reserved("r", _range(name, first, min(first + size, 15))))

    @rule()
    def unreserve(self) -> None:
        self.now()
        self.world.delete("SpiderReservedIP", "r")

    @rule(name=st.sampled_from(PODS), on=st.sampled_from(NODES), with_uid=st.booleans(), listed=st.booleans())
    def create_pod(self, name: str, on: str, with_uid: bool, listed: bool) -> None:
        """Also the same name again: another UID, perhaps on another node, before the old one was detached."""
        self.now()
        self.containers += 1
        self.uids[name] = f"uid-{self.containers}"
        marks = {"ipam.spidernet.io/ippools": [{"interface": i, "ipv4": ["*"]} for i in IFNAMES]}
        uid = self.uids[name] if with_uid else ""
        self.world.apply(pod(name, uid=uid, node=on, annotations=marks if listed else {}))
        self.nodes[name] = on
        self.sandboxes[name] = f"c{self.containers}"

    @rule(name=st.sampled_from(PODS), terminating=st.booleans())
    def end_pod(self, name: str, terminating: bool) -> None:
        self.now()
        if terminating and name in self.uids:
            self.world.apply(pod(name, uid=self.uids[name], terminating=True))
        else:
            self.world.delete_pod(name)

    # What nodes do

    @rule(
        name=st.sampled_from(PODS),
        fresh=st.booleans(),
        ifnames=st.lists(st.sampled_from(IFNAMES), min_size=1, unique=True),
        ipv4=st.lists(st.sampled_from(FOUR), max_size=2, unique=True),
        ipv6=st.sampled_from([(), ("six",), ("s*",)]),
    )
    def attach(
        self, name: str, fresh: bool, ifnames: list[str], ipv4: list[str], ipv6: tuple[str, ...]
    ) -> None:
        """`fresh`: the sandbox is made anew."""
        if fresh:
            self.containers += 1
            self.sandboxes[name] = f"c{self.containers}"
        where = {"uid": self.uids[name], "node": self.nodes[name], "container": self.sandboxes[name]}
        self._attach(self.world.command(name, *ifnames, ipv4=ipv4, ipv6=ipv6, **where))  # type: ignore[arg-type]

    @rule(name=st.sampled_from(PODS))
    def attach_on_the_wrong_node(self, name: str) -> None:
        on = "n2" if self.nodes[name] == "n1" else "n1"
        command = self.world.command(name, uid=self.uids[name], node=on, container=self.sandboxes[name])
        assert not isinstance(self.world.decide(command), Accepted)

    @rule(i=st.integers(0, 3), on=st.sampled_from(NODES), ipv4=st.sampled_from([(), ("a",), ("b", "wide")]))
    def attach_plain(self, i: int, on: str, ipv4: tuple[str, ...]) -> None:
        self._attach(self.world.command(node=on, container=f"plain-{i}", ipv4=ipv4))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def attach_again(self, data: st.DataObject) -> None:
        """Any request of the past, late or repeated."""
        self._attach(data.draw(st.sampled_from(self.requests)))

    def _attach(self, command: Allocate) -> None:
        self.now()
        before = self.world.held()
        decision = self.world.decide(command)
        self.requests.append(command)
        if not isinstance(decision, Accepted):
            return
        grants = grants_of(self.world.state, self.world.facts, decision.owner)
        assert {grant.ifname for grant in grants} >= {request.ifname for request in command.interfaces}
        holding = self.world.state.holdings[decision.owner]
        for grant in grants:
            family, address = parse_address(grant.address.partition("/")[0])
            if f"{family}/{address:x}" not in before:
                space = self.world.facts.pool_space(grant.pool)
                chosen = self.world.facts.pools[grant.pool]
                assert space is not None and address in space.allowed
                assert not chosen.spec.disable and not chosen.terminating
                assert not self.world.facts.pool_before(grant.pool), "an older pool has this address too"
        for request in command.interfaces:
            generation = holding.interfaces[request.ifname].generation
            new = Attachment(
                decision.owner,
                command.container_id,
                request.ifname,
                command.node,
                generation,
                command.attempt,
            )
            for old in self.attachments:
                if (old.owner, old.ifname) == (new.owner, new.ifname) and old.container != new.container:
                    assert old.generation < new.generation, (
                        "a release of the old sandbox would fit the new one"
                    )
            self.attachments.append(new)
        again = self.world.decide(command)
        assert isinstance(again, Accepted)
        assert grants_of(self.world.state, self.world.facts, again.owner) == grants

    @precondition(lambda self: self.attachments)
    @rule(
        data=st.data(),
        cooldown_s=st.sampled_from([0.0, 5.0, 60.0]),
        lost_reply=st.sampled_from([False, False, True]),
        wrong_node=st.sampled_from([False, False, False, True]),
    )
    def detach(self, data: st.DataObject, cooldown_s: float, lost_reply: bool, wrong_node: bool) -> None:
        """Any attachment of the past: late, twice, of an old generation, from a node that lies."""
        self.now()
        one = data.draw(st.sampled_from(self.attachments))
        held = {
            lease_key
            for lease_key, holding, interface in _leases(self.world)
            if (holding.container_id, holding.node) == (one.container, one.node)
            and interface.generation == one.generation
        }
        before = {key for key, _, _ in _leases(self.world)}
        generation = 0 if lost_reply else one.generation
        on = ("n2" if one.node == "n1" else "n1") if wrong_node else one.node
        command = {"node": on, "generation": generation, "attempt": one.attempt, "cooldown_s": cooldown_s}
        self.world.release(one.container, one.ifname, **command)  # type: ignore[arg-type]
        gone = before - {key for key, _, _ in _leases(self.world)}
        if not lost_reply and not wrong_node and not held:
            assert not gone, "a release of another generation changed something"
        assert all(key[2] == on for key in gone), "a node released what another holds"

    # Time and storage

    @rule(seconds=st.sampled_from([1, 10, 100, 700, 86_400, -50, -86_400]))
    def jump(self, seconds: int) -> None:
        self.clock_ns += seconds * SECOND_NS

    @rule()
    def restart(self) -> None:
        """A new leader: from a snapshot and from the whole log the state is what it was."""
        self.now()
        restored = self.world.restored()
        self.world.state.wake(self.world.latest_ns)
        before = self.world.canonical()
        assert self.world.canonical(restored) == before
        assert self.world.canonical(self.world.replayed()) == before
        self.world.state = restored

    @invariant()
    def no_address_on_two_owners(self) -> None:
        self.world.held()

    @invariant()
    def who_may_have_more_than_endpoints_show_is_known(self) -> None:
        state = self.world.state
        names = Counter((h.namespace, h.name) for h in state.holdings.values() if h.namespace)
        nodes = {h.node for h in state.holdings.values() if names[h.namespace, h.name] != 1}
        kept = {one.claim.node for one in state.quarantine.values()}
        assert state.unmirrored() == (nodes | kept) - {""}

    def teardown(self) -> None:
        """All pods go and every attachment is detached: nothing is held."""
        self.clock_ns += 10_000 * SECOND_NS
        self.restart()
        for name in PODS:
            self.now()
            self.world.delete_pod(name)
        for holding in list(self.world.state.holdings.values()):
            for ifname, held in list(holding.interfaces.items()):
                if held.attached:
                    where = {"node": holding.node, "generation": held.generation}
                    self.world.release(holding.container_id, ifname, **where)  # type: ignore[arg-type]
        assert self.world.held() == {}
        assert (
            not self.world.state.holdings and not self.world.state.taken[4] and not self.world.state.taken[6]
        )


def _range(name: str, first: int, last: int) -> str:
    prefix = {
        "a": "10.1.0.{}",
        "twin": "10.1.0.{}",
        "b": "10.2.0.{}",
        "wide": "10.1.0.{}",
        "six": "fd00::{:x}",
    }[name]
    return f"{prefix.format(first)}-{prefix.format(last)}"


def _leases(world: World) -> list[tuple[tuple[int, int, str, str], Any, Any]]:
    return [
        ((lease.family, lease.address, holding.node, holding.owner), holding, held)
        for holding, _, held, lease in world.state.leases()
    ]


TestAllocator = Machine.TestCase
TestAllocator.settings = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
