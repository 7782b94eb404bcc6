"""What the agent of a taken node may ask of the allocator: anything in its own node's name, and nothing of it moves another's leases."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from services.allocator.decide import decide_release, flaw
from shared.contracts.ipam import Allocate, InterfaceRequest, Release
from tests.support.pure_allocator import World, node, pod, pool

TAKEN, VICTIM = "n2", "n1"
_MANIFESTS = (
    pool("v4", "10.6.0.0/24", "10.6.0.10-10.6.0.17", default=True),
    pool("v6", "fd06::/64", "fd06::10-fd06::17", default=True),
    node(TAKEN),
    node(VICTIM),
    pod("shop/web-1", node=VICTIM),
    pod("shop/web-2", node=TAKEN),
    pod("shop/db-0", node=VICTIM, owner="StatefulSet"),
)
_CONTAINERS = st.sampled_from(("sandbox-web-1", "sandbox-web-2", "sandbox-db-0", "plain", "sandbox-", "new"))
_IFNAMES = st.sampled_from(("eth0", "net1", ""))
_UIDS = st.sampled_from(("uid-web-1", "uid-web-2", "uid-db-0", "container:n1/plain", ""))
_ATTEMPTS = st.sampled_from(("attempt-1", "attempt-2", "attempt-3", "mine", ""))

_REQUESTS = st.builds(
    InterfaceRequest,
    ifname=_IFNAMES,
    ipv4=st.lists(st.sampled_from(("v4", "*", "none")), max_size=2).map(tuple),
    ipv6=st.lists(st.sampled_from(("v6", "v4")), max_size=2).map(tuple),
    network=st.sampled_from(("", "kube-system/none")),
)
_ALLOCATES = st.builds(
    Allocate,
    attempt=_ATTEMPTS,
    node=st.just(TAKEN),
    container_id=_CONTAINERS,
    ifname=_IFNAMES,
    interfaces=st.lists(_REQUESTS, max_size=3).map(tuple),
    ttl_ms=st.just(1000),
    pod_namespace=st.sampled_from(("shop", "")),
    pod_name=st.sampled_from(("web-1", "web-2", "db-0", "ghost", "")),
    pod_uid=_UIDS,
)
_RELEASES = st.builds(
    Release,
    node=st.just(TAKEN),
    container_id=_CONTAINERS,
    ifname=_IFNAMES,
    attempt=_ATTEMPTS,
    generation=st.integers(0, 6),
    pod_uid=_UIDS,
    cooldown_s=st.sampled_from((0.0, 5.0, float("inf"), float("nan"), -1.0)),
)
COMMANDS = st.lists(_ALLOCATES | _RELEASES, min_size=1, max_size=12)


def judge_hostile(commands: list[Allocate | Release]) -> None:
    """The victim's leases stay as they are; memory, log and snapshot agree after every command (World asserts the audit)."""
    world = World(*_MANIFESTS)
    world.add("shop/web-1", node=VICTIM)
    world.add("shop/db-0", node=VICTIM)
    world.add("", node=VICTIM, container="plain")
    before = _of_victim(world)
    assert len(before) == 3
    for command in commands:
        if flaw(command):
            continue  # the leader refuses it unread
        if isinstance(command, Allocate):
            world.decide(command)
        else:
            decided = decide_release(world.state, world.facts, command, world.now_ns)
            world.commit(decided.events)
        assert _of_victim(world) == before, command
    assert world.canonical(world.replayed()) == world.canonical()


def _of_victim(world: World) -> dict[str, Any]:
    return {
        owner: msgspec.to_builtins(holding)
        for owner, holding in world.state.holdings.items()
        if holding.node == VICTIM
    }
