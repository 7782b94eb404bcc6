"""The shim's configuration: orbweaver.json, which stands beside the executable and holds the credential.

Owns the form of that file, and a reader for as much of JSON as it needs (importing `json` costs more than the whole
shim). Must not know where the file is, nor what is done about a bad one. Imports nothing: it is frozen into the shim.
"""

TYPE_CHECKING = False  # `typing` is not in the executable; type checkers know this name
if TYPE_CHECKING:
    from typing import TypeAlias

    Json: TypeAlias = "bytes | float | dict[bytes, Json]"

ESCAPES = {
    b'"': b'"',
    b"\\": b"\\",
    b"/": b"/",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
}


class Config:
    """What the shim needs to reach its node's agent; `deadlines_s` replaces the shim's own by CNI verb."""

    def __init__(self, text: bytes) -> None:
        """Raises ValueError, KeyError or RecursionError on anything but a whole configuration."""
        fields, end = parse_object(text)
        strings = {key: value for key, value in fields.items() if isinstance(value, bytes)}
        deadlines_s = fields.get(b"deadlines_s", {})
        self.server, self.user, self.password = strings[b"server"], strings[b"user"], strings[b"password"]
        self.subject, self.netns = strings[b"subject"], strings.get(b"netns", b"")
        host, _, port = self.server.decode().rpartition(":")
        self.address = host.strip("[]"), int(port)
        numeric = not self.address[0].strip("0123456789abcdef.:")  # names are not looked up in an attach
        if not host or not numeric or not 0 < self.address[1] < 65536 or set(self.subject) & set(b" \t\r\n"):
            raise ValueError
        if not isinstance(deadlines_s, dict) or text[end:].strip():
            raise ValueError
        self.deadlines_s = {
            verb: value for verb, value in deadlines_s.items() if isinstance(value, float) and value < 1e6
        }


def parse_string(text: bytes, at: int) -> tuple[bytes, int]:
    """A JSON string whose opening quote is at `at`, and where it ends. Raises ValueError or KeyError."""
    out = b""
    if text[at : at + 1] != b'"':
        raise ValueError
    at += 1
    while True:
        stop = text.index(b'"', at)
        cut = text.find(b"\\", at, stop)
        if cut < 0:
            return out + text[at:stop], stop + 1
        out += text[at:cut]
        if text[cut + 1 : cut + 2] == b"u":
            out += chr(int(text[cut + 2 : cut + 6], 16)).encode("utf-8", "surrogatepass")
            at = cut + 6
        else:
            out += ESCAPES[text[cut + 1 : cut + 2]]
            at = cut + 2


def parse_object(text: bytes, at: int = 0) -> "tuple[dict[bytes, Json], int]":
    """A JSON object of strings, numbers and objects, which is all that orbweaver.json holds, and where it ends."""
    fields: dict[bytes, Json] = {}
    at = expect(text, at, b"{")
    while text[at : at + 1] != b"}":
        if fields:
            at = expect(text, at, b",")
        key, at = parse_string(text, at)
        at = expect(text, at, b":")
        if text[at : at + 1] == b'"':
            fields[key], at = parse_string(text, at)
        elif text[at : at + 1] == b"{":
            fields[key], at = parse_object(text, at)
        else:
            number = text[at : at + 32]
            number = number[: len(number) - len(number.lstrip(b"+-.eE0123456789"))]
            fields[key], at = float(number), at + len(number)
        at = expect(text, at, b"")
    return fields, at + 1


def expect(text: bytes, at: int, token: bytes) -> int:
    """The position of what follows `token` and any white space around it."""
    at = len(text) - len(text[at:].lstrip())
    if not text.startswith(token, at):
        raise ValueError
    at += len(token)
    return len(text) - len(text[at:].lstrip())
