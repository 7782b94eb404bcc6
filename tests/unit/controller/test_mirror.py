"""The mirror of leases: pages and log together give what the log says, whatever the pages knew already."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.controller.mirror import Mirror
from shared.contracts.lease import (
    LeaseEvent,
    LeaseItem,
    LeasesAllocated,
    LeasesInherited,
    LeasesReleased,
    LogRebuilt,
)
from shared.contracts.query import LeaseView


def allocated(owner: str, interface: str, address: str) -> LeasesAllocated:
    item = LeaseItem(ifname=interface, address=address, pool="rack", prefix_len=16)
    return LeasesAllocated(
        owner=owner,
        node="n1",
        container_id="c",
        attempt="a",
        generation=1,
        items=(item,),
        attached=(interface,),
        pod_namespace="shop",
        pod_name=f"pod-{owner}",
    )


def released(owner: str, interface: str) -> LeasesReleased:
    return LeasesReleased(owner=owner, ifnames=(interface,), reason="DEL")


def page(mirror: Mirror) -> list[LeaseView]:
    """What the allocator would tell of such a state."""
    return [
        LeaseView(
            address=lease.address,
            pool=lease.pool,
            interface=lease.interface,
            pod_namespace=holder.namespace,
            pod_name=holder.name,
            pod_uid=owner,
            node=holder.node,
            prefix_len=lease.prefix_len,
        )
        for owner, holder in mirror.holders.items()
        for lease in holder.leases
    ]


def seen(mirror: Mirror) -> set[tuple[str, str, str]]:
    by_holder = {
        (owner, lease.interface, lease.address)
        for owner, holder in mirror.holders.items()
        for lease in holder.leases
    }
    assert {(owner, address) for owner, _, address in by_holder} == {
        (owner, address) for address, owner in mirror.by_pool.get("rack", {}).items()
    }
    return by_holder


steps = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["eth0", "net1"]), st.booleans()), max_size=30
)


@settings(max_examples=200, deadline=None)
@given(steps=steps, begin=st.integers(0, 30), cut=st.integers(0, 30))
def test_pages_of_different_moments_and_the_log_from_the_first_give_the_log(
    steps: list[tuple[str, str, bool]], begin: int, cut: int
) -> None:
    whole, events = Mirror(), list[LeaseEvent]()
    free = iter(f"10.6.{number >> 8}.{number & 255}" for number in range(1, 1000))
    for owner, interface, take in steps:
        has = owner in whole.holders and any(
            lease.interface == interface for lease in whole.holders[owner].leases
        )
        if take == has:
            continue
        event = allocated(owner, interface, next(free)) if take else released(owner, interface)
        events.append(event)
        whole.fold(event)
    begin, cut = sorted((min(begin, len(events)), min(cut, len(events))))
    early, late = Mirror(), Mirror()
    for number, event in enumerate(events):
        if number < begin:
            early.fold(event)
        if number < cut:
            late.fold(event)
    mirror = Mirror()
    mirror.load(view for view in page(early) if view.interface == "eth0")
    mirror.load(view for view in page(late) if view.interface == "net1")
    for event in events[begin:]:
        mirror.fold(event)
    assert seen(mirror) == seen(whole)


def test_what_changed_is_told_once() -> None:
    mirror = Mirror()
    mirror.fold(allocated("a", "eth0", "10.6.0.1"))
    assert mirror.changed() == ([("shop", "pod-a")], ["rack"])
    assert mirror.changed() == ([], [])
    mirror.fold(released("a", "eth0"))
    assert mirror.changed() == ([("shop", "pod-a")], ["rack"])
    assert mirror.of_pod("shop", "pod-a") == []
    assert not mirror.holders


def test_a_pod_that_takes_anothers_place_has_its_addresses() -> None:
    mirror = Mirror()
    mirror.fold(allocated("a", "eth0", "10.6.0.1"))
    mirror.fold(
        LeasesInherited(
            owner="a", heir="b", node="n2", container_id="c", attempt="x", generation=2, attached=("eth0",)
        )
    )
    (holder,) = mirror.of_pod("shop", "pod-a")
    assert (holder.uid, holder.node, holder.leases[0].address) == ("b", "n2", "10.6.0.1")
    assert mirror.by_pool == {"rack": {"10.6.0.1": "b"}}


def test_a_log_that_was_rebuilt_is_read_anew() -> None:
    mirror = Mirror()
    mirror.fold(LogRebuilt(lost="i", reason="x"))
    assert mirror.lost
