"""A running system as a tool sees it: its description, and its bus as the identity `tools`.

Owns finding and connecting. Must not know what is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from services.cli.failure import CommandError
from services.cli.survey import NodeBus
from services.standalone.assembly import tools_bus
from services.standalone.process import is_alive
from services.standalone.state import StandaloneError, read_credentials, read_system
from services.standalone.system import Credentials, NodeSpec, Ports, SystemFile
from shared.bus import Bus, BusDenied, BusError, BusTimeout, NoResponder, StreamMissing
from shared.bus.node_questions import NodeQuestions
from shared.contracts.codec import MessageError
from shared.contracts.facts import FACT, ObjectFact
from shared.settings import BusSettings, ToolsSettings, read_settings
from shared.subjects import FACTS, FACTS_OF_NODES

T = TypeVar("T")
TOOLS_VARIABLE = "ORBWEAVER_TOOLS"
"""Names a file of ToolsSettings: the system is a cluster's then, and --state means nothing."""


def of_cluster() -> bool:
    """Whether commands are about a cluster's system."""
    return TOOLS_VARIABLE in os.environ


def without_logs() -> None:
    """Stdout is for the answer: what the bus would log there, a command says itself when it fails."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


class System:
    """Connected as `tools`. `in_cluster`: `file` says nothing but the nodes, and these only after `meet_nodes`."""

    def __init__(self, file: SystemFile, credentials: Credentials, bus: Bus, *, in_cluster: bool) -> None:
        self.file = file
        self.credentials = credentials
        self.bus = bus
        self.in_cluster = in_cluster
        self._questions = NodeQuestions(bus, "tools")

    async def node_bus(self, node: str) -> NodeBus:
        """How to ask the services of `node`."""
        return NodeBus(self._questions, node)

    async def meet_nodes(self) -> None:
        """In a cluster the nodes are those of which there are Node objects. Raises BusError."""
        if not self.in_cluster:
            return
        names: list[str] = []
        reading = self.bus.read(FACTS.name, subject_filter=FACTS_OF_NODES, last_per_subject=True)
        try:
            async for message in reading:
                with contextlib.suppress(MessageError):
                    fact = FACT.decode(message.data)
                    if isinstance(fact, ObjectFact):
                        names.append(fact.name)
        except StreamMissing:
            pass  # no controller has told anything yet
        self.file = msgspec.structs.replace(
            self.file, nodes=tuple(NodeSpec(name=name) for name in sorted(names))
        )

    async def close(self) -> None:
        await self.bus.close()


def read(state: Path) -> tuple[SystemFile, Credentials]:
    """The description of the system below `state`, running or not. Raises CommandError."""
    if of_cluster():
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
    if of_cluster():
        file, credentials, settings = _of_cluster(Path(os.environ[TOOLS_VARIABLE]))
        in_cluster = True
    else:
        in_cluster = False
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
    system = System(file, credentials, bus, in_cluster=in_cluster)
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
