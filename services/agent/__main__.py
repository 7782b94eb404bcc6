"""`python -m services.agent --config FILE`: the agent of one node.

The composition root: owns which parts are put together. Must not know what they do.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from random import SystemRandom

from services.agent.app import App
from services.agent.journal import Journal, JournalError
from services.agent.kernel import Kernel
from services.agent.netns import NetnsError
from shared import service
from shared.bus import Bus
from shared.clock import SystemClock
from shared.settings import AgentSettings
from shared.telemetry import Telemetry


def boot_id() -> str:
    """Another one after each start of the machine (drivers/char/random.c)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextlib.asynccontextmanager
async def opening(settings: AgentSettings, bus: Bus, telemetry: Telemetry) -> AsyncGenerator[App]:
    try:
        journal = Journal.open(Path(settings.state))
    except JournalError as error:
        raise OSError(str(error)) from error
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(journal.close)
        try:
            kernel = Kernel(settings.netns or None, settings.foreign_netns)
        except NetnsError as error:
            raise OSError(str(error)) from error
        stack.callback(kernel.close)
        app = App(
            settings,
            bus,
            journal,
            kernel,
            boot_id(),
            telemetry,
            clock=SystemClock(),
            random=SystemRandom(),
        )
        # What lives now lives for ever: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        yield app


def main() -> int:
    return service.main("agent", AgentSettings, lambda settings: (settings.node, settings.node), opening)


if __name__ == "__main__":
    sys.exit(main())
