"""`python -m services.allocator --config FILE`: one allocator replica."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from services.allocator.mark import MarkFile
from services.allocator.replica import Replica
from services.allocator.servers import assert_servers
from shared import failpoint
from shared.bus import Bus, BusDenied, StreamMismatch
from shared.clock import SystemClock
from shared.settings import AllocatorSettings, read_settings
from shared.telemetry import Telemetry

log = structlog.get_logger()


async def serve(settings: AllocatorSettings) -> int:
    """Runs until SIGTERM. Exit code 2 means that a setting must be changed, 1 that a new start may help."""
    try:
        bus = await Bus.connect(settings.bus, f"allocator {settings.replica}")
    except BusDenied as error:
        log.error("allocator not started", error=str(error))
        return 2
    telemetry = Telemetry.start("allocator", settings.replica, "", settings.telemetry)

    async def publish(payload: bytes) -> None:
        await bus.publish(telemetry.span_subject, payload)

    telemetry.publish_spans(publish)
    replica = Replica(
        settings,
        bus,
        telemetry,
        clock=SystemClock(),
        marks=MarkFile(Path(settings.mark_file)),
        assert_servers=lambda: assert_servers(settings.system),
        new_incarnation=lambda: secrets.token_hex(8),
    )
    await telemetry.serve_http(lambda: replica.reason)
    running = asyncio.create_task(replica.run())
    closed = asyncio.create_task(bus.closed.wait())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, closed, stopping}, return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if running.done():
        error = running.exception()
        log.error("allocator ended", error=str(error))
        code = 2 if isinstance(error, StreamMismatch | BusDenied) else 1
    elif closed.done():
        code = 1
    for task in (running, closed, stopping):
        task.cancel()
    with contextlib.suppress(BaseException):
        await asyncio.gather(running, closed, stopping, return_exceptions=True)
    await telemetry.close()
    await bus.close()
    return code


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m services.allocator", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="settings of this replica (JSON or YAML)")
    arguments = parser.parse_args()
    try:
        failpoint.arm()
        settings = read_settings(arguments.config, AllocatorSettings)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    sys.exit(uvloop.run(serve(settings)))


if __name__ == "__main__":
    main()
