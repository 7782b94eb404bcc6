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


class _Nothing(msgspec.Struct, frozen=True, tag="nothing"):
    """Beside a message that is alone on its subject: only of two does the library demand a tag (msgspec 0.19)."""


class Codec(Generic[M]):
    """Decodes one subject's union; unknown fields are ignored, a missing or unknown tag or a wrong type is a MessageError."""

    __slots__ = ("_decoder", "message_type")

    def __init__(self, message_type: object) -> None:
        self.message_type = message_type
        decoded = message_type
        if isinstance(message_type, type) and issubclass(message_type, msgspec.Struct):
            struct: type[msgspec.Struct] = message_type
            decoded = struct | _Nothing if struct.__struct_config__.tag is not None else struct
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(decoded)  # type: ignore[arg-type]

    def decode(self, payload: bytes) -> M:
        try:
            message = self._decoder.decode(payload)
            if isinstance(message, _Nothing):
                raise MessageError("it is nothing")
            return message
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MessageError(str(error)) from None
