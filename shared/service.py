"""A service as a process: settings, signals, telemetry, bus, exit codes, and how it tells its status.

Owns what all services do alike. Must not import a service, nor know what one does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import structlog
import uvloop

from shared import failpoint, subjects
from shared.bus import Bus, BusDenied, BusError, Message, Serving, StreamMismatch
from shared.contracts.codec import MessageError, encode
from shared.contracts.query import QUERY_SERVICE, ServiceView
from shared.exit import START_AGAIN, STOPPED, WRONG_SETTINGS
from shared.settings import (
    Awaited,
    BusSettings,
    TelemetrySettings,
    hub_servers,
    settings_as_written,
    with_files,
)
from shared.task import end
from shared.telemetry import Telemetry

log = structlog.get_logger()

_LOOK_S = 2.0
"""How often the folder of the hub's servers is looked at, which the kubelet renews once a minute or so."""
_AWAIT_LOOK_S, _AWAIT_SAY_S = 0.25, 30.0
"""How often a file that is not there yet is looked for, and how often it is said."""


class ServiceSettings(Protocol):
    """What every service's settings have."""

    @property
    def bus(self) -> BusSettings: ...

    @property
    def telemetry(self) -> TelemetrySettings: ...


class App(Protocol):
    """A service that runs until it is cancelled. `not_ready` is empty when it is ready, else the reason."""

    async def run(self) -> None: ...

    def not_ready(self) -> str: ...


S = TypeVar("S", bound=ServiceSettings)
Opening = Callable[[S, Bus, Telemetry], contextlib.AbstractAsyncContextManager[App]]


def main(
    service: str, settings_type: type[S], instance_of: Callable[[S], tuple[str, str]], opening: Opening[S]
) -> int:
    """`python -m services.<service> --config FILE`. `instance_of` gives instance and node (empty for services of the hub).

    Answers the exit code; what is wrong with the settings goes to stderr as one sentence.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{service}", description=f"One instance of the {service} service."
    )
    parser.add_argument("--config", type=Path, required=True, help="settings, a JSON or YAML file")
    arguments = parser.parse_args()
    try:
        failpoint.arm()
        settings: Any = settings_as_written(arguments.config, _struct(settings_type))
    except ValueError as error:
        print(error, file=sys.stderr)
        return WRONG_SETTINGS
    return uvloop.run(_serve(service, settings, *instance_of(settings), opening))


def _struct(settings_type: type[S]) -> type[msgspec.Struct]:
    assert issubclass(settings_type, msgspec.Struct)
    return settings_type


class _Readiness:
    """What /readyz says: of the service once it is there, until then what is waited for."""

    def __init__(self) -> None:
        self.of: Callable[[], str] = lambda: "it starts"

    def await_(self, what: str) -> None:
        self.of = lambda: what


async def _serve(service: str, written: S, instance: str, node: str, opening: Opening[S]) -> int:
    telemetry = Telemetry.start(service, instance, node, written.telemetry)
    task = asyncio.current_task()
    assert task is not None
    moved: asyncio.Task[None] | None = None

    def moved_on(_: asyncio.Task[None]) -> None:
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    readiness = _Readiness()
    try:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(telemetry.close)
            http = await telemetry.serve_http(lambda: readiness.of())
            settings = await _with_awaited_files(written, readiness)
            moved = asyncio.create_task(_moved(settings.bus))
            moved.add_done_callback(moved_on)
            readiness.await_(f"no connection to {', '.join(settings.bus.servers)} yet")
            bus = await Bus.connect(settings.bus, f"{service} {instance}")
            stack.push_async_callback(bus.close)
            # before the bus goes: the last spans are published on it (closing twice is harmless)
            stack.push_async_callback(telemetry.close)
            telemetry.publish_spans(lambda payload: bus.publish(telemetry.span_subject, payload))
            app = await stack.enter_async_context(opening(settings, bus, telemetry))
            readiness.of = app.not_ready
            log.info("started", http=http)
            await _run(app, bus)
    except asyncio.CancelledError:
        if moved is not None and moved.done():
            log.warning(
                "the hub's servers are elsewhere now: starting again", folder=written.bus.servers_folder
            )
            return START_AGAIN
        log.info("stopping")
        return STOPPED
    except (BusDenied, StreamMismatch) as error:
        log.error("cannot serve with these settings", error=str(error))
        return WRONG_SETTINGS
    except (BusError, OSError, ValueError) as error:
        log.error("cannot serve", error=str(error))
        return START_AGAIN
    finally:
        if moved is not None:
            moved.remove_done_callback(moved_on)
            await end([moved])
    log.error("the service ended by itself, or the bus gave up the connection")
    return START_AGAIN


async def _with_awaited_files(written: S, readiness: _Readiness) -> S:
    """The settings with what their files say, as soon as all are there: in a new cluster the hub makes passwords while we start."""
    unfilled: Any = written
    say_at = time.monotonic()
    while True:
        try:
            found: Any = with_files(unfilled)
        except Awaited as error:
            readiness.await_(str(error))
            if (now := time.monotonic()) >= say_at:
                say_at = now + _AWAIT_SAY_S
                log.info("waits for a file", error=str(error))
            await asyncio.sleep(_AWAIT_LOOK_S)
        else:
            return found


async def _moved(bus: BusSettings) -> None:
    """Returns when the folder names other servers than we know: a client of NATS keeps to those that it began with."""
    if not bus.servers_folder:
        await asyncio.Event().wait()
    while True:
        await asyncio.sleep(_LOOK_S)
        # while the kubelet renews the folder, a file of it may be away
        with contextlib.suppress(OSError):
            if (hub_servers(Path(bus.servers_folder)) or bus.servers) != bus.servers:
                return


async def _run(app: App, bus: Bus) -> None:
    """Until the service ends or the bus gives up."""
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(app.run()), asyncio.create_task(bus.closed.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        await end(tasks)


class StatusServing:
    """What answers for the status of an instance."""

    def __init__(self, servings: Sequence[Serving]) -> None:
        self._servings = servings

    async def stop(self) -> None:
        for serving in self._servings:
            await serving.stop()


async def serve_status(
    bus: Bus,
    service: str,
    instance: str,
    *,
    not_ready: Callable[[], str],
    facts: Callable[[], dict[str, str]],
    refused: Callable[[str], None],
) -> StatusServing:
    """Answers `orb.ask.service.<service>.<instance>`, a replica of a service of the hub also what all are asked; a question of another
    form is counted by `refused` and not answered."""

    async def answer(message: Message) -> bytes | None:
        try:
            QUERY_SERVICE.decode(message.data)
        except MessageError:
            refused("orb.ask.service")
            return None
        reason = not_ready()
        return encode(
            ServiceView(
                service=service,
                instance=instance,
                pid=os.getpid(),
                ready=not reason,
                reason=reason,
                facts=facts(),
            )
        )

    asked = [f"{subjects.ask_service(service)}.{subjects.token(instance)}"]
    if service in subjects.HUB_IDENTITIES:
        asked.append(subjects.ask_replicas(service))
    return StatusServing([await bus.serve(subject, answer) for subject in asked])
