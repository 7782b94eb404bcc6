"""The executable against a server that is none: whatever it sends, the runtime gets one error object, in time."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.shim.conftest import Installed, free_port

INFO = b'INFO {"server_id":"x","headers":true}\r\n'
FRAGMENTS = [
    b"\r\n", b"HMSG ", b"MSG ", b"PING\r\n", b"-ERR 'x'\r\n", b"-ERR", b"+OK\r\n", b" 12 12\r\n", b"NATS/1.0", b" 503",
    b"Orb-Exit: 0", b"\x00\xff", b"_INBOX_shim.x.1 1", INFO, b"9" * 9,
]  # fmt: skip


class Peer:
    """Accepts one connection after the other, and hands each to `serve`."""

    def __init__(self) -> None:
        self.serve: Callable[[socket.socket], None] = lambda _: None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection:
                if connection.recv(1) == b"!":
                    return
                try:
                    self.serve(connection)
                except OSError:
                    continue

    def stop(self) -> None:
        with socket.create_connection(self.listener.getsockname()) as last:
            last.sendall(b"!")
            self._thread.join(10)
        self.listener.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.stop()


def until_closed(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def test_a_server_that_accepts_and_hangs_is_the_leaf_s_silence(tmp_path: Path, peer: Peer) -> None:
    peer.serve = until_closed
    run = Installed(tmp_path / "bin", peer.address, deadlines_s={"ADD": 0.3})("ADD", b"x" * 500_000)
    assert run.error["code"] == 11
    assert "the NATS leaf" in str(run.error["msg"])
    assert run.took_s < 5


def test_an_answer_a_byte_at_a_time_arrives(tmp_path: Path, peer: Peer) -> None:
    answer = INFO + b"PING\r\nHMSG i 1 25 28\r\nNATS/1.0\r\nOrb-Exit: 7\r\n\r\n{ }\r\n"

    def drip(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in answer:
            connection.sendall(bytes([byte]))
        until_closed(connection)

    peer.serve = drip
    run = Installed(tmp_path / "bin", peer.address)("ADD")
    assert (run.exit_code, run.stdout) == (7, b"{ }")


def test_garbage_ends_as_an_error_object(tmp_path: Path, peer: Peer) -> None:
    installed = Installed(tmp_path / "bin", peer.address, deadlines_s={"ADD": 0.03})
    for seed in range(60):
        chance = random.Random(seed)
        noise = b"".join(
            chance.choice([*FRAGMENTS, chance.randbytes(8)]) for _ in range(chance.randrange(20))
        )
        peer.serve = lambda connection, noise=noise: connection.sendall(noise)
        run = installed("ADD")
        assert run.error["code"] in (11, 116), (seed, noise)
        assert run.took_s < 5, (seed, noise)


def test_a_refused_connection_names_the_reason(tmp_path: Path) -> None:
    run = Installed(tmp_path / "bin", f"127.0.0.1:{free_port()}", deadlines_s={"ADD": 0.05})("ADD")
    assert "Connection refused" in str(run.error["details"])
