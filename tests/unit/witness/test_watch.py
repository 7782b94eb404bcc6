"""Only what lasts is acted on; digests of both sides agree where both know the same; a mark refutes a log."""

from __future__ import annotations

import msgspec
import pytest

from services.agent.entry import Entry, LeasedInterface
from services.agent.scan import Scan, Sighting
from services.agent.witness import claims_of, details_of, is_evidence, report_of, strays_of
from services.allocator.rebuild import NodeClaims
from services.allocator.watch import ASK_AGAIN_S, RECHECK_S, Watch, digest_of_node, refuted_by
from services.allocator.watch import Testimony as Told
from shared import limits
from shared.contracts.ipam import Mark
from shared.contracts.lease import LeasesReleased, NodeReported
from shared.contracts.query import StrayView
from shared.contracts.witness import Claim, WitnessDetail, WitnessReport
from shared.ids import AttachmentId
from tests.support.pure_allocator import World, pool

NOTHING = Scan(looked=True, namespaces=1)


def entry(container: str, *addresses: str, generation: int = 1, **changes: object) -> Entry:
    fields: dict[str, object] = {
        "container_id": container,
        "ifname": "eth0",
        "state": "completed",
        "mode": "native",
        "attempt": "a1",
        "boot_id": "b1",
        "netns": f"/run/netns/{container}",
        "device": 4,
        "inode": 9,
        "network": "underlay",
        "generation": generation,
        "addresses": addresses,
    }
    return Entry(**{**fields, **changes})  # type: ignore[arg-type]


def sighting(address: str, netns: str = "c1", inode: int = 9, device: int = 4) -> Sighting:
    return Sighting(address=address, ifname="eth0", netns=f"/run/netns/{netns}", device=device, inode=inode)


def world(*containers: str) -> World:
    w = World(pool("v4", "10.6.0.0/16", "10.6.1.0-10.6.1.255", default=True))
    for container in containers:
        w.add("", container=container)
    return w


def idle(_: AttachmentId) -> bool:
    return False


def test_both_sides_make_the_same_digest_in_any_order() -> None:
    w = world("c1", "c2")
    first, second = entry("c1", "10.6.1.0/16"), entry("c2", "10.6.1.1/16", generation=2)
    for entries in ([first, second], [second, first]):
        report = report_of("n1", Mark(), entries, idle)
        assert report.digest == digest_of_node(w.state, "n1", frozenset())
    assert report_of("n1", Mark(), [first], idle).digest != digest_of_node(w.state, "n1", frozenset())


def test_containers_with_something_under_way_are_left_out_on_both_sides() -> None:
    w = world("c1", "c2")
    entries = [entry("c1", "10.6.1.0/16"), entry("c2", state="intent")]
    report = report_of("n1", Mark(), entries, idle)
    assert report.unsettled == ("c2",)
    assert report.digest == digest_of_node(w.state, "n1", frozenset(report.unsettled))
    busy = report_of("n1", Mark(), entries, lambda a: a.container_id == "c1")
    assert busy.unsettled == ("c1", "c2")


def test_every_interface_of_an_attachment_is_claimed() -> None:
    whole = entry(
        "c1",
        "10.6.1.0/16",
        others=(LeasedInterface(ifname="net1", generation=3, addresses=("10.7.0.1/16",)),),
    )
    scan = Scan(looked=True, namespaces=1, sightings=(sighting("10.6.1.0/16"), sighting("10.9.9.9/16")))
    own, other, stray = claims_of([whole], scan)
    assert (own.ifname, own.live) == ("eth0", True)
    assert (other.ifname, other.generation, other.live) == ("net1", 3, False)
    assert (stray.container_id, stray.state, stray.addresses) == ("", "kernel", ("10.9.9.9/16",))


def test_what_stands_in_no_entry_of_its_namespace_is_a_stray() -> None:
    entries = [
        entry("c1", "10.6.1.0/16", others=(LeasedInterface(ifname="net1", addresses=("10.7.0.1/16",)),)),
        entry("c2", "10.6.1.2/16", state="intent", inode=10),
        entry("c3", "10.6.1.3/16", inode=11),
    ]
    of_attachments = (sighting("10.6.1.0/16"), sighting("10.7.0.1/16"))
    under_way = (sighting("10.6.1.9/16", "c2", inode=10), sighting("10.6.1.9/16", "c3", inode=11))
    strays = (
        sighting("10.6.1.9/16"),
        sighting("10.6.1.0/16", "x", inode=12),
        sighting("10.6.1.0/16", "y", device=5),
    )
    scan = Scan(looked=True, namespaces=6, sightings=(*of_attachments, *under_way, *strays))
    assert strays_of(entries, scan, lambda a: a.container_id == "c3") == (
        StrayView(address="10.6.1.9/16", interface="eth0", netns="/run/netns/c1"),
        StrayView(address="10.6.1.0/16", interface="eth0", netns="/run/netns/x"),
        StrayView(address="10.6.1.0/16", interface="eth0", netns="/run/netns/y"),
    )


@pytest.mark.parametrize(
    ("scan", "entries", "seen", "expected"),
    [
        (NOTHING, [], Mark(), True),
        (Scan(looked=False, namespaces=3), [], Mark(incarnation="i"), False),
        (
            Scan(looked=True, namespaces=0),
            [entry("c1", "10.6.1.0/16")],
            Mark(incarnation="i"),
            False,
        ),
        (Scan(looked=True, namespaces=0), [], Mark(), False),
        (Scan(looked=True, namespaces=0), [], Mark(incarnation="i"), True),
    ],
    ids=["looked", "could not look", "mount missing", "new journal", "empty node"],
)
def test_what_is_evidence_of_absence(scan: Scan, entries: list[Entry], seen: Mark, expected: bool) -> None:
    assert is_evidence(scan, {one.attachment: one for one in entries}, seen) is expected


def test_many_claims_go_in_parts_and_come_together_again_in_any_order() -> None:
    claims = tuple(
        Claim(container_id=f"c{i}", ifname="eth0", addresses=("10.6.1.0/16",)) for i in range(1201)
    )
    report = report_of("n1", Mark(), [], idle)
    details = details_of("n1", "q", Mark(), claims, report, True)
    assert len(details) == 3
    watch = Watch()
    assert watch.put_together(details[2]) is None
    assert watch.put_together(details[0]) is None
    whole = watch.put_together(details[1])
    assert whole is not None
    assert whole.claims.claims == claims
    (empty,) = details_of("n1", "q", Mark(), (), report, True)
    assert watch.put_together(empty) is not None


def test_parts_that_cannot_be_are_ignored() -> None:
    watch = Watch()
    for part, parts in ((-1, 1), (1, 1), (0, 0), (0, 10**6)):
        detail = WitnessDetail(node="n1", question="q", seen=Mark(), part=part, parts=parts, claims=())
        assert watch.put_together(detail) is None


def report(w: World, digest: bytes, **changes: object) -> WitnessReport:
    fields: dict[str, object] = {"node": "n1", "seen": Mark(), "digest": digest, "attachments": 1}
    return WitnessReport(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_difference_is_looked_into_at_the_second_report() -> None:
    w, watch = world("c1"), Watch()
    right, wrong = digest_of_node(w.state, "n1", frozenset()), bytes(16)
    assert not watch.differs(w.state, report(w, right), 0.0)
    assert not watch.differs(w.state, report(w, wrong), 1.0)
    assert not watch.differs(w.state, report(w, right), 2.0)
    assert not watch.differs(w.state, report(w, wrong), 3.0)
    assert watch.differs(w.state, report(w, wrong), 4.0)
    assert not watch.differs(w.state, report(w, wrong, crowded=True), 5.0)


def test_a_node_is_asked_not_more_often_than_once_a_second() -> None:
    watch = Watch()
    assert watch.may_ask("n1", 10.0)
    assert not watch.may_ask("n1", 10.0 + ASK_AGAIN_S / 2)
    assert watch.may_ask("n2", 10.0 + ASK_AGAIN_S / 2)
    assert watch.may_ask("n1", 10.0 + ASK_AGAIN_S)


def answer(*claims: Claim) -> Told:
    return Told(question="q", seen=Mark(), claims=NodeClaims(node="n1", claims=claims, scanned=True))


def test_only_what_two_testimonies_show_is_appended() -> None:
    w, watch = world("c1"), Watch()
    assert watch.judge(w.state, w.facts, answer()) == ()
    (event,) = watch.judge(w.state, w.facts, answer())
    assert isinstance(event, LeasesReleased)


def test_a_difference_that_is_explained_is_not_asked_for_again_at_once() -> None:
    w, watch = world(), Watch()
    stray = Claim(container_id="x", ifname="eth0", addresses=("10.6.1.0/16",), generation=4)
    for _ in range(2):
        w.commit(watch.judge(w.state, w.facts, answer(stray)))
    assert w.state.is_busy(4, 0x0A060100)
    watch.judge(w.state, w.facts, answer(stray))
    theirs = report_of("n1", Mark(), [entry("x", "10.6.1.0/16", generation=4)], idle)
    assert watch.may_ask("n1", 100.0)
    assert not any(watch.differs(w.state, theirs, 101.0 + i) for i in range(3))
    assert watch.differs(w.state, theirs, 100.0 + RECHECK_S)


def test_a_node_that_was_silent_is_believed_at_once() -> None:
    w, watch = world(), Watch()
    w.state.silent = {"n1"}
    claim = Claim(container_id="c1", ifname="eth0", addresses=("10.6.1.7/16",), generation=3)
    events = watch.judge(w.state, w.facts, answer(claim))
    assert events[-1] == NodeReported(node="n1")
    w.commit(events)
    assert w.is_held("10.6.1.7")
    assert not w.state.silent


def test_a_mark_refutes_a_log_that_is_shorter_or_another() -> None:
    w = world("c1", "c2")
    state = w.state
    known = state.mark
    assert refuted_by(state, known) == ""
    assert "the log ends at 2" in refuted_by(state, msgspec.structs.replace(known, sequence=3))
    assert "another one" in refuted_by(state, msgspec.structs.replace(known, digest="ff"))
    assert refuted_by(state, Mark(incarnation="another", sequence=99, digest="ff")) == ""
    assert refuted_by(state, Mark()) == ""


def test_a_node_is_listened_to_up_to_a_limit_and_then_proves_no_absence() -> None:
    many = tuple(
        Claim(container_id=f"c{i}", ifname="eth0", addresses=("10.6.1.0/16",))
        for i in range(limits.WITNESS_CLAIMS_MAX + 1)
    )
    watch = Watch()
    told = [
        watch.put_together(d)
        for d in details_of("n1", "q", Mark(), many, report_of("n1", Mark(), [], idle), True)
    ]
    whole = told[-1]
    assert whole is not None
    assert len(whole.claims.claims) == limits.WITNESS_CLAIMS_MAX
    assert not whole.claims.scanned


def test_a_node_that_reports_without_end_is_compared_now_and_then() -> None:
    w, watch = world("c1"), Watch()
    wrong = [watch.differs(w.state, report(w, bytes(16)), 1.0 + i / 1000) for i in range(90)]
    assert not any(wrong)


def test_what_one_testimony_shows_is_asked_for_again_at_the_next_report() -> None:
    w, watch = world("c1"), Watch()
    right = digest_of_node(w.state, "n1", frozenset())
    watch.judge(w.state, w.facts, answer())
    assert watch.differs(w.state, report(w, right), 1.0)
    w.commit(watch.judge(w.state, w.facts, answer()))
    assert not watch.differs(w.state, report(w, digest_of_node(w.state, "n1", frozenset())), 2.0)
