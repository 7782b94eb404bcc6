"""Times of two clocks on one trace: CLOCK_BOOTTIME of the shim's header and Unix time of every span.

Owns the conversion. Must not know who measured the time.
"""

from __future__ import annotations

from shared.clock import NodeClock


def boottime_offset_ns(clock: NodeClock) -> int:
    """Unix time minus CLOCK_BOOTTIME, now. Read afresh for each use: a step of the wall clock changes it."""
    before = clock.boottime_ns()
    unix = clock.unix_ns()
    after = clock.boottime_ns()
    return unix - (before + after) // 2


def boottime_to_unix_ns(boottime_ns: int, offset_ns: int) -> int:
    """Converts one reading of CLOCK_BOOTTIME, given the offset of `boottime_offset_ns`. Pure."""
    return boottime_ns + offset_ns


def shim_start_ns(header: str | None, now_ns: int, offset_ns: int, oldest_ns: int = 120 * 10**9) -> int:
    """When the shim's process began (Unix ns), from its `Orb-Start-Ns` header; `now_ns` if that cannot be true.

    A start in the future, or longer ago than any deadline allows, comes from a caller that is not our shim.
    """
    if not header or not header.isascii() or not header.isdigit() or len(header) > 19:
        return now_ns
    start_ns = boottime_to_unix_ns(int(header), offset_ns)
    return start_ns if now_ns - oldest_ns <= start_ns <= now_ns else now_ns
