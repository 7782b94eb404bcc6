"""No log line is made: a simulation tells by itself what happened."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import structlog


@contextmanager
def quiet() -> Generator[None]:
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)
