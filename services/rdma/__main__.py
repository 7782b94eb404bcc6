"""`python -m services.rdma --config FILE`: the RDMA service of one node until SIGTERM.

Owns the composition. Exit codes: 0 ended by a signal, 1 the bus cannot be used, 2 wrong usage or settings.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from services.rdma.app import App
from services.rdma.devices import SysfsDevices
from services.rdma.netns_mode import read_netns_mode
from shared.bus import Bus, BusError
from shared.settings import RdmaSettings, read_settings
from shared.telemetry import Telemetry

log = structlog.get_logger()


async def serve(settings: RdmaSettings) -> int:
    telemetry = Telemetry.start("rdma", settings.node, settings.node, settings.telemetry)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    bus: Bus | None = None
    try:
        bus = await Bus.connect(settings.bus, f"rdma {settings.node}")
        telemetry.publish_spans(lambda payload, on=bus: on.publish(telemetry.span_subject, payload))
        app = App(settings, bus, SysfsDevices(Path(settings.sysfs)), read_netns_mode, telemetry)
        log.info("started", http=await telemetry.serve_http(app.not_ready), sysfs=settings.sysfs)
        await app.run()
    except asyncio.CancelledError:
        log.info("stopping")
        return 0
    except (BusError, OSError, ValueError) as error:
        log.error("the RDMA service cannot serve", error=str(error))
        return 1
    finally:
        await telemetry.close()
        if bus is not None:
            await bus.close()
    log.error("the bus gave up the connection")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.rdma", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="settings, a JSON or YAML file")
    arguments = parser.parse_args()
    try:
        settings = read_settings(arguments.config, RdmaSettings)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return uvloop.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
