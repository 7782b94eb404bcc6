"""`python -m services.agent --config FILE`: the agent of one node until SIGTERM.

Owns the composition. Exit codes: 0 ended by a signal, 1 the bus, the journal or the node's namespace cannot be used, 2
wrong usage or settings.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from services.agent.app import App
from services.agent.journal import Journal, JournalError
from services.agent.kernel import Kernel
from services.agent.netns import NetnsError
from shared import failpoint
from shared.bus import Bus, BusError
from shared.settings import AgentSettings, read_settings
from shared.telemetry import Telemetry

log = structlog.get_logger()

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


async def serve(settings: AgentSettings, boot_id: str) -> int:
    telemetry = Telemetry.start("agent", settings.node, settings.node, settings.telemetry)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    bus: Bus | None = None
    journal: Journal | None = None
    kernel: Kernel | None = None
    try:
        journal = Journal.open(Path(settings.state))
        kernel = Kernel(settings.netns or None)
        bus = await Bus.connect(settings.bus, f"agent {settings.node}")
        telemetry.publish_spans(lambda payload, on=bus: on.publish(telemetry.span_subject, payload))
        app = App(settings, bus, journal, kernel, boot_id, telemetry)
        http = await telemetry.serve_http(app.not_ready)
        log.info("started", http=http, netns=settings.netns or "own")
        # What lives now lives for ever: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        await app.run()
    except asyncio.CancelledError:
        log.info("stopping")
        return 0
    except (BusError, JournalError, NetnsError, OSError, ValueError) as error:
        log.error("the agent cannot serve", error=str(error))
        return 1
    finally:
        if journal is not None:
            await journal.close()
        if kernel is not None:
            kernel.close()
        await telemetry.close()
        if bus is not None:
            await bus.close()
    log.error("the bus gave up the connection")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.agent", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="settings, a JSON or YAML file")
    arguments = parser.parse_args()
    try:
        failpoint.arm()
        settings = read_settings(arguments.config, AgentSettings)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return uvloop.run(serve(settings, _BOOT_ID.read_text().strip()))


if __name__ == "__main__":
    sys.exit(main())
