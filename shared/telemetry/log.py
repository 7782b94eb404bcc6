"""Logs: one JSON object a line on stderr, with trace ids, never with a secret.

Owns the processors. Must not know where the lines go after stderr.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import cast

import msgspec
import structlog
from opentelemetry import trace
from structlog.typing import EventDict

from shared.telemetry.context import trace_id_text

_SECRET_KEY = re.compile(
    r"password|passwd|token|credential|secret|authorization|private_key|nkey|seed", re.IGNORECASE
)
_URL_USER = re.compile(r"(\w+://)[^/\s@]+@")
REDACTED = "***"
VALUE_MAX = 16 * 1024
"""Characters of one value: what came over the bus is quoted, and a message has up to a million."""


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Blanks values under secret keys at any depth, and user and password inside URLs; cuts what is too long."""
    return {key: _redacted(key, value) for key, value in event.items()}


def _redacted(key: str, value: object) -> object:
    if _SECRET_KEY.search(key):
        return REDACTED
    if isinstance(value, str):
        # First blanked, then cut: half a URL looks like none.
        shown = _URL_USER.sub(rf"\1{REDACTED}@", value) if "://" in value else value
        return shown if len(shown) <= VALUE_MAX else f"{shown[:VALUE_MAX]}…"
    if isinstance(value, dict):
        members = cast("dict[object, object]", value)
        return {str(k): _redacted(str(k), v) for k, v in members.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", v) for v in cast("list[object]", value)]
    return value


def add_trace(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Adds the current span's ids, so that a log line leads to its waterfall."""
    context = trace.get_current_span().get_span_context()
    if trace_id := trace_id_text(context):
        event["trace_id"] = trace_id
        event["span_id"] = f"{context.span_id:016x}"
    return event


def render(_logger: object, _method: str, event: EventDict) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)


class _Forward(logging.Handler):
    """Lines of libraries that use the standard library's logging take the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger().bind(logger=record.name)
        exception = record.exc_info if record.exc_info and record.exc_info[0] else None
        logger.log(record.levelno, record.getMessage(), **({"exc_info": exception} if exception else {}))


def configure(service: str, instance: str, node: str, level: str) -> None:
    """Sets up logging of this process; `level` is debug, info, warning or error. Raises ValueError on another."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log_level {level!r} is none of debug, info, warning, error")
    constant = {"service": service, "instance": instance, **({"node": node} if node else {})}

    def add_origin(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**event, **constant}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.format_exc_info,
            add_origin,
            add_trace,
            redact,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _Forward)]:
        root.removeHandler(handler)
    root.addHandler(_Forward())
    root.setLevel(max(number, logging.WARNING))
