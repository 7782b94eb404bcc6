"""`python -m services.rdma --config FILE`: the RDMA devices of one node.

The composition root: owns which parts are put together. Must not know what they do.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from services.rdma.app import App
from services.rdma.devices import SysfsDevices
from services.rdma.netns_mode import read_netns_mode
from shared import service
from shared.bus import Bus
from shared.settings import RdmaSettings
from shared.telemetry import Telemetry


@contextlib.asynccontextmanager
async def opening(settings: RdmaSettings, bus: Bus, telemetry: Telemetry) -> AsyncGenerator[App]:
    yield App(settings, bus, SysfsDevices(Path(settings.sysfs)), read_netns_mode, telemetry)


def main() -> int:
    return service.main("rdma", RdmaSettings, lambda settings: (settings.node, settings.node), opening)


if __name__ == "__main__":
    sys.exit(main())
