from __future__ import annotations

import time

from shared.clock import SystemClock
from shared.telemetry import boottime_offset_ns, boottime_to_unix_ns, shim_start_ns


def test_the_two_clocks_meet() -> None:
    offset = boottime_offset_ns(SystemClock())
    unix = boottime_to_unix_ns(time.clock_gettime_ns(time.CLOCK_BOOTTIME), offset)
    assert abs(unix - time.time_ns()) < 50_000_000


def test_the_shims_start_is_taken_from_its_header_only_where_it_can_be_true() -> None:
    now, offset = 2_000_000_000_000, 1_000_000_000_000
    assert shim_start_ns("999999000000", now, offset) == 1_999_999_000_000
    for header in (None, "", "x", "-5", "1e9", "١٢٣", "9" * 40, str(now - offset + 1), "0"):
        assert shim_start_ns(header, now, offset) == now
