"""The processes of the system under the cases: found, killed, and there again.

Must not know what a case expects.
"""

from __future__ import annotations

import os
import signal

from services.standalone.demo_netns import LabError
from services.standalone.state import read_system
from services.standalone.system import ServiceEntry
from tests.conformance.world import World, until


def service(world: World, name: str, node: str = "") -> ServiceEntry:
    known = read_system(world.system.state)
    assert known is not None
    return next(one for one in known.services if (one.service, one.node) == (name, node))


def replicas(world: World, name: str) -> list[ServiceEntry]:
    known = read_system(world.system.state)
    assert known is not None
    return [one for one in known.services if one.service == name]


def restart(world: World, name: str, node: str = "") -> None:
    """Kills one service and waits until the supervisor has another in its place, ready."""
    mark = service(world, name, node).mark
    assert mark is not None
    os.kill(mark.pid, signal.SIGKILL)
    until(lambda: service(world, name, node).mark not in (mark, None), f"{name} runs again")
    until(lambda: ready(world), "all is ready")


def ready(world: World) -> bool:
    try:
        world.system.cli("status")
    except LabError:
        return False
    return True
