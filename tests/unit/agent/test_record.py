"""The journal's bytes: whatever a crash or a bad disk makes of the end, what replays is a prefix of what was written."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.agent.entry import Entry
from services.agent.record import Drop, Opened, Put, Record, fold, frame, later, replay
from shared.contracts.ipam import Mark
from shared.ids import AttachmentId

AHEAD = bytes(512)


def entry(container_id: str, state: str = "intent", ifname: str = "eth0", generation: int = 0) -> Entry:
    return msgspec.convert(
        {
            "container_id": container_id,
            "ifname": ifname,
            "state": state,
            "mode": "native",
            "attempt": "a" * 32,
            "boot_id": "b",
            "netns": f"/run/netns/{container_id}",
            "device": 4,
            "inode": 4026532000,
            "network": "underlay",
            "mac": "02:00:00:00:00:01",
            "generation": generation,
        },
        Entry,
    )


IDS = st.sampled_from(["c1", "c2", "c3"])
RECORDS: st.SearchStrategy[list[Record]] = st.lists(
    st.one_of(
        st.builds(
            lambda c, s, g, q: Put(
                entry=entry(c, s, generation=g), seen=Mark(incarnation="i", sequence=q, digest="d")
            ),
            IDS,
            st.sampled_from(["intent", "completed", "releasing"]),
            st.integers(0, 9),
            st.integers(0, 9),
        ),
        IDS.map(lambda c: Drop(container_id=c, ifname="eth0")),
    ),
    min_size=1,
    max_size=8,
)


@given(RECORDS)
def test_what_was_written_replays(records: list[Record]) -> None:
    found = replay(b"".join(map(frame, records)) + AHEAD)
    assert (found.entries, found.seen) == fold(records)
    assert found.problems == ()


@given(RECORDS, st.data())
def test_a_cut_anywhere_replays_to_a_prefix(records: list[Record], data: st.DataObject) -> None:
    whole = b"".join(map(frame, records))
    cut = data.draw(st.integers(0, len(whole)))
    found = replay(whole[:cut] + AHEAD)
    kept = 0
    length = 0
    while kept < len(records) and length + len(frame(records[kept])) <= cut:
        length += len(frame(records[kept]))
        kept += 1
    assert (found.entries, found.seen) == fold(records[:kept])
    assert found.problems == ()


@given(RECORDS, st.data())
def test_an_altered_byte_of_the_last_record_replays_to_all_before(
    records: list[Record], data: st.DataObject
) -> None:
    *before, last = records
    torn = bytearray(frame(last))
    torn[data.draw(st.integers(0, len(torn) - 1))] ^= data.draw(st.integers(1, 255))
    found = replay(b"".join(map(frame, before)) + bytes(torn) + AHEAD)
    assert (found.entries, found.seen) == fold(before)


@given(RECORDS, RECORDS, st.data())
def test_a_bad_record_in_the_middle_is_told_and_skipped(
    before: list[Record], after: list[Record], data: st.DataObject
) -> None:
    bad = bytearray(frame(Put(entry=entry("lost"))))
    bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    found = replay(b"".join(map(frame, before)) + bytes(bad) + b"".join(map(frame, after)) + AHEAD)
    assert (found.entries, found.seen) == fold([*before, *after])
    (problem,) = found.problems
    assert "skipped" in problem


@given(st.binary(max_size=200))
def test_any_bytes_replay(content: bytes) -> None:
    assert replay(content).entries == {}


def test_a_record_of_a_later_version_is_told_and_skipped() -> None:
    later_version = frame(Put(entry=entry("c1"))).replace(b"put.1", b"put.9")
    assert replay(later_version).entries == {}
    # its checksum does not fit either; one that does must not stop the replay
    raw = msgspec.msgpack.encode({"type": "put.9", "entry": {}})
    import struct
    import zlib

    length = struct.pack("<I", len(raw))
    whole = struct.pack("<4sII", b"ORBJ", len(raw), zlib.crc32(raw, zlib.crc32(length))) + raw
    found = replay(frame(Put(entry=entry("c1"))) + whole + frame(Put(entry=entry("c2"))) + AHEAD)
    assert set(found.entries) == {AttachmentId("c1", "eth0"), AttachmentId("c2", "eth0")}
    assert len(found.problems) == 1


def test_marks() -> None:
    low, high = (Mark(incarnation="i", sequence=n, digest="d") for n in (3, 7))
    other = Mark(incarnation="j", sequence=1, digest="d")
    assert later(low, high) == later(high, low) == high
    assert later(high, other) == other
    assert fold([Opened(seen=high), Put(entry=entry("c1"))])[1] == high
