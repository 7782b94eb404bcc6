"""`python -m services.controller --config FILE`: one replica of the controller until SIGTERM.

Owns the composition. Exit codes: 0 ended by a signal, 1 the bus or its streams cannot be used, 2 wrong usage or settings.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from services.controller.app import App
from services.controller.leases import AllocatorLeases
from services.controller.rules import AdmissionRules
from services.controller.source import FolderSource
from shared import failpoint
from shared.bus import Bus, BusError
from shared.settings import ControllerSettings, read_settings
from shared.telemetry import Telemetry

log = structlog.get_logger()


async def serve(settings: ControllerSettings) -> int:
    telemetry = Telemetry.start("controller", settings.replica, "", settings.telemetry)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    bus: Bus | None = None
    try:
        bus = await Bus.connect(settings.bus, f"controller {settings.replica}")
        telemetry.publish_spans(lambda payload, on=bus: on.publish(telemetry.span_subject, payload))
        source = FolderSource(Path(settings.manifests), AllocatorLeases(bus), AdmissionRules)
        app = App(settings, bus, source, telemetry)
        address = await telemetry.serve_http(app.not_ready)
        log.info("started", http=address, manifests=settings.manifests)
        await app.run()
    except asyncio.CancelledError:
        log.info("stopping")
        return 0
    except (BusError, OSError, ValueError) as error:
        log.error("the controller cannot serve", error=str(error))
        return 1
    finally:
        await telemetry.close()
        if bus is not None:
            await bus.close()
    log.error("the bus gave up the connection")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.controller", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="settings, a JSON or YAML file")
    arguments = parser.parse_args()
    try:
        failpoint.arm()
        settings = read_settings(arguments.config, ControllerSettings)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return uvloop.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
