"""One NATS connection of the shim, as bytes in and events out (after h11: no I/O, no clock, no way to block).

Owns the grammar that a NATS server speaks to its client, and what the shim makes of each sentence. Must not know
sockets, the CNI, or when to repeat a request. Imports nothing: it is frozen into the shim.
"""

TYPE_CHECKING = False  # `typing` is not in the executable; type checkers know this name
if TYPE_CHECKING:
    from typing import TypeAlias

    Event: TypeAlias = "Reply | NoResponder | Ping | Refusal"

LINE_MAX_BYTES = 64 * 1024  # the INFO of a large cluster lists many addresses
REPLY_MAX_BYTES = 1024 * 1024
CREDENTIAL_ERRORS = (b"authorization", b"permissions", b"user authentication", b"account authentication")


class WireError(Exception):
    """The peer does not speak NATS as it should; the connection is of no more use."""


class Reply:
    def __init__(self, exit_code: int, body: bytes) -> None:
        self.exit_code, self.body = exit_code, body


class NoResponder:
    """Nobody is subscribed to the request's subject: the server's 503 (NATS ADR-4)."""


class Ping:
    """To be answered with PONG, or the server closes the connection."""


class Refusal:
    """The server's -ERR. `final`: it is about the credential or what it permits, so that repeating cannot help."""

    def __init__(self, text: bytes) -> None:
        self.text, self.final = text, text.lower().startswith(CREDENTIAL_ERRORS)


class Wire:
    """The client's side of one NATS connection: bytes in, events out, no I/O. Bytes may be cut anywhere."""

    def __init__(self) -> None:
        self.pending = b""
        self.greeted = False

    def feed(self, received: bytes) -> "list[Event]":
        """Returns the events that `received` completes. Raises WireError, after which the object is of no use."""
        self.pending += received
        events: list[Event] = []
        while self._step(events):
            pass
        return events

    def _step(self, events: "list[Event]") -> bool:
        """Takes one whole operation off `pending`; False where it is not there yet."""
        line, end, rest = self.pending.partition(b"\r\n")
        if len(line) > LINE_MAX_BYTES:
            raise WireError("a line without an end")
        if not end:
            return False
        words = line.split()
        name = words[0].upper() if words else b""
        if name in (b"MSG", b"HMSG"):
            sizes = words[-2:] if name == b"HMSG" else [b"0", words[-1]]
            if not all(size.isdigit() and len(size) < 9 for size in sizes):
                raise WireError(f"a message without sizes: {line[:80]!r}")
            header_bytes, total_bytes = int(sizes[0]), int(sizes[1])
            if header_bytes > total_bytes or total_bytes > REPLY_MAX_BYTES:
                raise WireError(f"a message of impossible size: {line[:80]!r}")
            if len(rest) < total_bytes + 2:
                return False
            if rest[total_bytes : total_bytes + 2] != b"\r\n":
                raise WireError("a message longer than its size")
            events.append(_message(rest[:header_bytes], rest[header_bytes:total_bytes]))
            rest = rest[total_bytes + 2 :]
        elif name == b"PING":
            events.append(Ping())
        elif name == b"-ERR":
            events.append(Refusal(line[5:].strip(b" '")))
        elif name == b"INFO":
            self.greeted = True
        elif name not in (b"PONG", b"+OK"):
            raise WireError(f"not an operation of NATS: {line[:80]!r}")
        self.pending = rest
        return True


def _message(header: bytes, body: bytes) -> "Event":
    status, *fields = header.split(b"\r\n")
    if status[:12] == b"NATS/1.0 503":
        return NoResponder()
    for field in fields:
        key, _, value = field.partition(b":")
        if key.lower() == b"orb-exit" and value.strip().isdigit() and len(value) < 9:
            return Reply(int(value), body)
    raise WireError("a reply that tells no exit code")
