"""Fixtures of the tests that need real Kubernetes."""

from __future__ import annotations

from tests.support.kube import api_server, fresh_api_server

__all__ = ["api_server", "fresh_api_server"]
