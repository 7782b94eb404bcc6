"""What is stored beside the log: the mark, snapshots cut and joined, records that do not fit, and the servers' setting."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from services.allocator.facts import GONE_KEPT_MAX, Facts
from services.allocator.log import LogBroken, fold_message
from services.allocator.mark import MarkFile
from services.allocator.servers import wrong_settings
from services.allocator.snapshot import join
from services.allocator.state import State
from shared import limits, subjects
from shared.bus import StreamMessage
from shared.contracts.codec import MessageError, encode
from shared.contracts.facts import ObjectFact, ObjectGone
from shared.contracts.lease import RECORD, LeaseItem, LeasesAllocated, Record
from shared.contracts.mark import LogMark
from tests.support.pure_allocator import World, pod, pool
from tests.support.snapshot import cut


def test_a_mark_is_read_as_written_and_never_goes_back(tmp_path: Path) -> None:
    marks = MarkFile(tmp_path / "mark.json")
    assert marks.read() is None
    for sequence, expected in ((3, 3), (9, 9), (5, 9)):
        marks.write(LogMark(incarnation="i1", sequence=sequence))
        assert marks.read() == LogMark(incarnation="i1", sequence=expected)
    marks.write(LogMark(incarnation="i2", sequence=1))
    assert marks.read() == LogMark(incarnation="i2", sequence=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mark.json"]


def test_a_mark_that_cannot_be_read_is_no_first_start(tmp_path: Path) -> None:
    (tmp_path / "mark.json").write_text("{")
    with pytest.raises(LogBroken, match="cannot be read"):
        MarkFile(tmp_path / "mark.json").read()


def _world() -> World:
    world = World(
        pool("v4", "10.0.0.0/8", "10.0.0.0-10.255.255.255", default=True),
        pool("v6", "fd00::/8", "fd00::-fdff::", default=True),
        *(pod(f"shop/w{i}") for i in range(20)),
    )
    for i in range(20):
        world.add(f"shop/w{i}")
    return world


def test_a_snapshot_is_joined_from_its_chunks_and_from_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHUNK_BYTES", 100)
    world = _world()
    manifest, chunks = cut(world.state.snapshot())
    assert len(chunks) == manifest.chunks > 5 and max(map(len, chunks)) == 100
    world.add(container="later")
    joined = State.from_snapshot(join(manifest, chunks))
    assert joined.lease_count() == 40, "what came later is not in it"
    altered = [*chunks[:-1], bytes([chunks[-1][0] ^ 1]) + chunks[-1][1:]]
    for wrong in (chunks[:-1], chunks[::-1], altered, [*chunks, b""], []):
        with pytest.raises(MessageError):
            join(manifest, wrong)
    with pytest.raises(MessageError):
        join(msgspec.structs.replace(manifest, sequence=manifest.sequence + 1), chunks)


def _message(record: Record, sequence: int, subject: str = "") -> StreamMessage:
    subject = subject or subjects.lease(record.incarnation, record.term)
    return StreamMessage(subject=subject, data=encode(record), headers={}, sequence=sequence, pending=0)


def test_a_record_that_does_not_fit_is_refused_with_its_place() -> None:
    world = _world()
    state = State()
    for sequence, payload in enumerate(world.records[:5], 1):
        fold_message(state, _message(RECORD.decode(payload), sequence))
    fits = RECORD.decode(world.records[5])
    for wrong, sentence in (
        (_message(msgspec.structs.replace(fits, previous=b"x" * 16), 6), "does not follow record 5"),
        (_message(RECORD.decode(world.records[6]), 7), "does not follow record 5"),
        (
            _message(msgspec.structs.replace(fits, incarnation="i2"), 6),
            "is of incarnation i2, the log's is i1",
        ),
        (_message(msgspec.structs.replace(fits, version=2), 6), "a newer allocator wrote it"),
        (_message(fits, 6, "orb.lease.i1.9"), "of term 1 stands on orb.lease.i1.9"),
        (msgspec.structs.replace(_message(fits, 6), data=b"\xc1"), "record 6 cannot be read"),
        (
            msgspec.structs.replace(
                _message(fits, 6), data=encode(fits).replace(b"leases.allocated.1", b"leases.allocated.9")
            ),
            "record 6 cannot be read",
        ),
    ):
        before = state.sequence
        with pytest.raises(LogBroken, match=sentence):
            fold_message(state, wrong)
        assert state.sequence == before
    fold_message(state, _message(fits, 6))


def test_what_one_decision_adds_to_a_full_batch_stays_within_a_record() -> None:
    """The leader closes a batch at half of a record's limit."""
    item = LeaseItem(ifname="i" * 15, address=f"fd00:{'1111:' * 6}1111", pool="p" * 253, prefix_len=128)
    largest = LeasesAllocated(
        owner="u" * 253,
        node="n" * 253,
        container_id="c" * 255,
        attempt="a" * 128,
        generation=1 << 60,
        items=(item,) * (2 * limits.INTERFACES_PER_POD_MAX),
        attached=("i" * 15,) * limits.INTERFACES_PER_POD_MAX,
        pod_namespace="n" * 253,
        pod_name="p" * 253,
    )
    assert len(encode(largest)) < limits.RECORD_MAX_BYTES // 2


@pytest.mark.parametrize(
    ("varz", "is_wrong"),
    [
        ({}, False),
        ({"jetstream": {}}, False),
        ({"jetstream": {"config": {"sync_always": True}}}, False),
        ({"server_name": "s1", "jetstream": {"config": {"sync_interval": 120}}}, True),
        ({"server_name": "s1", "jetstream": {"config": {"sync_always": False}}}, True),
    ],
)
def test_a_server_that_acknowledges_before_it_syncs_is_named(varz: dict[str, object], is_wrong: bool) -> None:
    sentence = wrong_settings(varz)
    assert ("server s1" in sentence and "sync_interval is not `always`" in sentence) is is_wrong


def test_of_deleted_objects_the_last_versions_are_remembered() -> None:
    facts = Facts()
    pod = ObjectFact(
        kind="Pod", api_version="v1", namespace="a", name="p", uid="u", version=5, object=b'{"metadata":{}}'
    )
    facts.apply(pod, 1)
    facts.apply(ObjectGone(kind="Pod", namespace="a", name="p", uid="u", version=7), 2)
    facts.apply(pod, 3)
    assert not facts.pods, "an older word of what is gone changes nothing"
    for number in range(GONE_KEPT_MAX + 10):
        facts.apply(ObjectGone(kind="Pod", namespace="a", name=f"q{number}", uid="u", version=8), 4)
    assert len(facts._gone) == GONE_KEPT_MAX
    assert not facts._versions
