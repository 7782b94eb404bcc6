"""`python -m services.allocator --config FILE`: one allocator replica.

The composition root: owns which parts are put together. Must not know what they do.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from services.allocator.mark import MarkFile
from services.allocator.replica import Replica
from services.allocator.servers import assert_servers
from shared import service
from shared.bus import Bus
from shared.clock import SystemClock
from shared.settings import AllocatorSettings
from shared.telemetry import Telemetry


@contextlib.asynccontextmanager
async def opening(settings: AllocatorSettings, bus: Bus, telemetry: Telemetry) -> AsyncGenerator[Replica]:
    yield Replica(
        settings,
        bus,
        telemetry,
        clock=SystemClock(),
        marks=MarkFile(Path(settings.mark_file)),
        assert_servers=lambda: assert_servers(settings.system),
        new_incarnation=lambda: secrets.token_hex(8),
    )


def main() -> int:
    return service.main("allocator", AllocatorSettings, lambda settings: (settings.replica, ""), opening)


if __name__ == "__main__":
    sys.exit(main())
