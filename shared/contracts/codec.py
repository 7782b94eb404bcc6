"""How every message becomes bytes: MessagePack, one tagged union a subject.

Owns the encoder and the error of a message that does not fit. Must not know any message.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

M = TypeVar("M")
_ENCODER = msgspec.msgpack.Encoder()


class MessageError(ValueError):
    """Bytes on the bus that are not a message of their subject."""


def encode(message: msgspec.Struct) -> bytes:
    return _ENCODER.encode(message)


class Codec(Generic[M]):
    """Decodes one subject's union; unknown fields are ignored, an unknown tag or a wrong type is a MessageError."""

    __slots__ = ("_decoder",)

    def __init__(self, message_type: object) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(message_type)  # type: ignore[arg-type]

    def decode(self, payload: bytes) -> M:
        try:
            return self._decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MessageError(str(error)) from None
