"""What a dead pod leaves: conformance rows G00001, G00002, G00004, G00006 as far as decisions go."""

from __future__ import annotations

from services.allocator.decide import decide_collect
from tests.support.pure_allocator import World, pod, pool

POOL = pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.30", default=True)


def test_g00001_all_pods_of_a_namespace_that_went() -> None:
    world = World(POOL, *(pod(f"{ns}/w{i}", uid=f"{ns}-{i}") for ns in ("a", "b") for i in range(3)))
    for ns in ("a", "b"):
        for i in range(3):
            world.add(f"{ns}/w{i}", uid=f"{ns}-{i}", container=f"{ns}{i}")
    for i in range(3):
        world.release(f"a{i}")
        world.delete_pod(f"a/w{i}")
    assert sorted(world.state.holdings) == ["b-0", "b-1", "b-2"]


def test_g00002_the_pod_of_the_same_name_in_another_namespace_stays() -> None:
    world = World(POOL, pod("a/web", uid="one"), pod("b/web", uid="two"))
    world.add("a/web", uid="one", container="c1")
    world.add("b/web", uid="two", container="c2")
    world.delete_pod("a/web")
    world.release("c1")
    assert [*world.state.holdings] == ["two"]


def test_g00004_a_pod_without_grace_is_released_whichever_comes_first() -> None:
    world = World(POOL, pod("a/x"), pod("a/y"))
    world.add("a/x")
    world.add("a/y")
    world.delete_pod("a/x")
    world.release("sandbox-x")
    world.release("sandbox-y")
    world.delete_pod("a/y")
    assert world.state.lease_count() == 0


def test_g00006_a_finished_job_gives_its_addresses_back() -> None:
    world = World(POOL, pod("a/done", restart_policy="Never"), pod("a/failed", restart_policy="Never"))
    world.add("a/done")
    world.add("a/failed")
    world.release("sandbox-done")
    world.apply(pod("a/done", restart_policy="Never", phase="Succeeded"))
    world.apply(pod("a/failed", restart_policy="Never", phase="Failed"))
    world.release("sandbox-failed")
    assert world.state.lease_count() == 0


def test_an_attachment_without_a_del_stays_until_its_node_detaches_it() -> None:
    world = World(POOL, pod("a/x"))
    world.add("a/x")
    world.delete_pod("a/x")
    assert world.state.lease_count() == 1
    assert decide_collect(world.state, world.facts, "a", "x", world.now_ns).events == ()


def test_one_attached_interface_keeps_the_rest() -> None:
    world = World(POOL, pod("a/x"))
    world.add("a/x", "eth0")
    world.add("a/x", "net1")
    world.release("sandbox-x", "net1")
    world.delete_pod("a/x")
    assert world.state.lease_count() == 2


def test_what_was_only_taken_ahead_goes_with_what_was_detached() -> None:
    marks = {"ipam.spidernet.io/ippools": [{"interface": f"net{i}", "ipv4": ["v4"]} for i in range(2)]}
    world = World(POOL, pod("a/x", annotations=marks))
    world.add("a/x", "net0")
    world.release("sandbox-x", "net0")
    world.delete_pod("a/x")
    assert world.state.lease_count() == 0


def test_collecting_again_or_what_was_never_there_changes_nothing() -> None:
    world = World(POOL, pod("a/x"))
    assert decide_collect(world.state, world.facts, "a", "x", world.now_ns).events == ()
    assert decide_collect(world.state, world.facts, "no", "pod", world.now_ns).events == ()
