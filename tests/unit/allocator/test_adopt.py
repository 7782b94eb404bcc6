"""What another IPAM gave becomes leases: no address that a pod may have is left to be given to another."""

from __future__ import annotations

import pytest

from services.allocator.adopt import Adopted, decide_adopt
from services.allocator.audit import may_happen
from services.allocator.collect import judge
from shared import limits
from shared.contracts.adopt import RECORDS_PER_PART_MAX, AdoptedAddress
from shared.contracts.codec import encode
from shared.contracts.lease import AdoptionEnded
from tests.support.pure_allocator import World, addresses, pod, pool, reserved, stateful_set

V4 = pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.30", default=True)
V6 = pool("v6", "fd01::/64", "fd01::10-fd01::30", default=True)


def record(address: str, name: str = "web", uid: str = "u1", **more: object) -> AdoptedAddress:
    return AdoptedAddress(address=address, pod_namespace="shop", pod_name=name, pod_uid=uid, **more)  # type: ignore[arg-type]


def adopt(world: World, *records: AdoptedAddress) -> Adopted:
    adopted = decide_adopt(world.state, world.facts, records)
    copy = world.restored()
    for event in adopted.events:
        assert not [*may_happen(copy, event)]
        copy.evolve(event)
    world.commit(adopted.events)
    assert world.canonical(world.replayed()) == world.canonical() == world.canonical(world.restored())
    return adopted


def test_a_pod_has_both_families_of_every_interface() -> None:
    world = World(V4, V6, pod("shop/web", uid="u1"))
    adopted = adopt(
        world,
        record("10.1.0.12/24", ifname="eth0", node="n1", pool="v4"),
        record("fd01::12/64", ifname="eth0", node="n1", pool="v6"),
        record("10.1.0.13/24", ifname="net1", node="n1", pool="v4", clean_gateway=True),
    )
    assert (adopted.count, adopted.refused) == (3, ())
    holding = world.state.holdings["u1"]
    assert {name: len(held.leases) for name, held in holding.interfaces.items()} == {"eth0": 2, "net1": 1}
    assert holding.interfaces["net1"].clean_gateway and holding.node == "n1"
    assert addresses(world.add("", container="c")) == ["10.1.0.10", "fd01::10"]
    assert not world.state.adoption_open


def test_a_sandbox_made_anew_has_the_same_addresses() -> None:
    world = World(V4, pod("shop/web", uid="u1"))
    adopt(world, record("10.1.0.12/24", ifname="eth0", node="n1"))
    assert addresses(world.add("shop/web", uid="u1", container="c1")) == ["10.1.0.12"]
    world.release("c1")
    world.delete_pod("shop/web")
    assert not world.held()


def test_the_next_pod_of_a_stateful_set_inherits() -> None:
    world = World(V4, stateful_set("shop/db"))
    adopt(world, record("10.1.0.12", "db-0", "u1", ifname="eth0", node="n1"))
    world.apply(pod("shop/db-0", uid="u2", owner="StatefulSet/db"))
    assert addresses(world.add("shop/db-0", uid="u2", container="c2")) == ["10.1.0.12"]
    assert [*world.state.holdings] == ["u2"]


def test_the_same_again_changes_nothing() -> None:
    world = World(V4, pod("shop/web", uid="u1"))
    records = (
        record("10.1.0.12", ifname="eth0"),
        record("10.1.0.12", pool="v4"),
        record("10.1.0.13", "x", "u2"),
    )
    first = adopt(world, *records)
    assert first.count == 3 and len(world.held()) == 2
    again = adopt(world, *records)
    assert (again.events, again.count, again.refused) == ((), 3, ())


def test_what_was_adopted_is_known_and_what_was_told_in_parts_comes_together() -> None:
    world = World(V4, V6)
    adopt(world, record("10.1.0.12", ifname="eth0", node="n1"))
    adopt(world, record("fd01::12", pool="v6"))
    holding = world.state.holdings["u1"]
    assert [*holding.interfaces] == ["eth0"] and len(holding.interfaces["eth0"].leases) == 2


def test_without_an_endpoint_interfaces_are_named_in_order() -> None:
    world = World(V4, V6)
    adopt(world, *(record(text) for text in ("10.1.0.12", "10.1.0.13", "fd01::12", "10.1.0.14")))
    assert {n: len(h.leases) for n, h in world.state.holdings["u1"].interfaces.items()} == {
        "eth0": 2, "net1": 1, "net2": 1,
    }  # fmt: skip


def test_two_pods_on_one_address_the_one_that_lives_has_it() -> None:
    world = World(V4, pod("shop/alive", uid="u2"))
    adopted = adopt(
        world, record("10.1.0.12", "gone", "u1", ifname="eth0"), record("10.1.0.12", "alive", "u2")
    )
    assert [*world.state.holdings] == ["u2"]
    (refused,) = adopted.refused
    assert (refused.pod, refused.address) == ("shop/gone", "10.1.0.12")
    assert "shop/alive has it" in refused.reason


def test_two_that_live_on_one_address_the_first_has_it() -> None:
    world = World(V4, pod("shop/a", uid="u1"), pod("shop/b", uid="u2"))
    adopted = adopt(world, record("10.1.0.12", "a", "u1"), record("10.1.0.12", "b", "u2"))
    assert [*world.state.holdings] == ["u1"]
    assert "delete whichever" in adopted.refused[0].reason


def test_one_that_lives_takes_what_an_earlier_part_gave_to_one_that_is_gone() -> None:
    world = World(V4, pod("shop/alive", uid="u2"))
    adopt(world, record("10.1.0.12", "gone", "u1"))
    assert adopt(world, record("10.1.0.12", "alive", "u2")).refused == ()
    assert [*world.state.holdings] == ["u2"]
    assert adopt(world, record("10.1.0.12", "gone", "u1")).refused


def test_the_same_address_on_two_interfaces_of_a_pod_is_one_lease() -> None:
    world = World(V4)
    adopted = adopt(world, record("10.1.0.12", ifname="eth0"), record("10.1.0.12", ifname="net1"))
    assert adopted.count == 2 and len(world.held()) == 1


@pytest.mark.parametrize(
    ("address", "named", "pool_of_it"),
    [
        ("10.1.0.200", "v4", "v4"),  # in its subnet, not among its addresses
        ("10.1.0.12", "v4", "v4"),
        ("10.1.0.12", "deleted", "v4"),
        ("10.2.0.12", "v4", "other"),  # not of the pool named
        ("10.1.0.1", "v4", "v4"),  # its gateway
        ("10.1.0.20", "v4", "v4"),  # reserved
    ],
)
def test_whatever_is_odd_about_an_address_its_pod_keeps_it(address: str, named: str, pool_of_it: str) -> None:
    other = pool("other", "10.2.0.0/24", "10.2.0.10-10.2.0.20")
    gateway = V4.replace('"default": true', '"gateway": "10.1.0.1"')
    world = World(gateway, other, reserved("r", "10.1.0.20"))
    adopt(world, record(address, pool=named))
    assert world.is_held(address)
    assert world.state.leases_by_pool == {pool_of_it: 1}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (record("192.168.7.7", pool="v4"), "no SpiderIPPool"),
        (record("fd01::12", pool="v4"), "no SpiderIPPool"),
        (record("10.1.0"), "mend the record"),
        (record(""), "mend the record"),
        (record("10.1.0.12", ""), "names no pod"),
        (record("10.1.0.12", "x" * 300), "longer"),
        (record("10.1.0.12", ifname="a-name-of-an-interface-too-long"), "interface"),
    ],
)
def test_what_cannot_become_a_lease_is_told(wrong: AdoptedAddress, told: str) -> None:
    world = World(V4)
    adopted = adopt(world, wrong, record("10.1.0.13", "good", "u9"))
    assert told in adopted.refused[0].reason
    assert [*world.state.holdings] == ["u9"]


def test_a_record_without_uid_is_of_the_pod_of_its_name() -> None:
    world = World(V4, pod("shop/web", uid="u1"))
    adopt(world, record("10.1.0.12", uid=""), record("10.1.0.13", "gone", uid=""))
    assert [*world.state.holdings] == ["u1", "pod:shop/gone"]
    assert world.state.holdings["u1"].node == "n1"


def test_a_record_under_another_name_is_of_the_pod_with_its_uid() -> None:
    """As the endpoint of a virtual machine has its name, and its pod another."""
    world = World(V4, pod("shop/virt-launcher-vm-x7k2p", uid="u1", ips=("10.1.0.12",)))
    adopt(world, record("10.1.0.12", "vm", "u1", ifname="eth0", node="n1"))
    adopt(world, record("10.1.0.12", "virt-launcher-vm-x7k2p", "u1", pool="v4"))
    holding = world.state.holdings["u1"]
    assert holding.name == "virt-launcher-vm-x7k2p"
    assert judge(world.state, world.facts, holding, world.now_ns, "heard").action == "keep"


def test_a_lease_of_ours_never_gives_way() -> None:
    world = World(V4, pod("shop/web", uid="u1"), pod("shop/x", uid="u2"))
    mine = addresses(world.add("shop/x", uid="u2", container="c2"))[0]
    world.delete_pod("shop/x")
    assert decide_adopt(world.state, world.facts, (record(mine),)).refused


def test_a_huge_status_comes_in_parts_and_each_fits_a_record() -> None:
    world = World(pool("big", "10.0.0.0/16", "10.0.1.0-10.0.255.0"))
    records = [
        record(
            f"10.0.{1 + i // 250}.{i % 250}",
            f"app-{i:x>60}",
            f"{i:036}",
            ifname="eth0",
            node="node-" + "n" * 60,
        )
        for i in range(5 * RECORDS_PER_PART_MAX)
    ]
    for start in range(0, len(records), RECORDS_PER_PART_MAX):
        adopted = decide_adopt(world.state, world.facts, tuple(records[start : start + RECORDS_PER_PART_MAX]))
        assert sum(len(encode(event)) for event in adopted.events) < limits.RECORD_MAX_BYTES
        for event in adopted.events:
            world.state.evolve(event)
    assert world.state.lease_count() == len(records)
    assert decide_adopt(world.state, world.facts, tuple(records)).refused


def test_ended_is_ended_in_every_form_of_the_state() -> None:
    world = World(V4)
    assert world.state.adoption_open
    world.commit((AdoptionEnded(),))
    assert not world.state.adoption_open
    assert not world.replayed().adoption_open and not world.restored().adoption_open
