"""What a dry run tells: every lease once, page by page, whatever the size of the pages."""

from __future__ import annotations

import pytest

from services.allocator.collect import Verdict, judge
from services.allocator.state import Holding
from services.allocator.verdict_page import verdict_page
from shared import limits
from shared.contracts.collect import Collect, LeaseVerdict
from tests.support.pure_allocator import World, pod, pool

PODS = 23


def world() -> World:
    """Pods with an address of each family; every third is gone, and its DEL was not heard."""
    made = World(
        pool("v4", "10.1.0.0/16", "10.1.0.10-10.1.2.30", default=True),
        pool("v6", "fd00::/64", "fd00::10-fd00::99", default=True),
    )
    for number in range(PODS):
        made.apply(pod(f"shop/p{number}", ips=("10.1.0.1",)))
        made.add(f"shop/p{number}")
        if number % 3 == 0:
            made.facts.pods.pop(("shop", f"p{number}"))
    return made


def pages(made: World, **query: object) -> list[tuple[tuple[LeaseVerdict, ...], dict[str, int]]]:
    def judged(holding: Holding) -> Verdict:
        return judge(made.state, made.facts, holding, made.now_ns, "heard")

    out: list[tuple[tuple[LeaseVerdict, ...], dict[str, int]]] = []
    after = ""
    while True:
        page = verdict_page(made.state, made.facts, judged, Collect(after=after, **query), "")  # type: ignore[arg-type]
        out.append((page.verdicts, page.counts))
        after = page.next_after
        if not after:
            return out
        assert len(out) <= 2 * PODS


@pytest.mark.parametrize("limit", [1, 7, 2 * PODS, limits.PAGE_MAX_LEASES])
def test_every_lease_is_told_once_by_pages_of_any_size(limit: int) -> None:
    made = world()
    told = pages(made, dry_run=True, kept=True, limit=limit)
    verdicts = [one for page, _ in told for one in page]
    assert all(len(page) <= limit for page, _ in told)
    assert len({one.address for one in verdicts}) == len(verdicts) == 2 * PODS
    assert all(made.is_held(one.address) for one in verdicts)
    assert all(one.reason and one.rule for one in verdicts)
    assert [":" in one.address for one in verdicts] == sorted(":" in one.address for one in verdicts)
    assert sum(sum(counts.values()) for _, counts in told) == 2 * PODS


def test_those_that_stay_may_be_left_out_and_are_counted() -> None:
    told = pages(world(), dry_run=True, kept=False, limit=5)
    assert {one.rule for page, _ in told for one in page} <= {"missing"}
    assert sum(sum(counts.values()) for _, counts in told) == 2 * PODS


def test_an_address_to_go_on_from_that_is_none_is_refused() -> None:
    made = world()
    with pytest.raises(ValueError, match="nonsense"):
        verdict_page(made.state, made.facts, lambda _: Verdict(action="keep", rule="", reason=""), Collect(dry_run=True, after="nonsense"), "")  # fmt: skip
