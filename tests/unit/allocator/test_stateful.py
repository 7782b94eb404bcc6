"""Pods of a StatefulSet keep their addresses: §3.6 of the reference's behaviour, and the conformance rows A00009, A00010, A00017,
A00018, L00008, G00010, G00011."""

from __future__ import annotations

import pytest

from services.allocator.owner import ordinal_of
from shared.contracts.ipam import InterfaceRequest
from shared.contracts.lease import LeasesInherited
from tests.support.pure_allocator import World, addresses, network, node, pod, pool, settings, stateful_set

A = pool("a", "10.1.0.0/24", "10.1.0.10-10.1.0.30", default=True)
B = pool("b", "10.2.0.0/24", "10.2.0.10-10.2.0.30")
A6 = pool("a6", "fd01::/64", "fd01::10-fd01::30", default=True)
IPPOOL = "ipam.spidernet.io/ippool"
IPPOOLS = "ipam.spidernet.io/ippools"
NETWORKS = "k8s.v1.cni.cncf.io/networks"


def named(*pools: str) -> dict[str, object]:
    return {IPPOOL: {"ipv4": list(pools)}}


def member(name: str, uid: str, **more: object) -> str:
    return pod(f"shop/{name}", uid=uid, owner=f"StatefulSet/{name.rpartition('-')[0]}", **more)  # type: ignore[arg-type]


def restart(world: World, name: str, before: str, after: str, **more: object) -> None:
    """As kubelet and StatefulSet controller do it: DEL of every interface, the object goes, the next one comes."""
    for holding in world.state.holdings_of_pod("shop", name):
        for ifname in tuple(holding.interfaces):
            world.release(holding.container_id, ifname, node=holding.node)
    world.delete_pod(f"shop/{name}")
    world.apply(member(name, after, **more))
    assert before not in world.facts.pods


def test_a_restarted_pod_has_its_addresses_of_both_families_on_another_node_too() -> None:
    world = World(A, A6, stateful_set("shop/web", 2), member("web-0", "u1"), member("web-1", "v1"))
    first = addresses(world.add("shop/web-0", uid="u1", container="c1"))
    other = addresses(world.add("shop/web-1", uid="v1", container="d1"))
    restart(world, "web-0", "u1", "u2", node="n2")
    assert world.is_held(first[0]) and world.is_held(first[1])
    assert addresses(world.add("shop/web-0", uid="u2", container="c2", node="n2")) == first
    assert addresses(world.add("shop/web-1", uid="v1", container="d1")) == other
    assert [*world.state.holdings] == ["v1", "u2"]
    assert world.canonical(world.replayed()) == world.canonical() == world.canonical(world.restored())


def test_a_repeated_request_inherits_once() -> None:
    world = World(A, stateful_set("shop/web"), member("web-0", "u1"))
    first = world.add("shop/web-0", uid="u1", container="c1")
    restart(world, "web-0", "u1", "u2")
    once = world.add("shop/web-0", uid="u2", container="c2", attempt="x")
    assert world.add("shop/web-0", uid="u2", container="c2", attempt="x") == once
    assert addresses(once) == addresses(first)
    assert once[0].generation > first[0].generation


def test_a_late_release_of_the_pod_before_changes_nothing() -> None:
    world = World(A, stateful_set("shop/web"), member("web-0", "u1"))
    before = world.add("shop/web-0", uid="u1", container="c1")
    world.delete_pod("shop/web-0")
    world.apply(member("web-0", "u2"))
    world.add("shop/web-0", uid="u2", container="c2")
    assert world.release("c1", generation=before[0].generation).events == ()
    assert world.release("c2", generation=before[0].generation).events == ()
    assert len(world.held()) == 1


def test_scaling_down_releases_whichever_comes_first() -> None:
    world = World(A, stateful_set("shop/web", 2), member("web-0", "u1"), member("web-1", "v1"))
    world.add("shop/web-0", uid="u1", container="c1")
    world.add("shop/web-1", uid="v1", container="d1")
    world.apply(stateful_set("shop/web", 1))
    world.apply(member("web-1", "v1", terminating=True))
    world.release("d1")
    assert [*world.state.holdings] == ["u1"]
    world.apply(stateful_set("shop/web", 2), member("web-1", "v2"))
    world.add("shop/web-1", uid="v2", container="d2")
    world.release("d2")
    world.delete_pod("shop/web-1")
    assert len(world.held()) == 2
    world.apply(stateful_set("shop/web", 1))
    assert [*world.state.holdings] == ["u1"]


@pytest.mark.parametrize("how", ["deleted", "terminating", "started later"])
def test_nothing_waits_for_a_stateful_set_that_makes_no_such_pod(how: str) -> None:
    world = World(A, stateful_set("shop/web"), member("web-0", "u1"))
    world.add("shop/web-0", uid="u1", container="c1")
    world.release("c1")
    world.delete_pod("shop/web-0")
    assert len(world.held()) == 1
    if how == "deleted":
        world.delete("StatefulSet", "web", "shop")
    elif how == "terminating":
        world.apply(stateful_set("shop/web", terminating=True))
    else:
        world.apply(stateful_set("shop/web", start=1))
    assert not world.held()


def test_ordinals_may_start_above_zero() -> None:
    world = World(A, stateful_set("shop/web", 2, start=5), member("web-6", "u1"), member("web-4", "v1"))
    for name, uid in (("web-6", "u1"), ("web-4", "v1")):
        world.add(f"shop/{name}", uid=uid, container=uid)
        world.release(uid)
        world.delete_pod(f"shop/{name}")
    assert [*world.state.holdings] == ["u1"]


def test_switched_off_no_pod_keeps_an_address() -> None:
    world = World(A, settings(enableStatefulSet=False), stateful_set("shop/web"), member("web-0", "u1"))
    world.add("shop/web-0", uid="u1", container="c1")
    world.release("c1")
    world.delete_pod("shop/web-0")
    assert not world.held()


def test_switched_off_a_new_pod_does_not_inherit() -> None:
    world = World(A, settings(enableStatefulSet=False), stateful_set("shop/web"), member("web-0", "u1"))
    before = addresses(world.add("shop/web-0", uid="u1", container="c1"))
    world.delete_pod("shop/web-0")
    world.apply(member("web-0", "u2"))
    assert addresses(world.add("shop/web-0", uid="u2", container="c2")) != before


def test_stateful_sets_of_others_keep_nothing() -> None:
    text = stateful_set("shop/web").replace("apps/v1", "apps.kruise.io/v1beta1")
    world = World(A, text, pod("shop/web-0", uid="u1", owner="StatefulSet/web"))
    world.add("shop/web-0", uid="u1", container="c1")
    world.release("c1")
    world.delete_pod("shop/web-0")
    assert not world.held()


def test_a_pod_that_no_stateful_set_owns_inherits_nothing() -> None:
    world = World(A, stateful_set("shop/web"), pod("shop/web-0", uid="u1"))
    before = addresses(world.add("shop/web-0", uid="u1", container="c1"))
    world.release("c1")
    world.delete_pod("shop/web-0")
    world.apply(pod("shop/web-0", uid="u2"))
    assert addresses(world.add("shop/web-0", uid="u2", container="c2")) != before


def test_a_pod_without_uid_inherits_as_well() -> None:
    world = World(A, stateful_set("shop/web"), member("web-0", ""))
    before = addresses(world.add("shop/web-0", uid="caller-1", container="c1"))
    world.release("c1")
    assert addresses(world.add("shop/web-0", uid="caller-2", container="c2")) == before
    assert [*world.state.holdings] == ["caller-2"]


def test_a00009_another_pool_is_named() -> None:
    world = World(A, B, stateful_set("shop/web"), member("web-0", "u1", annotations=named("a")))
    world.add("shop/web-0", uid="u1", container="c1")
    restart(world, "web-0", "u1", "u2", annotations=named("b"))
    assert addresses(world.add("shop/web-0", uid="u2", container="c2")) == ["10.2.0.10"]
    assert "a" not in world.state.leases_by_pool


def test_a00009_what_cannot_be_given_anew_is_not_given_up() -> None:
    world = World(
        A,
        pool("b", "10.2.0.0/24", "10.2.0.10"),
        stateful_set("shop/web"),
        member("web-0", "u1", annotations=named("a")),
        pod("shop/other", annotations=named("b")),
    )
    before = addresses(world.add("shop/web-0", uid="u1", container="c1"))
    world.add("shop/other")
    restart(world, "web-0", "u1", "u2", annotations=named("b"))
    assert world.refused("shop/web-0", uid="u2", container="c2").error == "pool_exhausted"
    assert world.is_held(before[0])


def test_a_pool_that_is_switched_off_meanwhile_keeps_what_it_gave() -> None:
    world = World(A, stateful_set("shop/web"), member("web-0", "u1", annotations=named("a")))
    before = addresses(world.add("shop/web-0", uid="u1", container="c1"))
    restart(world, "web-0", "u1", "u2", annotations=named("a"))
    world.apply(A.replace('"default": true', '"disable": true'))
    assert addresses(world.add("shop/web-0", uid="u2", container="c2")) == before


def test_an_address_given_up_before_a_del_is_kept_from_others() -> None:
    world = World(A, B, stateful_set("shop/web"), member("web-0", "u1", annotations=named("a")))
    before = addresses(world.add("shop/web-0", uid="u1", container="c1"))
    world.delete_pod("shop/web-0")
    world.apply(
        member("web-0", "u2", annotations=named("b"), node="n2"), pod("shop/x", annotations=named("a"))
    )
    world.add("shop/web-0", uid="u2", container="c2", node="n2")
    assert not world.is_held(before[0])
    assert addresses(world.add("shop/x")) != before
    assert world.canonical(world.replayed()) == world.canonical()


@pytest.mark.parametrize("names", [("eth0", "net1"), ("", "")])
def test_a00010_a00018_interfaces_by_name_or_order(names: tuple[str, str]) -> None:
    def marks(second: str) -> dict[str, object]:
        return {
            IPPOOLS: [{"interface": names[0], "ipv4": ["a"]}, {"interface": names[1], "ipv4": [second]}],
            NETWORKS: "kube-system/n1",
        }

    c = pool("c", "10.3.0.0/24", "10.3.0.10-10.3.0.30")
    world = World(A, B, c, stateful_set("shop/web"), member("web-0", "u1", annotations=marks("b")))
    first = addresses(world.add("shop/web-0", uid="u1", container="c1"))
    world.add("shop/web-0", "net1", uid="u1", container="c1")
    restart(world, "web-0", "u1", "u2", annotations=marks("b"))
    assert addresses(world.add("shop/web-0", uid="u2", container="c2")) == first
    assert addresses(world.add("shop/web-0", "net1", uid="u2", container="c2")) == first
    restart(world, "web-0", "u2", "u3", annotations=marks("c"))
    world.add("shop/web-0", uid="u3", container="c3")
    grants = world.add("shop/web-0", "net1", uid="u3", container="c3")
    assert sorted(addresses(grants)) == [first[0], "10.3.0.10"]
    assert "b" not in world.state.leases_by_pool


def test_the_first_interface_moves_alone_and_the_others_keep_theirs() -> None:
    """The reference's pod stays stuck here: its endpoint is there still."""

    def marks(first: str) -> dict[str, object]:
        return {IPPOOLS: [{"interface": "eth0", "ipv4": [first]}, {"interface": "net1", "ipv4": ["b"]}]}

    c = pool("c", "10.3.0.0/24", "10.3.0.10-10.3.0.30")
    world = World(A, B, c, stateful_set("shop/web"), member("web-0", "u1", annotations=marks("a")))
    before = addresses(world.add("shop/web-0", uid="u1", container="c1"), "net1")
    world.add("shop/web-0", "net1", uid="u1", container="c1")
    restart(world, "web-0", "u1", "u2", annotations=marks("c"))
    assert addresses(world.add("shop/web-0", uid="u2", container="c2"), "eth0") == ["10.3.0.10"]
    assert addresses(world.add("shop/web-0", "net1", uid="u2", container="c2"), "net1") == before
    assert "a" not in world.state.leases_by_pool and [*world.state.holdings] == ["u2"]
    assert not world.state.quarantine, "a DEL was heard of what it gave up"


def test_only_what_is_given_up_before_a_del_is_kept_from_others() -> None:
    def marks(second: str) -> dict[str, object]:
        return {IPPOOLS: [{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": [second]}]}

    c = pool("c", "10.3.0.0/24", "10.3.0.10-10.3.0.30")
    world = World(A, B, c, stateful_set("shop/web"), member("web-0", "u1", annotations=marks("b")))
    world.add("shop/web-0", uid="u1", container="c1")
    world.add("shop/web-0", "net1", uid="u1", container="c1")
    world.delete_pod("shop/web-0")
    world.apply(member("web-0", "u2", annotations=marks("c")))
    decision = world.decide(world.command("shop/web-0", "eth0", "net1", uid="u2", container="c2"))
    inherited = [one for one in decision.events if isinstance(one, LeasesInherited)]  # type: ignore[union-attr]
    assert [one.attached for one in inherited] == [("eth0",)]
    assert [one.claim.address for one in world.state.quarantine.values()] == ["10.2.0.10"]
    assert world.is_held("10.1.0.10") and world.is_held("10.3.0.10")


def test_a_pool_that_is_not_there_is_named_and_nothing_is_given_up() -> None:
    world = World(A, stateful_set("shop/web"), member("web-0", "u1", annotations=named("a")))
    before = addresses(world.add("shop/web-0", uid="u1", container="c1"))
    restart(world, "web-0", "u1", "u2", annotations=named("nowhere"))
    assert world.refused("shop/web-0", uid="u2", container="c2").error == "pool_unknown"
    assert world.is_held(before[0])


def test_both_families_of_an_interface_move_though_one_pool_is_another() -> None:
    def marks(v4: str) -> dict[str, object]:
        return {IPPOOL: {"ipv4": [v4], "ipv6": ["a6"]}}

    world = World(A, A6, B, stateful_set("shop/web"), pod("shop/x"))
    world.add("shop/x")
    world.apply(member("web-0", "u1", annotations=marks("a")))
    before = addresses(world.add("shop/web-0", uid="u1", container="c1"))
    assert before == ["10.1.0.11", "fd01::11"]
    world.release("sandbox-x")
    world.delete_pod("shop/x")
    restart(world, "web-0", "u1", "u2", annotations=marks("b"))
    after = addresses(world.add("shop/web-0", uid="u2", container="c2"))
    assert after == ["10.2.0.10", "fd01::10"], "the lowest free of both, as for a new interface"
    assert not world.is_held(before[1])


def test_a00017_the_network_of_another_interface_names_another_pool() -> None:
    marks = {NETWORKS: "kube-system/fast"}
    request = InterfaceRequest(ifname="net1", network="kube-system/fast")
    world = World(
        A, B, network("kube-system/fast", ipv4=["b"]), pool("c", "10.3.0.0/24", "10.3.0.10-10.3.0.30"),
        stateful_set("shop/web"), member("web-0", "u1", annotations=marks),
    )  # fmt: skip
    world.add("shop/web-0", uid="u1", container="c1")
    first = addresses(world.add("shop/web-0", request, uid="u1", container="c1"))
    assert first == ["10.1.0.10", "10.2.0.10"]
    world.apply(network("kube-system/fast", ipv4=["c"]))
    restart(world, "web-0", "u1", "u2", annotations=marks)
    assert addresses(world.add("shop/web-0", uid="u2", container="c2"), "eth0") == ["10.1.0.10"]
    after = world.add("shop/web-0", request, uid="u2", container="c2")
    assert sorted(addresses(after)) == ["10.1.0.10", "10.3.0.10"]
    assert "b" not in world.state.leases_by_pool
    # a sandbox made anew is the same pod: its networks are not looked at again
    world.apply(network("kube-system/fast", ipv4=["b"]))
    world.add("shop/web-0", uid="u2", container="c3")
    assert addresses(world.add("shop/web-0", request, uid="u2", container="c3"), "net1") == ["10.3.0.10"]


def test_l00008_a_pool_bound_by_affinity_keeps_each_ordinal_its_address() -> None:
    bound = pool("bound", "10.4.0.0/24", "10.4.0.10-10.4.0.12", podAffinity={"matchLabels": {"app": "web"}})
    labels = {"app": "web"}
    names = ("web-0", "web-1", "web-2")
    world = World(
        bound, B, stateful_set("shop/web", 3), *(member(n, f"{n}.1", labels=labels, annotations=named("bound")) for n in names)
    )  # fmt: skip
    first = {n: addresses(world.add(f"shop/{n}", uid=f"{n}.1", container=f"{n}.1")) for n in names}
    for n in names:
        restart(world, n, f"{n}.1", f"{n}.2", labels=labels, annotations=named("bound"))
    for n in reversed(names):
        assert addresses(world.add(f"shop/{n}", uid=f"{n}.2", container=f"{n}.2")) == first[n]


def test_g00011_two_sets_up_and_down_on_one_pool_never_share() -> None:
    world = World(A, stateful_set("shop/a", 0), stateful_set("shop/b", 0))
    serial = 0
    for a, b in ((3, 1), (1, 4), (0, 2), (5, 0), (2, 2), (0, 0)):
        for name, replicas in (("a", a), ("b", b)):
            world.apply(stateful_set(f"shop/{name}", replicas))
            for i in range(6):
                key = ("shop", f"{name}-{i}")
                serial += 1
                if i < replicas and key not in world.facts.pods:
                    uid = f"{name}-{i}.{serial}"
                    world.apply(member(f"{name}-{i}", uid))
                    world.add(f"shop/{name}-{i}", uid=uid, container=uid)
                elif i >= replicas and key in world.facts.pods:
                    world.release(world.facts.pods[key].uid)
                    world.delete_pod(f"shop/{name}-{i}")
        assert len(world.held()) == a + b
    assert not world.state.holdings


def test_g00010_a_pod_that_came_up_without_us_ends_what_waited_for_it() -> None:
    world = World(A, node("n1"), stateful_set("shop/web"), member("web-0", "u1"))
    world.add("shop/web-0", uid="u1", container="c1")
    restart(world, "web-0", "u1", "u2")
    assert len(world.held()) == 1
    world.apply(member("web-0", "u2", ips=("192.168.0.9",)))
    assert not world.held()


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("web-0", ("web", 0)),
        ("my-web-12", ("my-web", 12)),
        ("web-01", None),
        ("web-", None),
        ("-0", None),
        ("web", None),
        ("web-x", None),
        ("web-٣", None),
        ("web-" + "9" * 400, None),
    ],
)
def test_which_names_a_stateful_set_makes(name: str, identity: tuple[str, int] | None) -> None:
    assert ordinal_of(name) == identity


def test_the_event_names_both_pods() -> None:
    world = World(A, stateful_set("shop/web"), member("web-0", "u1"))
    world.add("shop/web-0", uid="u1", container="c1")
    restart(world, "web-0", "u1", "u2")
    decision = world.decide(world.command("shop/web-0", uid="u2", container="c2"))
    (event,) = decision.events  # type: ignore[union-attr]
    assert isinstance(event, LeasesInherited)
    assert (event.owner, event.heir, event.attached) == ("u1", "u2", ("eth0",))
