"""Fixtures that every test may use."""

from __future__ import annotations

from tests.support.nats import fresh_nats_server, nats_server

__all__ = ["fresh_nats_server", "nats_server"]
