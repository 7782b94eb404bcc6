"""The kernel's answer about the RDMA namespace mode, byte by byte."""

from __future__ import annotations

import struct

from hypothesis import example, given
from hypothesis import strategies as st

from services.rdma.netns_mode import NETNS_MODE_ATTRIBUTE, SYS_GET, netns_mode, read_netns_mode


def answer(*attributes: tuple[int, bytes], kind: int = SYS_GET) -> bytes:
    body = b""
    for number, value in attributes:
        body += struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_shared_and_exclusive() -> None:
    assert netns_mode(answer((NETNS_MODE_ATTRIBUTE, b"\x01"))) == "shared"
    assert netns_mode(answer((NETNS_MODE_ATTRIBUTE, b"\x00"))) == "exclusive"


def test_other_attributes_are_passed_over() -> None:
    assert (
        netns_mode(answer((87, b"\x01"), (3, b"mlx5_0\x00"), (NETNS_MODE_ATTRIBUTE, b"\x00"))) == "exclusive"
    )
    assert netns_mode(answer((87, b"\x01"))) == ""


def test_an_error_of_the_kernel_is_no_mode() -> None:
    assert netns_mode(answer((NETNS_MODE_ATTRIBUTE, b"\x01"), kind=2)) == ""


@given(st.binary(max_size=80))
@example(answer((NETNS_MODE_ATTRIBUTE, b"\x01"))[:-3])
@example(answer() + b"\x00\x00\x42\x00")
def test_no_bytes_break_it(message: bytes) -> None:
    assert netns_mode(message) in ("", "shared", "exclusive")


def test_this_kernel_answers_or_has_none() -> None:
    assert read_netns_mode() in ("", "shared", "exclusive")
