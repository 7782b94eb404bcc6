"""Packet sockets are closed by others than the caller, all of them, and never without bound."""

from __future__ import annotations

import socket
import time

import pytest

from services.agent.announce import PacketCloser


def packet_sockets(count: int) -> list[socket.socket]:
    return [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for _ in range(count)]


def test_closing_later_costs_the_caller_nothing() -> None:
    closer = PacketCloser()
    sockets = packet_sockets(40)
    began = time.perf_counter()
    for packet in sockets:
        closer.close_later(packet)
    handed_over_s = time.perf_counter() - began
    closer.close()
    closed_s = time.perf_counter() - began
    assert [packet.fileno() for packet in sockets] == [-1] * 40
    assert handed_over_s < closed_s


def test_a_full_queue_makes_the_caller_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PacketCloser, "_WAITING_MAX", 0)
    closer = PacketCloser()
    (packet,) = packet_sockets(1)
    closer.close_later(packet)
    assert packet.fileno() == -1
    closer.close()
