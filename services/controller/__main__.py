"""`python -m services.controller --config FILE`: the bridge between a folder of manifests and the bus.

The composition root: owns which parts are put together. Must not know what they do.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from services.controller.app import App
from services.controller.leases import AllocatorLeases
from services.controller.rules import AdmissionRules
from services.controller.source import FolderSource
from shared import service
from shared.bus import Bus
from shared.settings import ControllerSettings
from shared.telemetry import Telemetry


@contextlib.asynccontextmanager
async def opening(settings: ControllerSettings, bus: Bus, telemetry: Telemetry) -> AsyncGenerator[App]:
    source = FolderSource(Path(settings.manifests), AllocatorLeases(bus), AdmissionRules)
    yield App(settings, bus, source, telemetry)


def main() -> int:
    return service.main("controller", ControllerSettings, lambda settings: (settings.replica, ""), opening)


if __name__ == "__main__":
    sys.exit(main())
