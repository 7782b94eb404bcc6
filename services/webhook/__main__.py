"""`python -m services.webhook --config FILE`: admission over HTTPS.

The composition root: owns which parts are put together. Must not know what they do.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator

from services.webhook.app import App
from shared import service
from shared.bus import Bus
from shared.settings import WebhookSettings
from shared.telemetry import Telemetry


@contextlib.asynccontextmanager
async def opening(settings: WebhookSettings, bus: Bus, telemetry: Telemetry) -> AsyncGenerator[App]:
    yield App(settings, bus, telemetry)


def main() -> int:
    return service.main("webhook", WebhookSettings, lambda settings: (settings.replica, ""), opening)


if __name__ == "__main__":
    sys.exit(main())
