"""Every message of shared/contracts against its golden bytes, and what a decoder must and must not take."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.codec import Codec, MessageError, encode
from shared.contracts.lease import LeaseEvent
from tests.contract.examples import EXAMPLES, GOLDEN, MODULES, golden_bytes

_UNTAGGED = {"Record": "lease.record.1", "SnapshotManifest": "lease.snapshot.manifest.1"}


def _structs() -> list[type[msgspec.Struct]]:
    return [
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == module.__name__
    ]


def _codecs() -> list[Codec[Any]]:
    return [value for module in MODULES for value in vars(module).values() if isinstance(value, Codec)]


def _codec_of(type_: type[msgspec.Struct]) -> Codec[Any]:
    """The codec by which the message is decoded on its subject; an event of the log is inside a Record."""
    for codec in _codecs():
        of = codec.message_type
        if of is type_ or type_ in getattr(of, "__args__", ()):
            return codec
    assert type_ in LeaseEvent.__args__, f"{type_.__name__} is decoded by no codec"
    return Codec(LeaseEvent)


def _builtins(value: object, extra: dict[str, object]) -> object:
    """The message as maps and lists, with `extra` members in every Struct."""
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        out: dict[str, object] = {"type": tag} if tag else {}
        for field in msgspec.structs.fields(value):
            out[field.encode_name] = _builtins(getattr(value, field.name), extra)
        return out | extra
    if isinstance(value, tuple | list):
        return [_builtins(item, extra) for item in value]
    if isinstance(value, dict):
        return {key: _builtins(item, extra) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    "type_", [t for t in _structs() if t.__struct_config__.tag], ids=lambda t: t.__name__
)
def test_every_tagged_struct_has_a_golden(type_: type[msgspec.Struct]) -> None:
    tag = type_.__struct_config__.tag
    assert (GOLDEN / f"{tag}.hex").exists(), (
        f"run: python -m tests.contract.examples (after an example of {tag})"
    )
    assert type(EXAMPLES[tag]) is type_
    assert tag.rpartition(".")[2].isdigit(), "a tag ends with its version"


def test_every_codec_message_has_a_golden() -> None:
    for codec in _codecs():
        of = codec.message_type
        for type_ in getattr(of, "__args__", None) or (of,):
            assert (type_.__struct_config__.tag or _UNTAGGED[type_.__name__]) in EXAMPLES


def test_no_golden_is_without_an_example() -> None:
    assert {path.stem for path in GOLDEN.glob("*.hex")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_bytes_mean_the_example(name: str) -> None:
    assert _codec_of(type(EXAMPLES[name])).decode(golden_bytes(name)) == EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_we_encode_now_means_the_example(name: str) -> None:
    assert _codec_of(type(EXAMPLES[name])).decode(encode(EXAMPLES[name])) == EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_fields_of_a_later_version_are_ignored(name: str) -> None:
    later = msgspec.msgpack.encode(_builtins(EXAMPLES[name], {"added_later": [1, {"x": None}]}))
    assert _codec_of(type(EXAMPLES[name])).decode(later) == EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_field_of_a_wrong_type_is_a_message_error(name: str) -> None:
    example = EXAMPLES[name]
    codec = _codec_of(type(example))
    for field in msgspec.structs.fields(example):
        is_number = isinstance(getattr(example, field.name), int | float)
        message = _builtins(example, {field.encode_name: "text" if is_number else 1})
        with pytest.raises(MessageError):
            codec.decode(msgspec.msgpack.encode(message))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_missing_field_is_its_default_or_a_message_error(name: str) -> None:
    example = EXAMPLES[name]
    codec = _codec_of(type(example))
    for field in msgspec.structs.fields(example):
        message = _builtins(example, {})
        assert isinstance(message, dict)
        del message[field.encode_name]
        payload = msgspec.msgpack.encode(message)
        if field.required:
            with pytest.raises(MessageError):
                codec.decode(payload)
        else:
            assert getattr(codec.decode(payload), field.name) == (
                field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            )


@pytest.mark.parametrize("name", [n for n, one in EXAMPLES.items() if one.__struct_config__.tag])
def test_a_message_without_its_tag_is_a_message_error(name: str) -> None:
    message = _builtins(EXAMPLES[name], {})
    assert isinstance(message, dict)
    del message["type"]
    codec = _codec_of(type(EXAMPLES[name]))
    for wrong in (message, {**message, "type": "nothing"}):
        with pytest.raises(MessageError):
            codec.decode(msgspec.msgpack.encode(wrong))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_cut_message_is_a_message_error(name: str) -> None:
    golden = golden_bytes(name)
    codec = _codec_of(type(EXAMPLES[name]))
    for size in range(len(golden)):
        with pytest.raises(MessageError):
            codec.decode(golden[:size])
    with pytest.raises(MessageError):
        codec.decode(golden + b"\x00")


@pytest.mark.parametrize("codec", _codecs(), ids=lambda codec: str(codec.message_type)[-40:])
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        msgspec.msgpack.encode({"type": "of.another.world.1"}),
        msgspec.msgpack.encode({"type": 1}),
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode(None),
        b"\xa1\xff",
        b"\x91" * 200_000,
        b"\x81\xa4type" * 100_000,
    ],
    ids=range(9),
)
def test_what_is_no_message_is_a_message_error(codec: Codec[Any], payload: bytes) -> None:
    with pytest.raises(MessageError):
        codec.decode(payload)


@given(st.binary(max_size=200) | st.sampled_from(sorted(EXAMPLES)).map(golden_bytes), st.data())
def test_no_bytes_raise_anything_else(payload: bytes, data: st.DataObject) -> None:
    if payload:
        at = data.draw(st.integers(0, len(payload) - 1))
        payload = payload[:at] + data.draw(st.binary(max_size=3)) + payload[at + 1 :]
    for codec in _codecs():
        try:
            codec.decode(payload)
        except MessageError:
            continue
