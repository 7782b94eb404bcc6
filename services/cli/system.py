"""A running system as a tool sees it: its description, and its bus as the identity `tools`.

Owns finding and connecting. Must not know what is asked.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from services.cli.failure import CommandError
from services.standalone.assembly import tools_bus
from services.standalone.process import is_alive
from services.standalone.state import StandaloneError, read_credentials, read_system
from services.standalone.system import Credentials, Ports, SystemFile
from shared.bus import Bus, BusDenied, BusError, BusTimeout, NoResponder
from shared.contracts.codec import MessageError
from shared.settings import BusSettings, ToolsSettings, read_settings
from shared.subjects import tools_inbox

T = TypeVar("T")
TOOLS_VARIABLE = "ORBWEAVER_TOOLS"
"""Names a file of ToolsSettings: the system is a cluster's then, and --state means nothing."""


def without_logs() -> None:
    """Stdout is for the answer: what the bus would log there, a command says itself when it fails."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


class System:
    """Connected as `tools`. A node answers only below an inbox prefix of its own, so each node asked has a connection."""

    def __init__(self, file: SystemFile, credentials: Credentials, settings: BusSettings, bus: Bus) -> None:
        self.file = file
        self.credentials = credentials
        self.bus = bus
        self._settings = settings
        self._node_buses: dict[str, Bus] = {}

    async def node_bus(self, node: str) -> Bus:
        """The connection to ask the services of `node`. Raises BusError."""
        if node not in self._node_buses:
            settings = msgspec.structs.replace(self._settings, inbox_prefix=tools_inbox(node))
            self._node_buses[node] = await Bus.connect(settings, "orbweaver", attempts=2)
        return self._node_buses[node]

    async def close(self) -> None:
        await asyncio.gather(self.bus.close(), *(bus.close() for bus in self._node_buses.values()))


def read(state: Path) -> tuple[SystemFile, Credentials]:
    """The description of the system below `state`, running or not. Raises CommandError."""
    if TOOLS_VARIABLE in os.environ:
        raise CommandError(
            "this command is about a system on one machine; of a cluster, `kubectl -n orbweaver-system get pods` tells how its parts are"
        )
    try:
        file, credentials = read_system(state), read_credentials(state)
    except StandaloneError as error:
        raise CommandError(error.message, error.detail) from None
    if file is None or credentials is None:
        raise CommandError(
            f"there is no system in {state}; `orbweaver up --manifests DIR` starts one, --state names another"
        )
    return file, credentials


def is_running(state: Path) -> bool:
    try:
        file, _ = read(state)
    except CommandError:
        return False
    return is_alive(file.supervisor)


def _of_cluster(path: Path) -> tuple[SystemFile, Credentials, BusSettings]:
    """In a cluster nobody supervises processes on one machine: only the bus is known."""
    try:
        settings = read_settings(path, ToolsSettings)
    except ValueError as error:
        raise CommandError(f"{error} (named by {TOOLS_VARIABLE})") from None
    ports = Ports(
        hub=0,
        hub_leafnodes=0,
        webhook_https=0,
        controller_http=0,
        allocator_http=(),
        webhook_http=0,
        nodes={},
    )
    file = SystemFile(
        state="",
        manifests="",
        nodes=(),
        ports=ports,
        hub_url="",
        leaf_urls={},
        webhook_url="",
        ca_file="",
        shim_netns="",
    )
    return file, Credentials(system="", hub={}, nodes={}), settings.bus


@asynccontextmanager
async def connect(state: Path) -> AsyncGenerator[System]:
    """Raises CommandError when the system does not run; what the bus raises inside becomes one too."""
    without_logs()
    if TOOLS_VARIABLE in os.environ:
        file, credentials, settings = _of_cluster(Path(os.environ[TOOLS_VARIABLE]))
    else:
        file, credentials = read(state)
        if not is_alive(file.supervisor):
            raise CommandError(
                f"the system in {state} does not run; `orbweaver up --manifests {file.manifests}` starts it"
            )
        settings = tools_bus(file.ports, credentials)
    try:
        bus = await Bus.connect(settings, "orbweaver", attempts=5)
    except BusError as error:
        raise CommandError(f"the system runs, but its bus cannot be reached: {error}") from None
    system = System(file, credentials, settings, bus)
    try:
        yield system
    except NoResponder as error:
        raise CommandError(f"{error}; `orbweaver status` tells which service is missing") from None
    except BusTimeout as error:
        raise CommandError(f"{error}; `orbweaver doctor` tells why") from None
    except (BusDenied, BusError, MessageError) as error:
        raise CommandError(str(error)) from None
    finally:
        await system.close()


def ask(state: Path, question: Callable[[System], Coroutine[Any, Any, T]]) -> T:
    """Runs one question against the system and answers its result. Raises CommandError."""

    async def run() -> T:
        async with connect(state) as system:
            return await question(system)

    return asyncio.run(run())


async def every(questions: dict[str, Awaitable[T]]) -> dict[str, T | BusError]:
    """All answers by name; a question that failed on the bus has its error for an answer."""
    answers = await asyncio.gather(*questions.values(), return_exceptions=True)
    out: dict[str, T | BusError] = {}
    for name, answer in zip(questions, answers, strict=True):
        if isinstance(answer, BaseException) and not isinstance(answer, BusError):
            raise answer
        out[name] = answer
    return out
