from __future__ import annotations

import json
import subprocess
import sys

import pytest

from shared.telemetry import log

PROGRAM = """
import logging
import structlog
from shared.settings import TelemetrySettings
from shared.telemetry import Telemetry

telemetry = Telemetry.start("agent", "n1", "n1", TelemetrySettings(log_level="info"))
logger = structlog.get_logger()
logger.debug("not seen")
logger.info("bus connected", url="nats://agent:s3cret@127.0.0.1:4222", bus={"user": "agent", "password": "s3cret"}, n=[1, b"x"])
with telemetry.span("attach", root=True):
    logger.warning("inside")
logging.getLogger("nats").error("from %s", "a library")
try:
    raise RuntimeError("boom")
except RuntimeError:
    logger.exception("failed")
"""


def test_lines_are_json_with_origin_and_trace_and_without_secrets() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == ""
    assert "s3cret" not in done.stderr
    first, inside, library, failed = (json.loads(line) for line in done.stderr.splitlines())
    assert first["event"] == "bus connected"
    assert first["url"] == "nats://***@127.0.0.1:4222"
    assert first["bus"] == {"user": "agent", "password": "***"}
    assert (first["service"], first["instance"], first["node"], first["level"]) == (
        "agent",
        "n1",
        "n1",
        "info",
    )
    assert "trace_id" not in first
    assert len(inside["trace_id"]) == 32
    assert len(inside["span_id"]) == 16
    assert (library["event"], library["logger"], library["level"]) == ("from a library", "nats", "error")
    assert "RuntimeError: boom" in failed["exception"]


@pytest.mark.parametrize(
    "key", ["password", "Authorization", "shim_credential", "api_token", "client_secret", "seed"]
)
def test_secret_keys_are_blanked_at_any_depth(key: str) -> None:
    event = log.redact(None, "info", {"event": "x", "a": [{"b": {key: "v"}}], "address": "10.0.0.1"})
    assert event == {"event": "x", "a": [{"b": {key: "***"}}], "address": "10.0.0.1"}


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="log_level"):
        log.configure("agent", "n1", "", "loud")
