"""`python -m services.webhook --config FILE`: one replica of the webhook until SIGTERM.

Owns the composition. Exit codes: 0 ended by a signal, 1 the bus, the address or the certificates cannot be used, 2 wrong usage or settings.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from services.webhook.app import App
from shared.bus import Bus, BusError
from shared.settings import WebhookSettings, read_settings
from shared.telemetry import Telemetry

log = structlog.get_logger()


async def serve(settings: WebhookSettings) -> int:
    telemetry = Telemetry.start("webhook", settings.replica, "", settings.telemetry)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    bus: Bus | None = None
    try:
        bus = await Bus.connect(settings.bus, f"webhook {settings.replica}")
        telemetry.publish_spans(lambda payload, on=bus: on.publish(telemetry.span_subject, payload))
        app = App(settings, bus, telemetry)
        address = await telemetry.serve_http(app.not_ready)
        log.info("started", http=address)
        await app.run()
    except asyncio.CancelledError:
        log.info("stopping")
        return 0
    except (BusError, OSError, ValueError) as error:
        log.error("the webhook cannot serve", error=str(error))
        return 1
    finally:
        await telemetry.close()
        if bus is not None:
            await bus.close()
    log.error("the bus gave up the connection, or HTTPS ended")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.webhook", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="settings, a JSON or YAML file")
    arguments = parser.parse_args()
    try:
        settings = read_settings(arguments.config, WebhookSettings)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        return uvloop.run(serve(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
