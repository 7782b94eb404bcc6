"""Claims of nodes against state and objects: what is restored, kept from others, freed, or told to a person."""

from __future__ import annotations

import msgspec

from services.allocator.rebuild import Merged, NodeClaims, merge
from services.allocator.state import State
from shared import limits
from shared.contracts.lease import AddressesQuarantined, LeasesAllocated, LeasesReleased, QuarantineLifted
from shared.contracts.witness import Claim
from tests.support.pure_allocator import World, addresses, node, pod, pool

POOL = pool("v4", "10.6.0.0/16", "10.6.1.0-10.6.200.255", default=True)


def world() -> World:
    return World(
        POOL,
        node("n1"),
        node("n2"),
        *(pod(f"shop/web-{i}") for i in range(3)),
        pod("shop/db-0", node="n2"),
    )


def claim_of(world: World, owner: str, **changes: object) -> Claim:
    """What the owner's node has in its journal, as the state has it."""
    holding = world.state.holdings[owner]
    (ifname,) = holding.interfaces
    held = holding.interfaces[ifname]
    first = held.leases[0].address
    fields: dict[str, object] = {
        "container_id": holding.container_id,
        "ifname": ifname,
        "addresses": (f"10.6.{first >> 8 & 255}.{first & 255}/16",),
        "generation": held.generation,
        "attempt": "attempt-1",
        "pod_namespace": holding.namespace,
        "pod_name": holding.name,
        "pod_uid": owner if holding.namespace else "",
        "live": True,
    }
    return Claim(**{**fields, **changes})  # type: ignore[arg-type]


def container(name: str, address: str, generation: int = 5, **changes: object) -> Claim:
    fields: dict[str, object] = {
        "container_id": name,
        "ifname": "eth0",
        "addresses": (f"{address}/16",),
        "generation": generation,
        "live": True,
    }
    return Claim(**{**fields, **changes})  # type: ignore[arg-type]


def told(node: str, *claims: Claim, scanned: bool = True, unsettled: tuple[str, ...] = ()) -> NodeClaims:
    return NodeClaims(node=node, claims=claims, scanned=scanned, unsettled=frozenset(unsettled))


def settle(world: World, *nodes: NodeClaims, trusted: bool = False, state: State | None = None) -> Merged:
    """Merges and commits; the invariants hold after it, and the same claims change nothing more."""
    if state is not None:
        world.state = state
        world.state.put_pools({name: world.facts.pool_space(name) for name in world.facts.pools})
    merged = merge(world.state, world.facts, nodes, trusted=trusted)
    world.commit(merged.events)
    again = merge(world.state, world.facts, nodes, trusted=trusted)
    assert again.events == ()
    return merged


def test_a_node_that_has_what_the_log_has_changes_nothing() -> None:
    w = world()
    w.add("shop/web-0")
    w.add("", container="c1")
    merged = settle(w, told("n1", claim_of(w, "uid-web-0"), claim_of(w, "container:n1/c1")))
    assert merged == Merged()


def test_an_empty_log_is_rebuilt_from_the_journals_alone() -> None:
    w = world()
    given = {owner: addresses(w.add(owner)) for owner in ("shop/web-0", "shop/web-1")}
    given["shop/db-0"] = addresses(w.add("shop/db-0", node="n2"))
    w.add("", container="c1")
    before = w.held()
    n1 = told("n1", *(claim_of(w, o) for o in ("uid-web-0", "uid-web-1", "container:n1/c1")))
    n2 = told("n2", claim_of(w, "uid-db-0"))
    settle(w, n1, n2, trusted=True, state=State())
    assert w.held() == before
    assert addresses(w.add("shop/web-0")) == given["shop/web-0"]
    assert not {*addresses(w.add("shop/web-2"))} & {a for many in given.values() for a in many}


def test_an_older_state_gives_way_to_what_the_nodes_have_now() -> None:
    w = world()
    w.add("", container="old")
    older = w.restored()
    w.release("old")
    taken = addresses(w.add("", container="new"))
    claim = claim_of(w, "container:n1/new")
    settle(w, told("n1", claim), trusted=True, state=older)
    assert w.held() == {f"4/{0x0A060100:x}": "container:n1/new/eth0"}
    assert taken == ["10.6.1.0"]


def test_a_sandbox_made_anew_in_the_lost_part_keeps_its_generation() -> None:
    w = world()
    w.add("shop/web-0", container="s1")
    older = w.restored()
    w.add("shop/web-0", container="s2")
    claim = claim_of(w, "uid-web-0")
    settle(w, told("n1", claim), trusted=True, state=older)
    holding = w.state.holdings["uid-web-0"]
    assert (holding.container_id, holding.interfaces["eth0"].generation) == ("s2", claim.generation)
    w.release("s1", generation=1)
    assert w.is_held("10.6.1.0")


def test_of_two_claimants_the_higher_generation_keeps_it_and_the_other_is_told() -> None:
    w = world()
    low, high = container("a", "10.6.9.9", 5), container("b", "10.6.9.9", 8)
    merged = settle(w, told("n1", low), told("n2", high), trusted=True)
    assert w.held() == {f"4/{0x0A060909:x}": "container:n2/b/eth0"}
    (one,) = merged.disagreements
    assert (one.node, "n1" in one.settles) == ("n1", True)
    assert "uses it too" in one.sentence
    # whoever keeps it gives it back: the other still uses it
    w.release("b", node="n2")
    assert w.state.is_busy(4, 0x0A060909)


def test_a_pod_that_the_objects_confirm_wins_over_any_generation() -> None:
    w = world()
    w.add("shop/web-0")
    claim = claim_of(w, "uid-web-0")
    sick = container("x", claim.addresses[0].partition("/")[0], 1 << 40)
    settle(w, told("n1", claim), told("n2", sick), trusted=True, state=State())
    assert list(w.held().values()) == ["uid-web-0/eth0"]


def test_a_sick_node_that_claims_everything_keeps_a_bounded_number() -> None:
    for trusted in (False, True):
        w = world()
        w.add("shop/web-0")
        everything = [container(f"x{i}", f"10.6.{1 + i // 256}.{i % 256}", 1 << 40) for i in range(10_000)]
        merged = merge(w.state, w.facts, [told("n2", *everything)], trusted=trusted)
        w.commit(merged.events)
        busy = len(list(w.state.busy(4)))
        assert busy <= 1 + limits.WITNESS_UNKNOWN_MAX
        assert w.held()[f"4/{0x0A060100:x}"] == "uid-web-0/eth0", "it takes nothing away"
        assert any("10.6.1.0" in d.sentence for d in merged.disagreements)
        assert any("more addresses that nobody knows of" in d.sentence for d in merged.disagreements)
        w.add("shop/web-1")


def test_claims_that_cannot_be_are_told_and_ignored() -> None:
    w = world()
    claims = (
        container("a", "10.6.9.1", -1),
        container("b", "10.6.9.2", limits.GENERATION_MAX),
        container("c" * 999, "10.6.9.3"),
        container("d", "10.6.9.4", addresses=("10.6.9.4",)),
        container("e", "10.6.9.5", addresses=("nonsense/16",)),
        container("f", "10.6.9.6", ifname="i" * 99),
        container("g", "10.6.9.7", addresses=()),
    )
    merged = settle(w, told("n1", *claims), trusted=True)
    assert merged.events == ()
    assert "7 things that cannot be" in merged.disagreements[0].sentence


def test_without_a_loss_an_unknown_claim_is_kept_from_others_until_it_ends() -> None:
    w = world()
    merged = settle(w, told("n1", container("x", "10.6.1.0")))
    (event,) = merged.events
    assert isinstance(event, AddressesQuarantined)
    assert addresses(w.add("shop/web-0")) == ["10.6.1.1"]
    (lifted,) = settle(w, told("n1", claim_of(w, "uid-web-0"))).events
    assert isinstance(lifted, QuarantineLifted)
    assert addresses(w.add("shop/web-1")) == ["10.6.1.0"]


def test_a_report_that_is_no_evidence_frees_nothing() -> None:
    w = world()
    w.add("", container="c1")
    settle(w, told("n1", claim_of(w, "container:n1/c1"), container("x", "10.6.9.9")))
    merged = settle(w, told("n1", scanned=False))
    assert merged.events == ()
    assert w.is_held("10.6.1.0")
    assert w.state.is_busy(4, 0x0A060909)


def test_a_container_that_its_node_does_not_know_is_released() -> None:
    w = world()
    w.add("", container="c1")
    (event,) = settle(w, told("n1")).events
    assert isinstance(event, LeasesReleased)
    assert not w.is_held("10.6.1.0")


def test_what_is_under_way_is_left_alone() -> None:
    w = world()
    w.add("", container="c1")
    assert settle(w, told("n1", unsettled=("c1",))) == Merged()


def test_what_was_given_after_a_node_was_asked_is_not_missing_in_its_answer() -> None:
    w = world()
    w.add("", container="before")
    asked_at = w.state.generation
    w.add("", container="after")
    answer = msgspec.structs.replace(told("n1"), asked_at=asked_at)
    (event,) = settle(w, answer).events
    assert isinstance(event, LeasesReleased) and event.owner == "container:n1/before"
    assert settle(w, answer, trusted=True) == Merged()


def test_a_living_pod_keeps_its_lease_though_its_node_has_nothing() -> None:
    w = world()
    w.add("shop/web-0")
    merged = settle(w, told("n1"))
    assert merged.events == ()
    assert "no attachment has it" in merged.disagreements[0].sentence
    w.delete_pod("shop/web-0")
    (event,) = settle(w, told("n1")).events
    assert isinstance(event, LeasesReleased)


def test_a_lost_journal_beside_a_live_namespace_frees_nothing() -> None:
    w = world()
    w.add("", container="c1")
    seen = Claim(container_id="", ifname="eth0", addresses=("10.6.1.0/16",), state="kernel", live=True)
    merged = settle(w, told("n1", seen))
    assert w.is_held("10.6.1.0") and not any(isinstance(one, LeasesReleased) for one in merged.events)
    assert "journal has forgotten" in merged.disagreements[0].sentence


def test_an_address_that_only_a_kernel_shows_outlives_the_lease_that_it_is_under() -> None:
    """The lease may be an older one: what the log and the journal had of the present user is lost."""
    w = world()
    w.add("", container="older")
    seen = Claim(container_id="", ifname="eth0", addresses=("10.6.1.0/16",), state="kernel", live=True)
    settle(w, told("n1", seen))
    w.release("older")
    assert addresses(w.add("shop/web-0")) == ["10.6.1.1"]
    settle(w, told("n1", seen, claim_of(w, "uid-web-0")))
    assert not w.is_held("10.6.1.0") and w.state.quarantine
    settle(w, told("n1", claim_of(w, "uid-web-0")))
    assert not w.state.quarantine
    assert addresses(w.add("shop/web-1")) == ["10.6.1.0"]


def test_it_is_its_holders_again_once_a_journal_says_so() -> None:
    w = world()
    w.add("shop/web-0")
    seen = Claim(container_id="", ifname="eth0", addresses=("10.6.1.0/16",), state="kernel", live=True)
    settle(w, told("n1", seen))
    assert addresses(w.add("shop/web-0", container="again")) == ["10.6.1.0"]
    settle(w, told("n1", claim_of(w, "uid-web-0")))
    assert not w.state.quarantine


def test_an_address_that_only_a_kernel_shows_is_given_to_nobody() -> None:
    w = world()
    seen = Claim(container_id="", ifname="eth0", addresses=("10.6.1.0/16",), state="kernel", live=True)
    settle(w, told("n1", seen))
    assert addresses(w.add("shop/web-0")) == ["10.6.1.1"]


def test_the_entry_of_an_old_sandbox_is_no_disagreement() -> None:
    w = world()
    w.add("shop/web-0", container="s1")
    old = claim_of(w, "uid-web-0")
    w.add("shop/web-0", container="s2")
    new = claim_of(w, "uid-web-0")
    assert settle(w, told("n1", old, new)) == Merged()


def test_a_restored_claim_has_the_pool_that_its_address_is_of() -> None:
    w = world()
    w.apply(pool("other", "10.7.0.0/16", "10.7.1.0-10.7.1.9"))
    (event,) = settle(w, told("n1", container("a", "10.7.1.3")), trusted=True).events
    assert isinstance(event, LeasesAllocated)
    assert event.items[0].pool == "other"


def ended(w: World, owner: str) -> Claim:
    """The owner's lease ends in the log; what its node has of it."""
    claim = claim_of(w, owner)
    w.commit((LeasesReleased(owner=owner, ifnames=("eth0",), reason="in error"),))
    return claim


def test_a_lease_that_ended_in_error_is_made_anew_as_its_node_has_it() -> None:
    w = world()
    w.add("shop/web-0")
    before = w.held()
    claim = ended(w, "uid-web-0")
    w.restored()  # a snapshot remembers it too
    merged = settle(w, told("n1", claim))
    (event,) = merged.events
    assert isinstance(event, LeasesAllocated)
    assert (event.generation, event.reason) == (claim.generation, "its node has it still")
    assert "whose lease the log has ended" in merged.disagreements[0].sentence
    assert w.held() == before
    w.release(claim.container_id, generation=claim.generation)
    w.delete_pod("shop/web-0")
    assert not w.is_held("10.6.1.0")


def test_what_was_kept_from_others_meanwhile_is_leased_again() -> None:
    w = world()
    w.add("", container="c1")
    claim = ended(w, "container:n1/c1")
    settle(w, told("n1", msgspec.structs.replace(claim, live=False)))
    assert w.state.quarantine
    settle(w, told("n1", claim))
    assert not w.state.quarantine
    assert w.is_held("10.6.1.0")


def test_only_the_very_lease_that_ended_is_made_anew() -> None:
    for changes in (
        {"generation": 7},
        {"container_id": "other"},
        {"ifname": "net1"},
        {"live": False},
        {"state": "releasing"},
        {"addresses": ("10.6.1.0/16", "10.6.1.9/16")},
    ):
        w = world()
        w.add("", container="c1")
        claim = ended(w, "container:n1/c1")
        settle(w, told("n1", msgspec.structs.replace(claim, **changes)))
        assert not w.held(), changes
    w = world()
    w.add("", container="c1")
    settle(w, told("n2", ended(w, "container:n1/c1")))
    assert not w.held()


def test_an_address_that_was_given_since_stays_with_who_has_it() -> None:
    w = world()
    w.add("", container="c1")
    claim = ended(w, "container:n1/c1")
    w.add("shop/web-0")
    merged = settle(w, told("n1", claim, claim_of(w, "uid-web-0")))
    assert list(w.held().values()) == ["uid-web-0/eth0"]
    assert any("uses it too" in one.sentence for one in merged.disagreements)


def test_an_old_sandbox_does_not_take_the_place_of_the_pods_new_one() -> None:
    w = world()
    w.add("shop/web-0", container="s1")
    claim = ended(w, "uid-web-0")
    w.add("shop/web-1")
    w.add("shop/web-0", container="s2")
    settle(w, told("n1", claim, claim_of(w, "uid-web-1"), claim_of(w, "uid-web-0")))
    assert w.state.holdings["uid-web-0"].container_id == "s2"


def test_one_node_has_a_bounded_number_made_anew_at_a_time() -> None:
    w = world()
    claims: list[Claim] = []
    for i in range(limits.WITNESS_UNKNOWN_MAX + 44):
        w.add("", container=f"c{i}")
        claims.append(claim_of(w, f"container:n1/c{i}"))
    for i in range(len(claims)):
        w.commit((LeasesReleased(owner=f"container:n1/c{i}", ifnames=("eth0",), reason="in error"),))
    merged = merge(w.state, w.facts, [told("n1", *claims)], trusted=False)
    w.commit(merged.events)
    assert len(w.held()) == limits.WITNESS_UNKNOWN_MAX


def test_what_is_live_is_not_detached_whatever_del_was_heard() -> None:
    w = world()
    w.add("shop/web-0")
    claim = claim_of(w, "uid-web-0")
    w.release(claim.container_id)
    assert w.state.holdings["uid-web-0"].interfaces["eth0"].detached
    under_way = settle(w, told("n1", claim, unsettled=(claim.container_id,)))
    assert under_way == Merged()
    merged = settle(w, told("n1", claim))
    assert "which the log has as detached" in merged.disagreements[0].sentence
    w.delete_pod("shop/web-0")
    assert w.is_held("10.6.1.0"), "its node has it still"
    w.release(claim.container_id)
    assert not w.is_held("10.6.1.0")
