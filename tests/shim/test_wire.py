"""The wire object by properties: however the bytes are cut, whatever they are."""

from __future__ import annotations

import json
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.config import Config
from cni.shim import encode, quote, version_asked
from cni.wire import NoResponder, Ping, Refusal, Reply, Wire, WireError

Event = Reply | NoResponder | Ping | Refusal

BODIES = st.binary(max_size=200) | st.sampled_from([b"", b"\r\n", b"HMSG x 1 2 3\r\n", b"PING\r\n"])


def hmsg(header: bytes, body: bytes) -> bytes:
    return b"HMSG _INBOX_shim.x.1 1 %d %d\r\n%b%b\r\n" % (len(header), len(header) + len(body), header, body)


OPERATIONS = st.one_of(
    st.just((b'INFO {"server_id":"x"}\r\n', None)),
    st.just((b"PING\r\n", ("ping",))),
    st.just((b"ping\r\n", ("ping",))),
    st.just((b"PONG\r\n", None)),
    st.just((b"+OK\r\n", None)),
    st.just((b"-ERR 'Authorization Violation'\r\n", ("refusal", b"Authorization Violation", True))),
    st.just((b"-ERR 'Stale Connection'\r\n", ("refusal", b"Stale Connection", False))),
    st.just((hmsg(b"NATS/1.0 503\r\n\r\n", b""), ("nobody",))),
    st.builds(
        lambda code, body: (
            hmsg(b"NATS/1.0\r\norb-exit:%d \r\nOther: x\r\n\r\n" % code, body),
            ("reply", code, body),
        ),
        st.integers(0, 255),
        BODIES,
    ),
)


def plain(event: Event) -> tuple[object, ...]:
    match event:
        case Reply():
            return ("reply", event.exit_code, event.body)
        case Refusal():
            return ("refusal", event.text, event.final)
        case NoResponder():
            return ("nobody",)
        case Ping():
            return ("ping",)


def fed(wire: Wire, stream: bytes, cuts: list[int]) -> list[tuple[object, ...]]:
    events: list[Event] = []
    at = 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        events += wire.feed(stream[at:cut])
        at = cut
    return [plain(event) for event in events]


@given(st.lists(OPERATIONS, max_size=8), st.lists(st.integers(0, 5000), max_size=12))
def test_any_cut_gives_the_same_events(
    operations: list[tuple[bytes, tuple[object, ...] | None]], cuts: list[int]
) -> None:
    stream = b"".join(sent for sent, _ in operations)
    wire = Wire()
    assert fed(wire, stream, cuts) == [event for _, event in operations if event is not None]
    assert wire.pending == b""
    assert wire.greeted == any(sent.startswith(b"INFO") for sent, _ in operations)


@given(
    st.lists(
        st.binary(max_size=60)
        | OPERATIONS.map(lambda made: made[0])
        | st.sampled_from([b"HMSG ", b"MSG", b" 9\r\n"])
    )
)
def test_garbage_is_a_wire_error_or_waits(chunks: list[bytes]) -> None:
    whole, pieces = Wire(), Wire()
    try:
        for chunk in chunks:
            pieces.feed(chunk)
        broken = False
    except WireError:
        broken = True
    try:
        whole.feed(b"".join(chunks))
        assert not broken
    except WireError:
        assert broken


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b"MSG\r\n",
        b"MSG s 1 0\r\n\r\n",
        b"HMSG s 1 9 5\r\n",
        b"HMSG s 1 -1 5\r\n",
        b"HMSG s 1 1 999999999999\r\n",
        b"HMSG s 1 1 99999999\r\n",
        b"HMSG s 1 12 12\r\nNATS/1.0\r\n\r\nxx",
        hmsg(b"NATS/1.0\r\nOrb-Exit: -1\r\n\r\n", b""),
        hmsg(b"NATS/1.0\r\nOrb-Exit: 99999999999\r\n\r\n", b""),
        hmsg(b"NATS/1.0 408\r\n\r\n", b""),
        b"x" * 70_000,
    ],
)
def test_what_is_no_nats_is_a_wire_error(stream: bytes) -> None:
    with pytest.raises(WireError):
        Wire().feed(stream)


@given(st.text())
def test_quote_is_json(text: str) -> None:
    sound = text.encode("utf-8", "replace")
    assert json.loads(quote(sound)) == sound.decode()


@given(st.binary())
def test_quote_of_any_bytes_is_json(text: bytes) -> None:
    assert isinstance(json.loads(quote(text)), str)


@given(st.binary())
def test_encode_is_a_header_value(value: bytes) -> None:
    encoded = encode(value)
    assert unquote_to_bytes(encoded) == value
    assert all(0x20 < byte < 0x7F for byte in encoded)


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    st.text(alphabet="abc=_-."),
    st.floats(0.001, 1e5),
)
def test_configuration_is_read_as_json_writes_it(password: str, netns: str, deadline_s: float) -> None:
    wanted = {
        "server": "127.0.0.1:4222",
        "user": "shim",
        "password": password,
        "subject": "orb.cni.n1",
        "netns": netns,
    }
    document = {**wanted, "node": "n1", "deadlines_s": {"ADD": deadline_s, "DEL": 3}}
    for indent in (None, 2):
        config = Config(json.dumps(document, ensure_ascii=False, indent=indent).encode())
        assert config.password.decode() == password
        assert config.netns.decode() == netns
        assert config.address == ("127.0.0.1", 4222)
        assert config.deadlines_s == {b"ADD": deadline_s, b"DEL": 3.0}


@given(st.binary() | st.text(alphabet='{}":,\\u0 \n1e').map(str.encode))
def test_a_configuration_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        Config(text)


@pytest.mark.parametrize(
    "server", ["localhost:1", "127.0.0.1", ":1", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x"]
)
def test_a_server_that_is_no_numeric_address_is_refused(server: str) -> None:
    with pytest.raises(ValueError):
        Config(json.dumps({"server": server, "user": "", "password": "", "subject": "s"}).encode())


@given(st.binary() | st.text(alphabet='"cniVersion:10. {').map(str.encode))
def test_a_version_is_one_that_we_speak_or_none(body: bytes) -> None:
    assert version_asked(body) in (b"", b"0.3.0", b"0.3.1", b"0.4.0", b"1.0.0", b"1.1.0")
