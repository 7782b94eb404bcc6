"""`python -m services.bus hub|leaf|passwords --config FILE`: one NATS server of a cluster, or a leaf's passwords alone.

Owns arguments, signals and exit codes. Must not know what the programs do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from services.bus.settings import HubSettings, LeafSettings
from shared.exit import START_AGAIN, STOPPED, WRONG_SETTINGS
from shared.settings import read_settings
from shared.telemetry import log


async def _until_stopped(running: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(running)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _running(part: str, config: Path) -> Coroutine[Any, Any, None]:
    # Imported where needed: a leaf on every node should not pay for what the hub needs.
    if part == "hub":
        from services.bus import hub
        from services.bus.api import Api

        settings = read_settings(config, HubSettings)
        log.configure("hub", settings.name, "", "info")
        return hub.run(settings, Api(settings.kubernetes_url, Path(settings.kubernetes_account)))
    from services.bus import leaf

    of_leaf = read_settings(config, LeafSettings)
    log.configure("leaf", of_leaf.node, of_leaf.node, "info")
    return leaf.run(of_leaf)


def main() -> int:
    """What is wrong with the settings goes to stderr as one sentence."""
    parser = argparse.ArgumentParser(prog="python -m services.bus", description="A NATS server of a cluster.")
    parser.add_argument("part", choices=("hub", "leaf", "passwords"))
    parser.add_argument("--config", type=Path, required=True, help="settings, a JSON or YAML file")
    arguments = parser.parse_args()
    try:
        if arguments.part == "passwords":
            from services.bus.leaf import make_passwords

            make_passwords(read_settings(arguments.config, LeafSettings))
            return STOPPED
        running = _running(arguments.part, arguments.config)
    except ValueError as error:
        print(error, file=sys.stderr)
        return WRONG_SETTINGS
    try:
        asyncio.run(_until_stopped(running))
    except OSError as error:
        print(error, file=sys.stderr)
        return START_AGAIN
    return STOPPED


if __name__ == "__main__":
    sys.exit(main())
