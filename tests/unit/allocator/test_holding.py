"""Who may hold, repeat, re-build and release: one pod through its sandboxes, plain containers, and nodes that lie."""

from __future__ import annotations

import math

import msgspec
import pytest

from services.allocator.decide import Accepted, AskFacts, Rejected
from shared import limits
from shared.contracts.facts import ObjectGone
from shared.contracts.ipam import InterfaceRequest
from shared.contracts.lease import AttachmentDetached, AttemptVoided, LeasesRebound, LeasesReleased
from tests.support.pure_allocator import SECOND_NS, World, addresses, pod, pool

POOL = pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.13", default=True)
HASH = "kubernetes.io/config.hash"


def refusal_of(world: World, *args: object, **options: object) -> str:
    return world.refused(*args, **options).error  # type: ignore[arg-type]


def test_the_same_request_again_gives_the_same_and_is_logged() -> None:
    world = World(POOL, pod("shop/a"))
    first = world.add("shop/a", attempt="a1")
    records = len(world.records)
    assert world.add("shop/a", attempt="a1") == first
    assert addresses(world.add("shop/a", attempt="a2")) == addresses(first)
    assert len(world.records) == records + 2, "no reply without a record of the present term"


@pytest.mark.parametrize("name", ["shop/a", ""])
def test_a_release_that_an_attach_of_the_same_container_overtakes_changes_nothing(name: str) -> None:
    world = World(POOL, pod("shop/a"))
    (first,) = world.add(name, container="c1", attempt="a1")
    (second,) = world.add(name, container="c1", attempt="a2")
    assert second.generation > first.generation
    assert world.release("c1", generation=first.generation).events == (), "its DEL was before the second ADD"
    voided = world.release("c1", generation=0, attempt="a1").events
    assert [type(event) for event in voided] == [AttemptVoided]
    assert len(world.release("c1", generation=0, attempt="a2").events) == 2


def test_a_new_sandbox_keeps_the_addresses_and_raises_the_generation() -> None:
    world = World(POOL, pod("shop/a"))
    (first,) = world.add("shop/a", container="old")
    decision = world.decide(world.command("shop/a", container="new"))
    assert isinstance(decision, Accepted) and isinstance(decision.events[0], LeasesRebound)
    (second,) = world.add("shop/a", container="new")
    assert (second.address, second.generation > first.generation) == (first.address, True)
    before = world.canonical()
    assert world.release("old", generation=first.generation).events == ()
    assert world.release("new", generation=first.generation).events == ()
    assert world.canonical() == before


def test_a_late_del_of_the_old_sandbox_of_a_dead_pod_leaves_the_new_one() -> None:
    world = World(POOL, pod("shop/a"))
    (first,) = world.add("shop/a", container="old")
    world.add("shop/a", container="new")
    world.delete_pod("shop/a")
    world.release("old", generation=first.generation)
    assert world.state.lease_count() == 1
    world.release("new")
    assert world.state.lease_count() == 0


def test_a_new_sandbox_has_only_the_interfaces_that_it_attached() -> None:
    world = World(POOL, pod("shop/a"))
    world.add("shop/a", "eth0", container="old")
    world.add("shop/a", "net1", container="old")
    world.add("shop/a", "eth0", container="new")
    held = world.state.holdings["uid-a"].interfaces
    assert (held["eth0"].attached, held["net1"].attached) == (True, False)
    world.delete_pod("shop/a")
    world.release("new", "eth0")
    assert world.state.lease_count() == 0, "what no attachment of the new sandbox holds goes with its last"


def test_a_new_interface_of_a_new_sandbox_and_the_old_ones_are_all_of_the_new_generation() -> None:
    world = World(POOL, pod("shop/a"))
    world.add("shop/a", "eth0", container="old")
    grants = world.add("shop/a", "eth0", "net1", container="new")
    assert [grant.ifname for grant in grants] == ["eth0", "net1"]
    assert min(grant.generation for grant in grants) > 1


def test_a_del_that_overtakes_its_add_voids_the_attempt_for_ten_minutes() -> None:
    world = World(POOL, pod("shop/a"))
    (event,) = world.release("sandbox-a", generation=0, attempt="late").events
    assert event == AttemptVoided(
        attempt="late", until_ns=world.now_ns + int(limits.ATTEMPT_MEMORY_S * SECOND_NS)
    )
    assert refusal_of(world, "shop/a", attempt="late") == "attempt_superseded"
    assert world.add("shop/a", attempt="next")
    world.now_ns += int(limits.ATTEMPT_MEMORY_S * SECOND_NS)
    assert world.add("shop/a", attempt="late")
    assert not world.state.voided


def test_a_del_without_a_reply_gives_back_what_the_lost_reply_named() -> None:
    world = World(POOL, pod("shop/a"))
    world.add("shop/a", attempt="lost")
    world.delete_pod("shop/a")
    world.release("sandbox-a", generation=0, attempt="lost")
    assert world.state.lease_count() == 0


def test_a_del_of_a_live_pod_keeps_its_addresses_until_its_tombstone() -> None:
    world = World(POOL, pod("shop/a"))
    (grant,) = world.add("shop/a")
    detached = AttachmentDetached(owner="uid-a", ifname="eth0", generation=grant.generation)
    assert world.release("sandbox-a").events == (detached,)
    assert world.release("sandbox-a").events == (), "a repeated DEL tells nothing new"
    assert addresses(world.add("shop/a", container="again")) == ["10.1.0.10"]
    world.release("again")
    world.delete_pod("shop/a")
    assert world.state.lease_count() == 0


def test_interfaces_taken_ahead_go_with_the_last_attachment() -> None:
    marks = {"ipam.spidernet.io/ippools": [{"interface": f"net{i}", "ipv4": ["v4"]} for i in range(3)]}
    world = World(POOL, pod("shop/a", annotations=marks))
    world.add("shop/a", "net0")
    world.add("shop/a", "net1")
    world.delete_pod("shop/a")
    world.release("sandbox-a", "net0")
    assert [address.partition("/")[2] for address in sorted(world.held())] == ["a0b", "a0c"] or len(
        world.held()
    ) == 2
    world.release("sandbox-a", "net1")
    assert world.state.lease_count() == 0


def test_a_pod_that_dies_between_the_dels_of_its_interfaces_leaves_nothing() -> None:
    world = World(POOL, pod("shop/a"))
    world.add("shop/a", "eth0")
    world.add("shop/a", "net1")
    world.release("sandbox-a", "eth0")
    world.delete_pod("shop/a")
    assert world.state.lease_count() == 2, "net1 is attached yet"
    world.release("sandbox-a", "net1")
    assert world.state.lease_count() == 0


def test_a_release_of_another_interface_changes_nothing() -> None:
    world = World(POOL, pod("shop/a"))
    world.add("shop/a")
    world.delete_pod("shop/a")
    assert world.release("sandbox-a", "net1", generation=1).events == ()
    assert world.release("unknown", generation=1).events == ()


def test_a_node_releases_its_own_attachments_only() -> None:
    world = World(POOL, pod("shop/a"))
    world.add("shop/a")
    world.delete_pod("shop/a")
    before = world.canonical()
    world.release("sandbox-a", node="n2")
    assert world.canonical() == before
    world.release("sandbox-a", node="n2", generation=0, attempt="x")
    assert world.state.lease_count() == 1


def test_a_pod_of_another_node_is_refused() -> None:
    refusal = World(POOL, pod("shop/a")).refused("shop/a", node="n2")
    assert (refusal.error, "n1" in refusal.message, "n2" in refusal.message) == ("wrong_node", True, True)


def test_a_node_that_claims_a_container_of_another_can_neither_hold_nor_shadow_it() -> None:
    world = World(POOL, pod("shop/a", node="n1"), pod("shop/b", node="n2"))
    (mine,) = world.add("shop/a", container="c", node="n1")
    (theirs,) = world.add("shop/b", container="c", node="n2")
    assert mine.address != theirs.address
    world.delete_pod("shop/a")
    world.release("c", generation=mine.generation, node="n1")
    assert [*world.state.holdings] == ["uid-b"]


def test_plain_containers_of_two_nodes_may_have_one_id() -> None:
    world = World(POOL)
    (first,) = world.add(container="cnitool-1", node="n1")
    (second,) = world.add(container="cnitool-1", node="n2")
    assert first.address != second.address
    world.release("cnitool-1", generation=first.generation, node="n1")
    assert world.state.lease_count() == 1
    assert world.add(container="cnitool-1", node="n2")[0].address == second.address


def test_a_container_that_serves_another_pod_of_its_node_takes_nothing_from_the_first() -> None:
    world = World(POOL, pod("shop/a"), pod("shop/b"))
    (first,) = world.add("shop/a", container="c")
    (second,) = world.add("shop/b", container="c")
    world.delete_pod("shop/a")
    world.release("c", generation=first.generation)
    assert [*world.state.holdings] == ["uid-b"]
    world.delete_pod("shop/b")
    world.release("c", generation=second.generation)
    assert world.state.lease_count() == 0


def test_a_plain_container_is_its_own_identity_and_released_at_once() -> None:
    world = World(POOL)
    (grant,) = world.add(container="c1", attempt="a1")
    assert world.add(container="c1", attempt="a1") == (grant,)
    assert world.add(container="c2")[0].address != grant.address
    (event,) = world.release("c1").events
    assert isinstance(event, LeasesReleased)
    assert world.state.lease_count() == 1


@pytest.mark.parametrize(
    ("made", "word"),
    [
        pytest.param({"terminating": True}, "terminating", id="terminating"),
        pytest.param({"phase": "Succeeded", "restart_policy": "Never"}, "succeeded", id="succeeded"),
        pytest.param({"phase": "Succeeded", "restart_policy": "OnFailure"}, "succeeded", id="succeeded 2"),
        pytest.param({"phase": "Failed", "restart_policy": "Never"}, "failed", id="failed"),
        pytest.param({"phase": "Failed", "reason": "Evicted"}, "evicted", id="evicted"),
    ],
)
def test_a_dead_pod_is_refused_after_asking_and_what_it_held_is_released(
    made: dict[str, object], word: str
) -> None:
    world = World(POOL, pod("shop/a"))
    world.add("shop/a")
    world.apply(pod("shop/a", **made))  # type: ignore[arg-type]
    assert world.decide(world.command("shop/a"), asked=False) == AskFacts("shop", "a")
    refusal = world.refused("shop/a")
    assert (refusal.error, "dead Pod" in refusal.message, word in refusal.message) == ("pod_dead", True, True)
    world.release("sandbox-a")
    assert world.state.lease_count() == 0


@pytest.mark.parametrize(
    "made",
    [{"phase": "Succeeded", "restart_policy": "Always"}, {"phase": "Failed", "restart_policy": "OnFailure"}],
)
def test_a_pod_that_will_be_restarted_lives(made: dict[str, object]) -> None:
    world = World(POOL, pod("shop/a", **made))  # type: ignore[arg-type]
    assert world.add("shop/a")


def test_an_unknown_pod_is_asked_for_and_then_refused() -> None:
    world = World(POOL)
    assert world.decide(world.command("shop/a"), asked=False) == AskFacts("shop", "a")
    assert refusal_of(world, "shop/a") == "pod_unknown"


def test_a_fact_of_another_uid_counts_as_absent_until_asked_and_then_means_dead() -> None:
    world = World(POOL, pod("shop/a", uid="new"))
    assert world.decide(world.command("shop/a", uid="old"), asked=False) == AskFacts("shop", "a")
    refusal = world.refused("shop/a", uid="old")
    assert (refusal.error, "new" in refusal.message) == ("pod_dead", True)


def test_the_same_name_with_a_new_uid_starts_fresh_while_the_old_waits_for_its_del() -> None:
    world = World(POOL, pod("shop/a", uid="one"))
    (first,) = world.add("shop/a", uid="one", container="c1")
    world.apply(pod("shop/a", uid="two"))
    (second,) = world.add("shop/a", uid="two", container="c2")
    assert first.address != second.address
    world.release("c1", generation=first.generation)
    assert [*world.state.holdings] == ["two"]
    world.release("c2")
    assert world.state.lease_count() == 1, "the pod of the new UID lives"


def test_a_pod_that_was_detached_before_its_name_came_again_is_released() -> None:
    world = World(POOL, pod("shop/a", uid="one"))
    world.add("shop/a", uid="one", container="c1")
    world.release("c1")
    world.apply(pod("shop/a", uid="two"))
    assert world.state.lease_count() == 0


def test_a_static_pod_is_matched_by_its_configuration_hash() -> None:
    world = World(POOL, pod("kube-system/etcd", uid="mirror", annotations={HASH: "hash"}))
    (grant,) = world.add("kube-system/etcd", uid="hash", container="c1")
    world.release("c1")
    assert world.state.lease_count() == 1
    assert world.add("kube-system/etcd", uid="hash", container="c2")[0].address == grant.address
    world.apply(pod("kube-system/etcd", uid="mirror2", annotations={HASH: "changed"}))
    world.release("c2")
    assert world.state.lease_count() == 0


def test_a_manifest_without_uid_takes_the_callers() -> None:
    world = World(POOL, pod("shop/a", uid=""))
    world.add("shop/a", uid="one")
    assert [*world.state.holdings] == ["one"]
    world.release("sandbox-a")
    assert world.state.lease_count() == 1
    world.delete_pod("shop/a")
    assert world.state.lease_count() == 0


def test_a_manifest_without_uid_whose_pod_is_re_created_lets_go_of_the_one_before() -> None:
    world = World(POOL, pod("shop/a", uid=""))
    for i in range(10):
        world.add("shop/a", uid=f"run-{i}", container=f"c{i}")
        world.release(f"c{i}")
    assert [*world.state.holdings] == ["run-9"]


def test_a_late_del_of_the_run_before_of_a_manifest_without_uid_releases_it() -> None:
    world = World(POOL, pod("shop/a", uid=""))
    (first,) = world.add("shop/a", uid="one", container="c1")
    world.add("shop/a", uid="two", container="c2")
    world.release("c1", generation=first.generation)
    assert [*world.state.holdings] == ["two"]


def test_a_caller_without_uid_has_the_objects_or_the_name() -> None:
    world = World(POOL, pod("shop/a", uid="known"), pod("shop/b", uid=""))
    world.add("shop/a", uid="")
    world.add("shop/b", uid="")
    assert [*world.state.holdings] == ["known", "pod:shop/b"]
    world.release("sandbox-b")
    assert world.state.lease_count() == 2
    world.delete_pod("shop/b")
    assert world.state.lease_count() == 1


def test_an_older_version_of_an_object_changes_nothing() -> None:
    world = World(POOL, pod("shop/a"))
    fact = world.facts.pods["shop", "a"]
    changes = world.facts.apply(ObjectGone(kind="Pod", namespace="shop", name="a", uid="uid-a", version=1), 0)
    assert world.facts.pods["shop", "a"] is fact and not changes.pods


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        pytest.param({"container": "c" * 256}, "container_id", id="container ID too long"),
        pytest.param({"attempt": "a" * 1000}, "attempt", id="attempt too long"),
        pytest.param({"uid": "u" * 1000}, "pod_uid", id="UID too long"),
        pytest.param({"node": "n" * 1000}, "node", id="node too long"),
    ],
)
def test_a_request_that_no_agent_can_have_made_is_refused(options: dict[str, str], fragment: str) -> None:
    refusal = World(POOL, pod("shop/a")).refused("shop/a", **options)
    assert (refusal.error, fragment in refusal.message) == ("invalid", True), refusal


@pytest.mark.parametrize(
    "interfaces",
    [
        pytest.param((), id="none"),
        pytest.param(tuple(InterfaceRequest(ifname=f"net{i}") for i in range(33)), id="too many"),
        pytest.param((InterfaceRequest(ifname="eth0"), InterfaceRequest(ifname="eth0")), id="one twice"),
        pytest.param((InterfaceRequest(ifname="e" * 16),), id="name too long"),
        pytest.param((InterfaceRequest(ifname=""),), id="no name"),
        pytest.param((InterfaceRequest(ifname="eth0", ipv4=("p" * 254,)),), id="pool name too long"),
        pytest.param(
            (InterfaceRequest(ifname="eth0", ipv4=tuple(map(str, range(1000)))),), id="too many pools"
        ),
    ],
)
def test_interfaces_that_no_agent_can_have_asked_for_are_refused(
    interfaces: tuple[InterfaceRequest, ...],
) -> None:
    world = World(POOL, pod("shop/a"))
    command = msgspec.structs.replace(world.command("shop/a"), interfaces=interfaces)
    decision = world.decide(command)
    assert isinstance(decision, Rejected) and decision.refusal.error == "invalid"


@pytest.mark.parametrize("cooldown_s", [math.inf, math.nan, -math.inf, -1.0, 1e300])
def test_a_senseless_cool_down_breaks_nothing(cooldown_s: float) -> None:
    world = World(POOL, pod("shop/a"))
    world.add(container="c1")
    world.release("c1", cooldown_s=cooldown_s)
    assert world.state.lease_count() == 0
    assert all(
        resting.until_ns <= world.now_ns + int(limits.COOLDOWN_MAX_S * SECOND_NS)
        for resting in world.state.resting.values()
    )
